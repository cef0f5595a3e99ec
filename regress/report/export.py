"""Numbers of a report in CSV files for other programs.

Conventions: numbers.csv is long: one number per line, `statistic` says which, `seed`
and `iteration` are empty where a number is not of one; table.csv is wide: one line per
row of the main table; predictions.csv has one line per prediction, in judges' units.
Undefined values are empty, numbers have all their digits, and a text that a spreadsheet
would take for a formula has an apostrophe in front.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aqa.regress.experiments.result import (
    AnyReport,
    FineTuneReport,
    Report,
    Result,
    to_json,
)
from aqa.regress.report.text_table import defined

Record = tuple[Any, ...]
NUMBERS = ("experiment", "row", "column", "statistic", "seed", "iteration", "value")
PREDICTIONS = ("experiment", "row", "column", "seed", "key", "truth", "predicted")
#: How a spreadsheet's formulas begin.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def numbers_csv(reports: Sequence[AnyReport]) -> str:
    """Return all numbers of the reports."""
    lines = (
        (report.experiment, *line)
        for report in reports
        for line in (*_floor(report), *_rows(report), *_comparisons(report))
    )
    return _csv(NUMBERS, lines)


def table_csv(reports: Sequence[AnyReport]) -> str:
    """Return the main tables: mean, interval, sd and n per row and column."""
    lines = []
    for report in reports:
        for row, column, cell in _cells(report):
            low, high = cell["ci95"]
            lines.append(
                (report.experiment, row, column, cell["mean"], low, high, cell["sd"],
                 cell.get("n_test"))
            )  # fmt: skip
    return _csv(
        ("experiment", "row", "column", "rho", "low", "high", "sd", "n"),
        lines,
    )


def predictions_csv(results: Sequence[Result]) -> str:
    """Return all predictions on test samples that the results rest on."""
    return _csv(
        PREDICTIONS, (line for result in results for line in _predictions(result))
    )


def _csv(head: Sequence[str], lines: Iterable[Record]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for line in lines:
        writer.writerow(map(_item, line))
    return text.getvalue()


def _item(item: Any) -> Any:
    if isinstance(item, float) and not defined(item):
        return ""
    if isinstance(item, str) and item.startswith(FORMULA):
        return f"'{item}"
    return item


def _cells(report: AnyReport) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield row, column and the JSON numbers of each cell of the main table."""
    for row in report.rows:
        numbers = to_json(row)
        if "per_action" not in numbers:
            column = f"{numbers['action']} n={numbers['n_train']}"
            yield numbers["init"], column, {**numbers, "mean": numbers["last"]}
            continue
        for action, cell in numbers["per_action"].items():
            yield numbers["name"], action, cell
        average = numbers["average"]
        for kind in ("fisher_z", "arithmetic"):
            cell = {name: average[name][kind] for name in ("ci95", "sd")}
            yield numbers["name"], f"average {kind}", {**cell, "mean": average[kind]}


def _floor(report: AnyReport) -> Iterator[Record]:
    for statistic, value in report.floor.items():
        yield "floor", "", statistic, "", "", value


def _rows(report: AnyReport) -> Iterator[Record]:
    if isinstance(report, Report):
        for row in report.rows:
            numbers = to_json(row)
            for action, cell in numbers["per_action"].items():
                yield from _flat(row.name, action, cell)
            for group in ("average", "pooled"):
                yield from _flat(row.name, group, numbers.get(group, {}))
    if isinstance(report, FineTuneReport):
        for setting in report.rows:
            column = f"{setting.action} n={setting.n_train}"
            yield from _flat(setting.init, column, to_json(setting))
        for start, averages in report.averages.items():
            yield from _flat(start, "average", to_json(averages))


def _comparisons(report: AnyReport) -> Iterator[Record]:
    for each in report.claims:
        row = f"{each.better} minus {each.other}"
        for column, found in each.per_column.items():
            yield from _flat(row, column, to_json(found))
        yield from _flat(row, "average", to_json(each.average))


def _flat(
    row: str, column: str, found: Mapping[str, Any], prefix: str = ""
) -> Iterator[Record]:
    """Yield the numbers of a cell; nested names are joined by a dot."""
    for name, value in found.items():
        statistic = prefix + name
        if isinstance(value, Mapping):
            yield from _flat(row, column, value, f"{statistic}.")
        elif name == "curve":
            for iteration, rho in value:
                yield row, column, "mean at iteration", "", iteration, rho
        elif name == "curve_per_seed":
            at = [iteration for iteration, _ in found["curve"]]
            for seed, rhos in enumerate(value):
                for iteration, rho in zip(at, rhos, strict=True):
                    yield row, column, "spearman at iteration", seed, iteration, rho
        elif isinstance(value, list) and "ci95" in statistic:
            yield row, column, f"{statistic} low", "", "", value[0]
            yield row, column, f"{statistic} high", "", "", value[1]
        elif isinstance(value, list):
            for seed, item in enumerate(value):
                yield row, column, statistic, seed, "", item
        elif value is None or (
            isinstance(value, int | float) and not isinstance(value, bool)
        ):
            yield row, column, statistic, "", "", value


def _predictions(result: Result) -> Iterator[Record]:
    experiment = result.report.experiment
    for row, columns in result.cells.items():
        for column, cell in columns.items():
            seeds = zip(cell.tests, cell.predicted, strict=True)
            for seed, (test, predicted) in enumerate(seeds):
                for key, judged, guess in zip(
                    result.keys[test.rows],
                    test.truth.tolist(),
                    predicted.tolist(),
                    strict=True,
                ):
                    yield experiment, row, column, seed, key, judged, guess
