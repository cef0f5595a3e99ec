"""A table as text that any medium can set: terminal, Markdown, HTML.

Conventions: an entry's `details` (interval, spread over seeds) may be left out where
space is short; `strong` marks the best of ours in its column; a line of kind "paper"
holds printed numbers of the paper. rho has three decimals; what is None or nan prints
as "undefined". Markdown escapes whatever a name may hold.

The tables of a report, made from its report.json object alone.

Conventions: columns are actions in the report's order, then the averages; the paper's
line stands under ours of the same name; the highest of ours in a column is strong.

Tables beside the main one: other metrics, pooled rho, what the SVRs chose.

Conventions: as in `tables`; they are for those who look, and lie behind a click.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from aqa.regress.evaluation.bootstrap import capital
from aqa.regress.experiments.study import title_of

SINGLE, ZERO_SHOT, FINE_TUNE = "single-vs-all", "zero-shot", "fine-tune"


@dataclass(frozen=True)
class Entry:
    """One number as text."""

    text: str
    details: tuple[str, ...] = ()
    strong: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a table; `kind` is "ours" or "paper"."""

    label: str
    entries: tuple[Entry, ...]
    kind: str = "ours"


@dataclass(frozen=True)
class Table:
    """A table: `corner` heads the labels, `columns` the entries of every line."""

    name: str
    title: str
    corner: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Pipes and dashes, the notes below."""
        head = [self.corner, *self.columns]
        text = [_pipes(map(escape, head)), _pipes(["---", *["---:"] * len(head[1:])])]
        for line in self.lines:
            label = escape(line.label)
            cells = [f"*{label}*" if line.kind == "paper" else label]
            cells += [_markdown_entry(entry) for entry in line.entries]
            text.append(_pipes(cells))
        return "\n".join([*text, "", *(f"- {escape(note)}" for note in self.notes)])


def number(value: float | None, text: str = "{:.3f}") -> str:
    """A number as text; a correlation unless `text` says otherwise."""
    if not defined(value):
        return "undefined"
    # Adding 0 to what is rounded spares "-0.000".
    return text.format(round(value, 3) + 0.0)


def bracket(ends: Sequence[float | None], text: str = "[{:.2f}, {:.2f}]") -> str:
    """An interval as text, to two decimals; empty where it is undefined."""
    if not all(map(defined, ends)):
        return ""
    return text.format(*(round(end, 2) + 0.0 for end in ends if defined(end)))


def defined(value: float | None) -> TypeGuard[float]:
    """Whether a number is there and is one."""
    return value is not None and not math.isnan(value)


def escape(text: str) -> str:
    """Text that Markdown, and HTML within it, shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|&$~])", r"\\\1", " ".join(text.split()))


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_entry(entry: Entry) -> str:
    text = f"**{entry.text}**" if entry.strong else entry.text
    return " ".join((text, *entry.details))


Report = Mapping[str, Any]

MATCHED = (
    "in parentheses: trained and tested on the same action, left out of the row's "
    "average"
)
AVERAGES = {"fisher_z": "Fisher z", "arithmetic": "arithm."}


def intervals(report: Report) -> str:
    """What the brackets of a table hold; a single seed has no spread."""
    if len(report["seeds"]) == 1:
        return "in brackets the bootstrap 95 % interval over test samples, of one seed"
    return (
        "in brackets the bootstrap 95 % interval: of an action over test samples, of "
        f"an average over {varied(report)}; sd: standard deviation over seeds"
    )


def varied(report: Report) -> str:
    """What the resamples behind averages and claims draw anew."""
    if len(report["seeds"]) == 1:
        return "test samples"
    return "seeds and test samples together"


def printed_name(name: str) -> str:
    """The name of an action, a row or a fine-tuning column as tables print it."""
    action, size, n = name.rpartition(" n=")
    return f"{title_of(action)}, n={n}" if size else title_of(name)


def by_action(report: Report, name: str, title: str) -> Table:
    """Rows over actions and both averages, the paper's line under each of ours."""
    actions = list(report["samples"])
    printed = dict(report["paper"]["rows"]) if report["paper"] else {}
    best = _best(report)
    lines = []
    for row in report["rows"]:
        entries = [_cell(row["per_action"][name], best.get(name)) for name in actions]
        entries += [_average(row["average"], kind, best.get(kind)) for kind in AVERAGES]
        lines.append(Line(title_of(row["name"]), tuple(entries)))
        if row["name"] in printed:
            lines.append(_printed(printed.pop(row["name"]), report, "paper"))
    for row_name, cells in printed.items():
        lines.append(_printed(cells, report, f"paper: {row_name}"))
    columns = (*map(title_of, actions), *AVERAGES.values())
    return Table(name, title, "", columns, tuple(lines), tuple(_notes(report)))


def claim(report: Report, found: Mapping[str, Any], name: str) -> Table:
    """A paired comparison, column by column and on average."""
    columns = {
        printed_name(column): cell for column, cell in found["per_column"].items()
    }
    columns |= {
        f"average, {AVERAGES[kind]}": cell for kind, cell in found["average"].items()
    }
    lines = [
        Line(
            label,
            (
                Entry(number(cell["difference"], "{:+.3f}")),
                Entry(bracket(cell["ci95"], "{:+.2f} to {:+.2f}")),
                Entry(number(cell["probability"], "{:.2f}")),
            ),
        )
        for label, cell in columns.items()
    ]
    return Table(
        name,
        f"{capital(found['better'])} minus {found['other']}",
        "",
        ("difference", "95 % interval", "P(better)"),
        tuple(lines),
        (
            f"P(better): share of paired bootstrap resamples, of {varied(report)}, in "
            "which the first has the higher rho; it is not a p-value",
        ),
    )


