"""The tables of a report.

Conventions: columns are actions in the report's order, then the averages; the paper's
line stands under ours of the same name; the highest of ours in a column is strong. A
column says how many test samples it has, and whether they are few.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from aqa.regress.evaluation.bootstrap import AVERAGES
from aqa.regress.evaluation.metrics import arithmetic_mean
from aqa.regress.experiments.describe import Comparison, Metrics, capital
from aqa.regress.experiments.fine_tune import SCRATCH, TUNED
from aqa.regress.experiments.paper import PrintedRow
from aqa.regress.experiments.result import (
    FEW_TESTS,
    AnyReport,
    FineTuneReport,
    FineTuneRow,
    PrintedSetting,
    Report,
    Result,
    Row,
)
from aqa.regress.experiments.study import title_of
from aqa.regress.report.formats import Entry, Line, Table, bracket, defined, number

AVERAGE_TITLES = {"fisher_z": "Fisher z", "arithmetic": "arithm."}
#: The average by which the paper formed that of its table.
PAPER_AVERAGES = {"single-vs-all": "fisher_z", "zero-shot": "arithmetic"}
MATCHED = (
    "in parentheses: trained and tested on the same action, left out of the row's "
    "average"
)


def varied(report: AnyReport) -> str:
    """Name what intervals and comparisons let vary."""
    tests = "groups" if "leave one" in report.settings["split"] else "test samples"
    return f"{tests}, of one seed" if len(report.seeds) == 1 else f"{tests} and seeds"


def column_title(report: AnyReport, action: str) -> str:
    """Return an action's title with its number of test samples."""
    tests = report.samples[action]["test"]
    few = ", few" if tests < FEW_TESTS else ""
    return f"{title_of(action)} (n = {tests}{few})"


def _column_titles(report: AnyReport) -> dict[str, str]:
    """Return the titles of the columns that rows are compared in."""
    if isinstance(report, FineTuneReport):
        return {
            row.column: setting_title(row.action, row.n_train) for row in report.rows
        }
    return {action: column_title(report, action) for action in report.samples}


def setting_title(action: str, n: int, tests: int = FEW_TESTS) -> str:
    """Return the title of a fine-tuning setting, with its tests where they are few."""
    few = f" ({tests} tests)" if tests < FEW_TESTS else ""
    return f"{title_of(action)}, n={n}{few}"


def main_table(result: Result) -> Table:
    """Make the paper's table of an experiment."""
    if isinstance(result.report, FineTuneReport):
        return _fine_tuning(result.report, *result.table)
    return _by_action(result.report, *result.table)


def _by_action(report: Report, name: str, title: str) -> Table:
    """Make rows over actions and both averages, the paper's line under each of ours."""
    printed = dict(report.paper.rows) if report.paper else {}
    best: dict[str, float] = {}
    for row in report.rows:
        for column, (value, *_) in row.values().items():
            if defined(value) and not row.matched(column):
                best[column] = max(value, best.get(column, value))
    lines = []
    for row in report.rows:
        entries = []
        for column, (value, ci95, sd) in row.values().items():
            text, details = number(value), _details(ci95, sd)
            if row.matched(column):
                entries.append(Entry(f"({text})", details))
            else:
                entries.append(Entry(text, details, value == best.get(column)))
        lines.append(Line(title_of(row.name), tuple(entries)))
        if row.name in printed:
            lines.append(_printed(printed.pop(row.name), report, "paper"))
    for row_name, cells in printed.items():
        lines.append(_printed(cells, report, f"paper: {row_name}"))
    columns = [*_column_titles(report).values(), *AVERAGE_TITLES.values()]
    notes = [_intervals(report)]
    if any(row.matched(column) for row in report.rows for column in row.per_action):
        notes.append(MATCHED)
    notes += _source_and_undefined(report)
    return Table(name, title, "", tuple(columns), tuple(lines), tuple(notes))


