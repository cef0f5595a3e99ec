"""The tables of a report.

Conventions: columns are actions in the report's order, then the averages; the paper's
line stands under ours of the same name; the highest of ours in a column is strong. A
column says how many test samples it has, and whether they are few.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aqa.regress.evaluation.bootstrap import AVERAGES
from aqa.regress.experiments.describe import Average, CellNumbers, Comparison, capital
from aqa.regress.experiments.fine_tune import SCRATCH, TUNED
from aqa.regress.experiments.paper import PrintedRow
from aqa.regress.experiments.result import (
    FEW_TESTS,
    AnyReport,
    FineTuneReport,
    FineTuneRow,
    PrintedSetting,
    Report,
    Row,
)
from aqa.regress.experiments.study import title_of
from aqa.regress.report.text_table import Entry, Line, Table, bracket, defined, number

AVERAGE_TITLES = {"fisher_z": "Fisher z", "arithmetic": "arithm."}
#: The average by which the paper formed that of its table.
PAPER_AVERAGES = {"single-vs-all": "fisher_z", "zero-shot": "arithmetic"}
MATCHED = (
    "in parentheses: trained and tested on the same action, left out of the row's "
    "average"
)


def intervals(report: AnyReport) -> str:
    """Say what the brackets of a table hold."""
    return f"in brackets the 95 % interval over {varied(report)}" + (
        "; sd: standard deviation over seeds" if len(report.seeds) > 1 else ""
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


def setting_title(action: str, n: int, tests: int = FEW_TESTS) -> str:
    """Return the title of a fine-tuning setting, with its tests where they are few."""
    few = f" ({tests} tests)" if tests < FEW_TESTS else ""
    return f"{title_of(action)}, n={n}{few}"


def by_action(report: Report, name: str, title: str) -> Table:
    """Make rows over actions and both averages, the paper's line under each of ours."""
    actions = list(report.samples)
    printed = dict(report.paper.rows) if report.paper else {}
    best = _best(report)
    lines = []
    for row in report.rows:
        entries = [_cell(row.per_action[name], best.get(name)) for name in actions]
        entries += [_average(row.average, kind, best.get(kind)) for kind in AVERAGES]
        lines.append(Line(title_of(row.name), tuple(entries)))
        if row.name in printed:
            lines.append(_printed(printed.pop(row.name), report, "paper"))
    for row_name, cells in printed.items():
        lines.append(_printed(cells, report, f"paper: {row_name}"))
    columns = [column_title(report, action) for action in actions]
    columns += AVERAGE_TITLES.values()
    return Table(name, title, "", tuple(columns), tuple(lines), tuple(_notes(report)))


def comparison(report: AnyReport, found: Comparison, name: str) -> Table:
    """Make the table of a paired comparison, column by column and on average."""
    columns = {_column(report, name): cell for name, cell in found.per_column.items()}
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
    return Table(
        name,
        f"{capital(found.better)} minus {found.other}",
        "",
        ("difference", "95 % interval", "P(better)"),
        tuple(lines),
        (
            f"P(better): share of paired bootstrap resamples, over {varied(report)}, "
            "in which the first has the higher rho; it is not a p-value",
        ),
    )


def _column(report: AnyReport, name: str) -> str:
    action, size, n = name.rpartition(" n=")
    return setting_title(action, int(n)) if size else column_title(report, name)


def fine_tuning(report: FineTuneReport, name: str, title: str) -> Table:
    """Make Table 4, with the last iteration beside the best."""
    paper = report.paper
    printed = _by_setting(paper.rows) if paper else {}
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
        title_of_line = setting_title(*setting, pair[0].n_test)
        lines.append(Line(title_of_line, tuple(entries)))
    for kind, label in AVERAGE_TITLES.items():
        both = [report.averages[start] for start in (SCRATCH, TUNED)]
        values = [each.last[kind] for each in both] + [each.best[kind] for each in both]
        entries = [Entry(number(value)) for value in values] + [Entry("")] * starts
        lines.append(Line(f"average, {label}", tuple(entries)))
    columns = ["scratch, last", "tuned, last", "scratch, best", "tuned, best"]
    columns += ["paper: scratch, best", "paper: tuned, best"][:starts]
    notes = [
        "scratch starts from random weights, tuned from the head trained on all other "
        "actions",
        "last: after the last iteration; best: the highest of all evaluated ones, "
        "chosen on the test samples, as the paper does, and so too high",
        _tested(report),
        intervals(report),
        *_undefined(report),
    ]
    if paper:
        notes.append(f"paper: {paper.source}")
    return Table(name, title, "", tuple(columns), tuple(lines), tuple(notes))


