"""Tables beside the main one: other metrics, pooled rho, what the SVRs chose.

Conventions: as in `tables`; they are for those who look, and lie behind a click.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aqa.regress.report.table import Entry, Line, Table, defined, number
from aqa.regress.report.tables import (
    AVERAGES,
    MATCHED,
    Report,
    by_setting,
    printed_name,
)
from aqa.regress.study import title_of


def kendall(report: Report, name: str) -> Table:
    """Kendall's tau-b by action."""
    return _metric(report, "kendall_mean", name, "Kendall's tau-b by action", "{:.3f}")


def rl2(report: Report, name: str) -> Table:
    """Relative L2 distance by action."""
    title = "Relative L2 distance by action, times 100 (lower is better)"
    return _metric(report, "rl2_x100_mean", name, title, "{:.2f}")


def choices(report: Report) -> Table:
    """What cross-validation chose for each SVR."""
    actions = list(report["samples"])
    lines = [
        Line(
            row["name"],
            tuple(_chosen(row["choices"][action]) for action in actions),
        )
        for row in report["rows"]
        if row["choices"] and row["copies"] == 1
    ]
    note = "kernel, cost and epsilon; where seeds chose differently, each choice once"
    columns = tuple(map(title_of, actions))
    return Table("choices", "What the SVRs chose", "", columns, tuple(lines), (note,))


def _chosen(found: Sequence[Mapping[str, Any]]) -> Entry:
    texts = [
        f"{choice['kernel']} {choice['cost']:g} "
        + (f"nu {choice['nu']:g}" if choice["nu"] else f"{choice['epsilon']:g}")
        for choice in found
    ]
    first, *others = dict.fromkeys(texts)
    return Entry(first, tuple(others))


def _metric(report: Report, metric: str, name: str, title: str, text: str) -> Table:
    """One of the metrics besides rho, by action, with its arithmetic mean."""
    if report["experiment"] == "fine-tune":
        return _fine_tuned(report, metric, name, title, text)
    actions = list(report["samples"])
    lines, matched = [], False
    for row in report["rows"]:
        entries, kept = [], []
        for cell in (row["per_action"][action] for action in actions):
            shown = number(cell[metric], text)
            entries.append(Entry(f"({shown})" if cell["matched"] else shown))
            if defined(cell[metric]) and not cell["matched"]:
                kept.append(cell[metric])
            matched |= cell["matched"]
        mean = sum(kept) / len(kept) if kept else None
        entries.append(Entry(number(mean, text)))
        lines.append(Line(title_of(row["name"]), tuple(entries)))
    columns = (*map(title_of, actions), AVERAGES["arithmetic"])
    notes = (MATCHED,) if matched else ()
    return Table(name, title, "", columns, tuple(lines), notes)


def _fine_tuned(report: Report, metric: str, name: str, title: str, text: str) -> Table:
    """One of the metrics besides rho of both starts, after the last iteration."""
    lines = [
        Line(
            printed_name("{} n={}".format(*setting)),
            tuple(Entry(number(row[metric], text)) for row in pair),
        )
        for setting, pair in by_setting(report["rows"]).items()
    ]
    columns = ("scratch, last", "tuned, last")
    return Table(name, title, "", columns, tuple(lines))


def pooled(report: Report) -> Table:
    """rho pooled over all actions, which is read beside its floor or not at all."""
    values = {"knows only the action": report["floor"]["pooled_action_mean"]}
    values |= {row["name"]: row["pooled"]["mean"] for row in report["rows"]}
    return Table(
        "pooled",
        "All actions pooled",
        "",
        ("pooled rho",),
        tuple(Line(name, (Entry(number(rho)),)) for name, rho in values.items()),
        (
            "The first line predicts each action's training mean and sees no video: "
            "pooled rho mostly says which sport is watched. It is no measure of "
            "quality.",
        ),
    )