def _printed(cells: PrintedRow, report: Report, label: str) -> Line:
    """Make a line of the paper; its average stands under the rule that formed it."""
    rule = PAPER_AVERAGES.get(report.experiment)
    values = [cells.per_action[action] for action in report.samples]
    values += [cells.average if kind == rule else math.nan for kind in AVERAGES]
    return Line(label, tuple(map(_or_empty, values)), paper=True)


def _or_empty(value: float | None) -> Entry:
    return Entry(number(value) if defined(value) else "")


def _details(ci95: Sequence[float], sd: float) -> tuple[str, ...]:
    """Return interval, and standard deviation over seeds, where they are defined."""
    texts = (bracket(ci95), f"sd {sd:.3f}" if defined(sd) else "")
    return tuple(filter(None, texts))


def _intervals(report: AnyReport) -> str:
    """Say what the brackets of a table hold."""
    return f"in brackets the 95 % interval over {varied(report)}" + (
        "; sd: standard deviation over seeds" if len(report.seeds) > 1 else ""
    )


def _source_and_undefined(report: AnyReport) -> list[str]:
    """Name the paper's table, and the rows whose rho is undefined somewhere."""
    notes = [f"paper: {report.paper.source}"] if report.paper else []
    counts: dict[str, int] = {}
    for row in report.rows:
        if isinstance(row, Row):
            count = sum(cell.undefined for cell in row.per_action.values())
            counts[row.name] = count
        else:
            counts[f"{row.column} from {row.init}"] = row.undefined
    named = [f"{name} ({count})" for name, count in counts.items() if count]
    if named:
        notes.append(
            "rho is undefined where all predictions are equal or one is not a number; "
            f"it is left out of means: {', '.join(named)}"
        )
    return notes


def _fine_tuning(report: FineTuneReport, name: str, title: str) -> Table:
    """Make Table 4, with the last iteration beside the best."""
    printed = _by_setting(report.paper.rows) if report.paper else {}
    # Both starts, or scratch alone, or nothing.
    starts = max(map(len, printed.values()), default=0)
    lines = []
    for setting, pair in _by_setting(report.rows).items():
        ahead = max(filter(defined, (row.last for row in pair)), default=None)
        entries = [
            Entry(number(row.last), _details(row.ci95, row.sd), row.last == ahead)
            for row in pair
        ]
        others = [*pair, *printed.get(setting, ())]
        entries += [Entry(number(row.best)) for row in others]
        lines.append(Line(setting_title(*setting, pair[0].n_test), tuple(entries)))
    both = [report.averages[start] for start in (SCRATCH, TUNED)]
    for kind, label in AVERAGE_TITLES.items():
        values = [each.last[kind] for each in both] + [each.best[kind] for each in both]
        entries = [Entry(number(value)) for value in values] + [Entry("")] * starts
        lines.append(Line(f"average, {label}", tuple(entries)))
    columns = ["scratch, last", "tuned, last", "scratch, best", "tuned, best"]
    columns += ["paper: scratch, best", "paper: tuned, best"][:starts]
    notes = (
        "scratch starts from random weights, tuned from the head trained on all other "
        "actions",
        "last: after the last iteration; best: the highest of all evaluated ones, "
        "chosen on the test samples, as the paper does, and so too high",
        _tested(report),
        _intervals(report),
        *_source_and_undefined(report),
    )
    return Table(name, title, "", tuple(columns), tuple(lines), notes)


def _by_setting(
    rows: Sequence[FineTuneRow | PrintedSetting],
) -> dict[tuple[str, int], list[Any]]:
    """Group rows by action and training size, from scratch first."""
    found: dict[tuple[str, int], list[Any]] = {}
    for row in sorted(rows, key=lambda row: (SCRATCH, TUNED).index(row.init)):
        found.setdefault((row.action, row.n_train), []).append(row)
    return found


def _tested(report: FineTuneReport) -> str:
    """Say how many samples each action is tested on, and where they are from."""
    tests = {title_of(row.action): row.n_test for row in report.rows}
    sizes = [f"{n} of {action}" for action, n in tests.items()]
    if len(set(tests.values())) == 1:
        sizes = [f"{report.rows[0].n_test} of each action"]
    if report.rows[0].per_fold is not None:
        return f"tested on every sample once, in its fold: {', '.join(sizes)}"
    return (
        "tested on samples that each seed draws from an action's training and test "
        f"lists together, none of which it trains on: {', '.join(sizes)}"
    )