def _best(report: Report) -> dict[str, float]:
    """Return the highest value of each column, matched cells left aside."""
    found: dict[str, list[float]] = {}
    for row in report.rows:
        cells = row.per_action.items()
        values = [(name, cell.mean) for name, cell in cells if not cell.matched]
        values += [(kind, row.average.of(kind)) for kind in AVERAGES]
        for column, value in values:
            if defined(value):
                found.setdefault(column, []).append(value)
    return {column: max(values) for column, values in found.items()}


def _cell(cell: CellNumbers, best: float | None) -> Entry:
    text, details = number(cell.mean), _details(cell.ci95, cell.sd)
    if cell.matched:
        return Entry(f"({text})", details)
    return Entry(text, details, strong=best is not None and cell.mean == best)


def _average(average: Average, kind: str, best: float | None) -> Entry:
    value = average.of(kind)
    details = _details(average.ci95[kind], average.sd[kind])
    return Entry(number(value), details, best is not None and value == best)


def _details(ci95: Sequence[float], sd: float) -> tuple[str, ...]:
    """Return interval, and standard deviation over seeds, where they are defined."""
    texts = (bracket(ci95), f"sd {sd:.3f}" if defined(sd) else "")
    return tuple(filter(None, texts))


def _printed(cells: PrintedRow, report: Report, label: str) -> Line:
    """Make a line of the paper; its average stands under the rule that formed it."""
    rule = PAPER_AVERAGES.get(report.experiment)
    values = [cells.per_action[action] for action in report.samples]
    values += [cells.average if kind == rule else math.nan for kind in AVERAGES]
    entries = (Entry(number(value) if defined(value) else "") for value in values)
    return Line(label, tuple(entries), paper=True)


def _notes(report: Report) -> list[str]:
    notes = [intervals(report)]
    if any(cell.matched for row in report.rows for cell in row.per_action.values()):
        notes.append(MATCHED)
    if report.paper:
        notes.append(f"paper: {report.paper.source}")
    return [*notes, *_undefined(report)]


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


def _undefined(report: AnyReport) -> list[str]:
    """Name the rows whose rho is undefined somewhere, and how often."""
    counts: dict[str, int] = {}
    for row in report.rows:
        if isinstance(row, Row):
            count = sum(cell.undefined for cell in row.per_action.values())
            counts[row.name] = count
        else:
            counts[f"{row.action} n={row.n_train} from {row.init}"] = row.undefined
    named = [f"{name} ({count})" for name, count in counts.items() if count]
    if not named:
        return []
    return [
        "rho is undefined where all predictions are equal or one is not a number; it "
        f"is left out of means: {', '.join(named)}"
    ]


AnySetting = FineTuneRow | PrintedSetting


def _by_setting(
    rows: Sequence[AnySetting],
) -> dict[tuple[str, int], list[Any]]:
    """Group rows by action and training size, from scratch first."""
    found: dict[tuple[str, int], list[Any]] = {}
    for start in (SCRATCH, TUNED):
        for row in rows:
            if row.init == start:
                found.setdefault((row.action, row.n_train), []).append(row)
    return found


def details(report: AnyReport) -> tuple[Table, ...]:
    """Make the tables besides the main one: other metrics, pooled rho, choices."""
    name = report.experiment
    kendall = _metric(report, f"{name}-kendall", "kendall_mean", "Kendall's tau-b")
    rl2 = _metric(
        report, f"{name}-rl2", "rl2_x100_mean", "R-l2 times 100 (lower is better)"
    )
    found = [kendall, *([rl2] if rl2.lines else []), *_per_fold(report)]
    if isinstance(report, Report):
        if any(row.pooled for row in report.rows):
            found.insert(0, _pooled(report))
        if any(row.choices for row in report.rows):
            found.append(_choices(report))
    return tuple(found)