def fine_tuning(report: Report) -> Table:
    """Table 4, with the last iteration beside the best."""
    paper = report["paper"]
    rows = by_setting(report["rows"])
    printed = by_setting(paper["rows"]) if paper else {}
    # Both starts, or scratch alone, or nothing.
    starts = max(map(len, printed.values()), default=0)
    lines = []
    for setting, pair in rows.items():
        last = [row["last"] for row in pair]
        ahead = max(filter(defined, last), default=None)
        entries = [
            Entry(number(row["last"]), _details(row), row["last"] == ahead)
            for row in pair
        ]
        others = [*pair, *printed.get(setting, ())]
        entries += [Entry(number(row["best"])) for row in others]
        lines.append(Line(printed_name("{} n={}".format(*setting)), tuple(entries)))
    for kind, label in AVERAGES.items():
        averages = [report["averages"][start] for start in ("random", "multi-action")]
        values = [found[at][kind] for at in ("last", "best") for found in averages]
        entries = [Entry(number(value)) for value in values]
        entries += [Entry("")] * starts
        lines.append(Line(f"average, {label}", tuple(entries)))
    columns = ["scratch, last", "tuned, last", "scratch, best", "tuned, best"]
    notes = [
        "scratch starts from random weights, tuned from the head trained on all other "
        "actions",
        "last: after the last iteration, the honest number; best: the highest of all "
        "evaluated iterations, chosen on the test samples, as the paper does",
        _tested(report["rows"]),
        intervals(report),
        *_undefined(report),
    ]
    if paper:
        columns += ["paper: scratch, best", "paper: tuned, best"][:starts]
        notes.append(f"paper: {paper['source']}")
    return Table(
        "table-4",
        "Fine-tuning on n samples of a new action",
        "",
        tuple(columns),
        tuple(lines),
        tuple(notes),
    )


def _best(report: Report) -> dict[str, float]:
    """The highest value of each column, matched cells left aside."""
    found: dict[str, list[float]] = {}
    for row in report["rows"]:
        cells = row["per_action"].items()
        values = [(name, cell["mean"]) for name, cell in cells if not cell["matched"]]
        values += [(kind, row["average"][kind]) for kind in AVERAGES]
        for column, value in values:
            if defined(value):
                found.setdefault(column, []).append(value)
    return {column: max(values) for column, values in found.items()}


def _cell(cell: Mapping[str, Any], best: float | None) -> Entry:
    text = number(cell["mean"])
    if cell["matched"]:
        return Entry(f"({text})", _details(cell))
    return Entry(text, _details(cell), strong=best is not None and cell["mean"] == best)


def _average(average: Mapping[str, Any], kind: str, best: float | None) -> Entry:
    strong = best is not None and average[kind] == best
    numbers = {name: average[name][kind] for name in ("ci95", "sd")}
    return Entry(number(average[kind]), _details(numbers), strong)


def _details(numbers: Mapping[str, Any]) -> tuple[str, ...]:
    """Interval, and standard deviation over seeds, where they are defined."""
    texts = [bracket(numbers["ci95"])]
    if defined(numbers["sd"]):
        texts.append(f"sd {numbers['sd']:.3f}")
    return tuple(filter(None, texts))


def _printed(cells: Mapping[str, Any], report: Report, label: str) -> Line:
    """A line of the paper; its average stands under the rule that formed it."""
    rule = "fisher_z" if report["experiment"] == "single-vs-all" else "arithmetic"
    values = [cells["per_action"][action] for action in report["samples"]]
    values += [cells["average"] if kind == rule else None for kind in AVERAGES]
    entries = (Entry(number(value) if defined(value) else "") for value in values)
    return Line(label, tuple(entries), "paper")


def _notes(report: Report) -> list[str]:
    notes = [intervals(report)]
    if any(cell["matched"] for row in report["rows"] for cell in _cells(row)):
        notes.append(MATCHED)
    if report["paper"]:
        notes.append(f"paper: {report['paper']['source']}")
    return [*notes, *_undefined(report)]


def _tested(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many samples each action is tested on, and where they are from."""
    tests = {title_of(row["action"]): row["n_test"] for row in rows}
    sizes = [f"{n} of {action}" for action, n in tests.items()]
    if len(set(tests.values())) == 1:
        sizes = [f"{rows[0]['n_test']} of each action"]
    return (
        f"tested on samples that each seed draws from an action's training and test "
        f"lists together, none of which it trains on: {', '.join(sizes)}"
    )


def _undefined(report: Report) -> list[str]:
    """Name the rows whose rho is undefined somewhere, and how often."""
    named = []
    for row in report["rows"]:
        count = sum(cell["undefined"] for cell in _cells(row))
        if count:
            name = row.get("name") or "{action} n={n_train} from {init}".format(**row)
            named.append(f"{name} ({count})")
    if not named:
        return []
    return [
        "rho is undefined where all predictions are equal or one is not a number; it "
        f"is left out of means: {', '.join(named)}"
    ]


def _cells(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A row's cells; a row of fine-tuning is one itself."""
    return list(row["per_action"].values()) if "per_action" in row else [row]


def by_setting(
    rows: Sequence[Mapping[str, Any]],
) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """Rows by action and training size, from scratch first."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for start in ("random", "multi-action"):
        for row in rows:
            if row["init"] == start:
                found.setdefault((row["action"], row["n_train"]), []).append(row)
    return found


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
