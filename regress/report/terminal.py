"""Reports on a terminal: each experiment's main table and what it says in words.

Conventions: intervals are left to report.md and report.html, a terminal line is too
short for them; colour only where the console has it.
"""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from aqa.regress.report.sections import section_of, shared_notes
from aqa.regress.report.table import Line, Table
from aqa.regress.report.tables import Report


def print_reports(reports: Sequence[Report], console: Console) -> None:
    """Print the main table of each report, its findings and its notes."""
    shared = shared_notes(reports)
    for report in reports:
        section = section_of(report, shared)
        console.print(rich_table(section.tables[0]))
        _print_lines([*section.findings, *map(_as_note, section.notes)], console)
        console.print()
    _print_lines(list(map(_as_note, shared)), console)


def rich_table(table: Table) -> RichTable:
    """A table as rich draws it."""
    drawn = RichTable(
        title=Text(table.title, style="bold"),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    drawn.add_column(Text(table.corner))
    for place, column in enumerate(table.columns):
        # As narrow as its longest word: a head breaks into lines, a number never.
        words = [*column.split(), *(line.entries[place].text for line in table.lines)]
        drawn.add_column(Text(column), justify="right", width=max(map(len, words)))
    for line in table.lines:
        drawn.add_row(*_cells(line))
    return drawn


def _cells(line: Line) -> list[Text]:
    if line.kind == "paper":
        texts = [f"  {line.label}", *(entry.text for entry in line.entries)]
        return [Text(text, style="dim") for text in texts]
    styles = ["bold" if entry.strong else "" for entry in line.entries]
    cells = zip(line.entries, styles, strict=True)
    return [
        Text(line.label),
        *(Text(entry.text, style=style) for entry, style in cells),
    ]


def _print_lines(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(Padding(Text(line), (0, 0, 0, 2)))


def _as_note(note: str) -> str:
    return f"Note: {note}"