def comparison(report: AnyReport, found: Comparison, name: str) -> Table:
    """Make the table of a paired comparison, column by column and on average."""
    titles = _column_titles(report)
    columns = {titles[name]: cell for name, cell in found.per_column.items()}
    columns |= {
        f"average, {AVERAGE_TITLES[kind]}": cell for kind, cell in found.average.items()
    }
    lines = [
        Line(
            label,
            (
                Entry(number(cell.difference, "{:+.3f}")),
                Entry(bracket(cell.ci95, "{:+.2f} to {:+.2f}")),
                Entry(number(cell.probability, "{:.2f}")),
            ),
        )
        for label, cell in columns.items()
    ]
    note = (
        f"P(better): share of paired bootstrap resamples, over {varied(report)}, in "
        "which the first has the higher rho; it is not a p-value"
    )
    title = f"{capital(found.better)} minus {found.other}"
    heads = ("difference", "95 % interval", "P(better)")
    return Table(name, title, "", heads, tuple(lines), (note,))


def details(report: AnyReport) -> tuple[Table, ...]:
    """Make the tables besides the main one: other metrics, pooled rho, choices."""
    kendall = _metric(report, "kendall_mean", "Kendall's tau-b", "{:.3f}")
    rl2 = _metric(report, "rl2_x100_mean", "R-l2 times 100 (lower is better)", "{:.2f}")
    found = [kendall, rl2, _per_fold(report)]
    if isinstance(report, Report):
        pooled = [_pooled(report)] if len(report.samples) > 1 else []
        found = [*pooled, *found, _choices(report)]
    return tuple(table for table in found if table.lines)


def _metric(report: AnyReport, metric: str, title: str, text: str) -> Table:
    """Make the table of another metric; rows without any R-l2 are left out."""
    kind = metric.partition("_")[0]
    name, lines = f"{report.experiment}-{kind}", []
    if isinstance(report, FineTuneReport):
        for setting, pair in _by_setting(report.rows).items():
            shown = [number(getattr(row, metric), text) for row in pair]
            lines.append(Line(setting_title(*setting), tuple(map(Entry, shown))))
        heads = ("scratch, last", "tuned, last")
        return Table(name, title, "", heads, tuple(lines))
    matched = False
    for row in report.rows:
        values = {each: getattr(cell, metric) for each, cell in row.per_action.items()}
        unseen = [value for each, value in values.items() if not row.matched(each)]
        matched |= len(unseen) < len(values)
        if kind == "rl2" and not any(map(defined, unseen)):
            continue
        shown = [
            f"({number(value, text)})" if row.matched(each) else number(value, text)
            for each, value in values.items()
        ]
        shown.append(number(arithmetic_mean(unseen), text))
        lines.append(Line(title_of(row.name), tuple(map(Entry, shown))))
    return Table(
        name,
        f"{title} by action",
        "",
        (*_column_titles(report).values(), AVERAGE_TITLES["arithmetic"]),
        tuple(lines),
        (MATCHED,) if matched else (),
    )


def _choices(report: Report) -> Table:
    """Make the table of what cross-validation chose for each SVR."""
    lines = tuple(
        Line(row.name, tuple(_chosen(row.choices[name]) for name in report.samples))
        for row in report.rows
        if row.copies == 1 and row.choices and _of_svr(row.choices)
    )
    note = "kernel, cost and epsilon; where they differ by seed or fold, each once"
    columns = tuple(map(title_of, report.samples))
    return Table("choices", "What the SVRs chose", "", columns, lines, (note,))


