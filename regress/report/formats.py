r"""A report as other programs read it: Markdown, LaTeX, rich tables, CSV.

Conventions: an entry's `details` (interval, standard deviation over seeds) may be left
out where space is short; `strong` marks the best of ours in a column; a `paper` line
holds printed numbers of the paper. rho has three decimals; None and nan print as
"undefined". Each format escapes whatever a name may hold. LaTeX tables need booktabs
and are included by \input.

numbers.csv is long: one number per line, `statistic` says which, `seed` and `iteration`
are empty where a number is not of one; table.csv is wide: one line per row and column
of the main table; predictions.csv has one line per prediction, in judges' units, with
what rho ranks, which in a cross-validation is aligned (`splits.join_folds`). In
CSV undefined values are empty, numbers have all their digits, and a text that a
spreadsheet would take for a formula has an apostrophe in front.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from aqa.regress.experiments.describe import capital
from aqa.regress.experiments.result import (
    AnyReport,
    FineTuneReport,
    Report,
    Result,
    to_json,
)


@dataclass(frozen=True)
class Entry:
    """One number as text."""

    text: str
    details: tuple[str, ...] = ()
    strong: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a table; `paper` marks printed numbers of the paper."""

    label: str
    entries: tuple[Entry, ...]
    paper: bool = False


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
        """Return the table in Markdown, its notes below; names are escaped."""
        rows = [
            [self.corner, *map(escape, self.columns)],
            ["---", *["---:"] * len(self.columns)],
        ]
        for line in self.lines:
            label = escape(line.label)
            cells = [f"*{label}*" if line.paper else label]
            for entry in line.entries:
                shown = f"**{entry.text}**" if entry.strong else entry.text
                cells.append(" ".join((shown, *entry.details)))
            rows.append(cells)
        text = [f"| {' | '.join(cells)} |" for cells in rows]
        return "\n".join([*text, "", *(f"- {escape(sentence(n))}" for n in self.notes)])


def number(value: float | None, text: str = "{:.3f}") -> str:
    """Return a number as text; a correlation unless `text` says otherwise."""
    if not defined(value):
        return "undefined"
    return text.format(round(value, 3) + 0.0)  # adding 0 avoids "-0.000"


def bracket(ends: Sequence[float], text: str = "[{:.2f}, {:.2f}]") -> str:
    """Return an interval as text, to two decimals; empty where it is undefined."""
    if not all(map(defined, ends)):
        return ""
    return text.format(*(round(end, 2) + 0.0 for end in ends))


def defined(value: float | None) -> TypeGuard[float]:
    """Return whether a number is there and not nan."""
    return value is not None and not math.isnan(value)