def _metric(report: AnyReport, name: str, metric: str, title: str) -> Table:
    """Make the table of another metric; rows without any value are left out."""
    text = "{:.2f}" if metric.startswith("rl2") else "{:.3f}"
    if isinstance(report, FineTuneReport):
        lines = tuple(
            Line(
                setting_title(*setting),
                tuple(Entry(number(getattr(row, metric), text)) for row in pair),
            )
            for setting, pair in _by_setting(report.rows).items()
        )
        return Table(name, title, "", ("scratch, last", "tuned, last"), lines)
    lines = tuple(
        _metric_line(row, lambda cell: float(getattr(cell, metric)), text)
        for row in report.rows
        if any(defined(getattr(cell, metric)) for cell in _unseen(row))
        or metric == "kendall_mean"
    )
    matched = any(len(_unseen(row)) < len(row.per_action) for row in report.rows)
    columns = [column_title(report, action) for action in report.samples]
    columns.append(AVERAGE_TITLES["arithmetic"])
    notes = (MATCHED,) if matched else ()
    return Table(name, f"{title} by action", "", tuple(columns), lines, notes)


def _unseen(row: Row) -> list[CellNumbers]:
    return [cell for cell in row.per_action.values() if not cell.matched]


def _metric_line(row: Row, metric: Callable[[CellNumbers], float], text: str) -> Line:
    entries = []
    for cell in row.per_action.values():
        shown = number(metric(cell), text)
        entries.append(Entry(f"({shown})" if cell.matched else shown))
    kept = [value for value in map(metric, _unseen(row)) if defined(value)]
    entries.append(Entry(number(sum(kept) / len(kept) if kept else None, text)))
    return Line(title_of(row.name), tuple(entries))


def _choices(report: Report) -> Table:
    """Make the table of what cross-validation chose for each SVR."""
    actions = list(report.samples)
    lines = tuple(
        Line(row.name, tuple(_chosen(row.choices[action]) for action in actions))
        for row in report.rows
        if row.choices and row.copies == 1
    )
    note = "kernel, cost and epsilon; where they differ by seed or fold, each once"
    columns = tuple(map(title_of, actions))
    return Table("choices", "What the SVRs chose", "", columns, lines, (note,))


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
    values = {"knows only the action": report.floor["pooled_action_mean"]}
    values |= {row.name: row.pooled.mean for row in report.rows if row.pooled}
    return Table(
        "pooled",
        "All actions pooled",
        "",
        ("pooled rho",),
        tuple(Line(name, (Entry(number(rho)),)) for name, rho in values.items()),
        (
            "The first line predicts each action's mean training score and sees no "
            "video: pooled rho mostly says which action is seen. It is no measure of "
            "quality.",
        ),
    )


def _per_fold(report: AnyReport) -> list[Table]:
    """Make the table of rho within each fold, where there are folds."""
    cells: dict[str, CellNumbers | FineTuneRow] = {}
    for row in report.rows:
        if isinstance(row, FineTuneRow):
            setting = setting_title(row.action, row.n_train)
            cells[f"{setting}, {row.init}"] = row
        else:
            for action, cell in row.per_action.items():
                cells[f"{title_of(row.name)}: {title_of(action)}"] = cell
    found = {label: cell.per_fold for label, cell in cells.items() if cell.per_fold}
    names = list(dict.fromkeys(name for folds in found.values() for name in folds))
    lines = []
    for label, folds in found.items():
        means = [folds[name].mean if name in folds else None for name in names]
        kept = list(filter(defined, means))
        entries = [Entry(number(mean) if defined(mean) else "") for mean in means]
        entries.append(Entry(number(sum(kept) / len(kept) if kept else None)))
        lines.append(Line(label, tuple(entries)))
    if not lines:
        return []
    note = (
        "rho over the test samples of one fold, mean over seeds; empty where a fold "
        "tests fewer than two samples or predictions are constant. The other tables "
        "judge all folds' predictions together"
    )
    columns = (*names, "mean of folds")
    title = "Within each fold"
    return [
        Table(f"{report.experiment}-folds", title, "", columns, tuple(lines), (note,))
    ]