def _of_svr(choices: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool:
    """Tell whether these are choices of an SVR: other heads choose other things."""
    return all("kernel" in each for found in choices.values() for each in found)


def _chosen(found: Sequence[Mapping[str, Any]]) -> Entry:
    texts = [
        f"{choice['kernel']} {choice['cost']:g} "
        + (f"nu {choice['nu']:g}" if choice["nu"] else f"{choice['epsilon']:g}")
        for choice in found
    ]
    first, *others = dict.fromkeys(texts)
    return Entry(first, tuple(others))


def _pooled(report: Report) -> Table:
    """Make the table of rho pooled over all actions, beside its baseline."""
    values = {row.name: row.pooled.mean for row in report.rows if row.pooled}
    if values:
        floor = report.floor["pooled_action_mean"]
        values = {"knows only the action": floor, **values}
    lines = tuple(Line(name, (Entry(number(rho)),)) for name, rho in values.items())
    note = (
        "The first line predicts each action's mean training score and sees no video: "
        "pooled rho mostly says which action is seen. It is no measure of quality."
    )
    return Table("pooled", "All actions pooled", "", ("pooled rho",), lines, (note,))


def _per_fold(report: AnyReport) -> Table:
    """Make the table of rho within each fold, where there are folds."""
    cells: dict[str, Metrics] = {}
    for row in report.rows:
        if isinstance(row, FineTuneRow):
            cells[f"{setting_title(row.action, row.n_train)}, {row.init}"] = row
        else:
            for action, cell in row.per_action.items():
                cells[f"{title_of(row.name)}: {title_of(action)}"] = cell
    found = {label: cell.per_fold for label, cell in cells.items() if cell.per_fold}
    names = list(dict.fromkeys(name for folds in found.values() for name in folds))
    lines = []
    for label, folds in found.items():
        means = [folds[name].mean if name in folds else math.nan for name in names]
        entries = (*map(_or_empty, means), Entry(number(arithmetic_mean(means))))
        lines.append(Line(label, entries))
    note = (
        "rho over the test samples of one fold, mean over seeds; empty where a fold "
        "tests fewer than two samples or predictions are constant. The other tables "
        "judge all folds' predictions together"
    )
    columns = (*names, "mean of folds")
    name, title = f"{report.experiment}-folds", "Within each fold"
    return Table(name, title, "", columns, tuple(lines), (note,))


@dataclass(frozen=True)
class Extreme:
    """A test sample whose predicted rank is near to or far from the true one."""

    column: str
    key: str
    texts: tuple[str, str, str, str]  # judges, predicted, rank, predicted rank
    worst: bool


def best_row(result: Result) -> str:
    """Name the row with the highest average, or the first where rows have none."""
    averages = {
        row.name: row.average.fisher_z
        for row in result.report.rows
        if isinstance(row, Row) and row.name in result.cells
    }
    return max(averages, key=averages.__getitem__, default=next(iter(result.cells)))


def extreme_samples(result: Result, count: int) -> list[Extreme]:
    """Return the `count` best and worst predicted samples of each column.

    Of `best_row`, the first seed; ranks are within a column.
    """
    found = []
    for column, cell in result.cells[best_row(result)].items():
        test, predicted = cell.tests[0], cell.predicted[0]
        ranks, guessed = rankdata(test.truth), rankdata(cell.ranked[0])
        order = np.argsort(np.abs(ranks - guessed), kind="stable")
        few = min(count, len(order) // 2)
        for nth, place in enumerate((*order[:few], *order[len(order) - few :])):
            texts = (
                number(test.truth[place], "{:.2f}"),
                number(predicted[place], "{:.2f}"),
                f"{ranks[place]:g}",
                f"{guessed[place]:g}",
            )
            key = str(result.keys[test.rows[place]])
            found.append(Extreme(column, key, texts, nth >= few))
    return found


def extremes(result: Result, count: int = 3) -> Table:
    """Make the table of the best and worst predicted samples."""
    return Table(
        f"{result.report.experiment}-extremes",
        f"Best and worst predicted samples: {best_row(result)}",
        "sample",
        ("judges", "predicted", "rank", "predicted rank"),
        tuple(
            Line(f"{each.column}: {each.key}", tuple(map(Entry, each.texts)))
            for each in extreme_samples(result, count)
        ),
        ("first seed; of each column the nearest ranks first, then the furthest",),
    )