def escape(text: str) -> str:
    """Return text that Markdown, and HTML within it, shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|&$~])", r"\\\1", " ".join(text.split()))


def sentence(note: str) -> str:
    """Return a note as a sentence: a capital letter, and a period at its end."""
    return f"{capital(note)}{'' if note.endswith(('.', '?', '!')) else '.'}"


def latex(tables: Iterable[Table]) -> str:
    """Return the tables for a paper: booktabs, best in bold, intervals, notes."""
    head = "% Needs \\usepackage{booktabs}\n"
    return head + "\n".join(map(_latex_table, tables))


def _latex_table(table: Table) -> str:
    columns = " & ".join(map(_tex, (table.corner, *table.columns)))
    lines = []
    for line in table.lines:
        label = f"\\textit{{{_tex(line.label)}}}" if line.paper else _tex(line.label)
        lines.append(" & ".join([label, *map(_latex_entry, line.entries)]) + " \\\\")
    body = "\n".join(lines)
    notes = " ".join(_tex(sentence(note)) for note in table.notes)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_tex(table.title)}. {notes}}}\n"
        f"\\label{{tab:{re.sub(r'[^a-z0-9-]', '', table.name)}}}\n"
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}\n\\toprule\n"
        f"{columns} \\\\\n\\midrule\n{body}\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def _latex_entry(entry: Entry) -> str:
    text = _tex(entry.text)
    if entry.strong:
        text = f"\\textbf{{{text}}}"
    return " ".join([text, *(f"{{\\tiny {_tex(each)}}}" for each in entry.details)])


#: What LaTeX would obey, and what shows it.
TEX = str.maketrans(
    {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "<": "\\textless{}",
        ">": "\\textgreater{}",
        "|": "\\textbar{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)


def _tex(text: str) -> str:
    shown = " ".join(text.split()).translate(TEX)
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", shown)


def rich_table(table: Table) -> RichTable:
    """Return a table as rich draws it, without details."""
    drawn = RichTable(
        title=Text(table.title, style="bold"),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    drawn.add_column(Text(table.corner))
    for place, column in enumerate(table.columns):
        head = re.sub(r" \(n = (.+)\)$", r"\nn=\1", column)  # on a line of its own
        # As narrow as its longest word: a head breaks into lines, a number never.
        words = [*head.split(), *(line.entries[place].text for line in table.lines)]
        drawn.add_column(Text(head), justify="right", width=max(map(len, words)))
    for line in table.lines:
        style = "dim" if line.paper else ""
        cells = [Text(f"  {line.label}" if line.paper else line.label, style=style)]
        for entry in line.entries:
            cells.append(Text(entry.text, style="bold" if entry.strong else style))
        drawn.add_row(*cells)
    return drawn


#: How a spreadsheet's formulas begin.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
#: One line of a CSV file.
Record = tuple[Any, ...]


def numbers_csv(reports: Sequence[AnyReport]) -> str:
    """Return all numbers of the reports."""
    head = ("experiment", "row", "column", "statistic", "seed", "iteration", "value")
    return _csv(
        head,
        (
            (report.experiment, row, column, *number)
            for report in reports
            for row, column, numbers in _parts(report)
            for number in _numbers(to_json(numbers))
        ),
    )


def table_csv(reports: Sequence[AnyReport]) -> str:
    """Return the main tables: mean, interval, sd and n per row and column."""
    lines: list[Record] = []
    for report in reports:
        name = report.experiment
        if isinstance(report, FineTuneReport):
            for setting in report.rows:
                numbers = (setting.last, *setting.ci95, setting.sd, setting.n_test)
                lines.append((name, setting.init, setting.column, *numbers))
            continue
        for row in report.rows:
            for column, (value, ci95, sd) in row.values().items():
                cell = row.per_action.get(column)
                title = column if cell else f"average {column}"
                tests = cell.n_test if cell else None
                lines.append((name, row.name, title, value, *ci95, sd, tests))
    head = ("experiment", "row", "column", "rho", "low", "high", "sd", "n")
    return _csv(head, lines)


def predictions_csv(results: Sequence[Result]) -> str:
    """Return all predictions on test samples that the results rest on."""
    place = ("experiment", "row", "column", "seed")
    head = (*place, "key", "truth", "predicted", "ranked")
    return _csv(head, (line for result in results for line in _predictions(result)))


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


def _parts(report: AnyReport) -> Iterator[tuple[str, str, Any]]:
    """Yield row, column and what report.json holds of them."""
    yield "floor", "", report.floor
    if isinstance(report, Report):
        for row in report.rows:
            for action, cell in row.per_action.items():
                yield row.name, action, cell
            yield row.name, "average", row.average
            yield row.name, "pooled", row.pooled or {}
    else:
        for setting in report.rows:
            yield setting.init, setting.column, setting
        for start, averages in report.averages.items():
            yield start, "average", averages
    for each in report.claims:
        pair = f"{each.better} minus {each.other}"
        for column, found in each.per_column.items():
            yield pair, column, found
        yield pair, "average", each.average


def _numbers(found: Mapping[str, Any], prefix: str = "") -> Iterator[Record]:
    """Yield statistic, seed, iteration, value; nested names are joined by a dot."""
    for name, value in found.items():
        statistic = prefix + name
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{statistic}.")
        elif name == "curve":
            for iteration, rho in value:
                yield "mean at iteration", "", iteration, rho
        elif name == "curve_per_seed":
            at = [iteration for iteration, _ in found["curve"]]
            for seed, rhos in enumerate(value):
                for iteration, rho in zip(at, rhos, strict=True):
                    yield "spearman at iteration", seed, iteration, rho
        elif isinstance(value, list) and "ci95" in statistic:
            yield f"{statistic} low", "", "", value[0]
            yield f"{statistic} high", "", "", value[1]
        elif isinstance(value, list):
            for seed, item in enumerate(value):
                yield statistic, seed, "", item
        elif not isinstance(value, str | bool):
            yield statistic, "", "", value


def _predictions(result: Result) -> Iterator[Record]:
    for row, columns in result.cells.items():
        for column, cell in columns.items():
            seeds = zip(cell.tests, cell.predicted, cell.ranked, strict=True)
            for seed, (test, *predicted) in enumerate(seeds):
                place = (result.report.experiment, row, column, seed)
                values = (each.tolist() for each in (test.truth, *predicted))
                for line in zip(result.keys[test.rows], *values, strict=True):
                    yield *place, *line
