"""Every number of a report as lines of two CSV files.

Conventions: numbers.csv is long: one number a line, `statistic` says which, `seed` and
`iteration` are empty where a number is not of one; predictions.csv has one line a
prediction, in judges' units. What is undefined is an empty value. Numbers are written
with all their digits. A text that a spreadsheet would take for a formula has an
apostrophe in front.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aqa.regress.report.table import defined
from aqa.regress.report.tables import Report
from aqa.regress.result import Result

Line = tuple[Any, ...]

#: What a formula, or text that hides one, begins with.
FORMULA = ("=", "+", "-", "@", "\t", "\r")

NUMBERS = ("experiment", "row", "column", "statistic", "seed", "iteration", "value")
PREDICTIONS = ("experiment", "row", "column", "seed", "key", "truth", "predicted")


def numbers_csv(reports: Sequence[Report]) -> str:
    """All numbers of the reports."""
    lines = (
        (report["experiment"], *line)
        for report in reports
        for line in (
            *_floor(report),
            *_rows(report),
            *_averages(report),
            *_claims(report),
        )
    )
    return _csv(NUMBERS, lines)


def predictions_csv(results: Sequence[Result]) -> str:
    """All predictions on test samples that the results rest on."""
    return _csv(
        PREDICTIONS, (line for result in results for line in _predictions(result))
    )


def _csv(head: Sequence[str], lines: Iterable[Line]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for line in lines:
        writer.writerow(map(_item, line))
    return text.getvalue()


def _item(item: Any) -> Any:
    """A value as a spreadsheet may have it: nothing undefined, no formula."""
    if isinstance(item, float) and not defined(item):
        return ""
    if isinstance(item, str) and item.startswith(FORMULA):
        return f"'{item}"
    return item


def _floor(report: Report) -> Iterator[Line]:
    for statistic, value in report["floor"].items():
        yield "floor", "", statistic, "", "", value


def _rows(report: Report) -> Iterator[Line]:
    for row in report["rows"]:
        if "per_action" in row:
            for action, cell in row["per_action"].items():
                yield from _flat(row["name"], action, cell)
            for group in ("average", "pooled"):
                yield from _flat(row["name"], group, row.get(group, {}))
        else:
            column = "{action} n={n_train}".format(**row)
            yield from _flat(row["init"], column, row)


def _averages(report: Report) -> Iterator[Line]:
    for start, averages in report.get("averages", {}).items():
        yield from _flat(start, "average", averages)


def _claims(report: Report) -> Iterator[Line]:
    for claim in report["claims"]:
        row = f"{claim['better']} minus {claim['other']}"
        for column, found in claim["per_column"].items():
            yield from _flat(row, column, found)
        yield from _flat(row, "average", claim["average"])


def _flat(
    row: str, column: str, found: Mapping[str, Any], prefix: str = ""
) -> Iterator[Line]:
    """The numbers of a cell; nested names are joined by a dot."""
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
        elif _is_interval(value, statistic):
            yield row, column, f"{statistic} low", "", "", value[0]
            yield row, column, f"{statistic} high", "", "", value[1]
        elif isinstance(value, list):
            for seed, item in enumerate(value):
                yield row, column, statistic, seed, "", item
        elif value is None or (
            isinstance(value, int | float) and not isinstance(value, bool)
        ):
            yield row, column, statistic, "", "", value


def _is_interval(value: Any, statistic: str) -> bool:
    return isinstance(value, list) and "ci95" in statistic


def _predictions(result: Result) -> Iterator[Line]:
    experiment = result.report["experiment"]
    for row, columns in result.cells.items():
        for column, cell in columns.items():
            seeds = zip(cell.rows, cell.truth, cell.predicted, strict=True)
            for seed, (rows, truth, predicted) in enumerate(seeds):
                for key, judged, guess in zip(
                    result.keys[rows], truth.tolist(), predicted.tolist(), strict=True
                ):
                    yield experiment, row, column, seed, key, judged, guess
