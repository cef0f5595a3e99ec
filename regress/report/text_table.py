r"""A table as text that any medium can set: terminal, Markdown, LaTeX.

Conventions: an entry's `details` (interval, standard deviation over seeds) may be left
out where space is short; `strong` marks the best of ours in a column; a `paper` line
holds printed numbers of the paper. rho has three decimals; None and nan print as
"undefined". Each medium escapes whatever a name may hold. LaTeX tables need booktabs
and are included by \input.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from aqa.regress.experiments.describe import capital


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
        head = [self.corner, *self.columns]
        text = [_pipes(map(escape, head)), _pipes(["---", *["---:"] * len(head[1:])])]
        for line in self.lines:
            label = escape(line.label)
            cells = [f"*{label}*" if line.paper else label]
            cells += [_markdown_entry(entry) for entry in line.entries]
            text.append(_pipes(cells))
        notes = [f"- {escape(sentence(note))}" for note in self.notes]
        return "\n".join([*text, "", *notes])


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


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_entry(entry: Entry) -> str:
    text = f"**{entry.text}**" if entry.strong else entry.text
    return " ".join((text, *entry.details))


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
TEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def _tex(text: str) -> str:
    shown = "".join(TEX.get(sign, sign) for sign in " ".join(text.split()))
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", shown)


def rich_table(table: Table) -> RichTable:
    """Return a table as rich draws it."""
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
        drawn.add_row(*_texts(line))
    return drawn


def _texts(line: Line) -> list[Text]:
    if line.paper:
        texts = [f"  {line.label}", *(entry.text for entry in line.entries)]
        return [Text(text, style="dim") for text in texts]
    return [
        Text(line.label),
        *(
            Text(entry.text, style="bold" if entry.strong else "")
            for entry in line.entries
        ),
    ]
