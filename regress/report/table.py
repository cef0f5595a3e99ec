"""A table as text that any medium can set: terminal, Markdown, HTML.

Conventions: an entry's `details` (interval, spread over seeds) may be left out where
space is short; `strong` marks the best of ours in its column; a line of kind "paper"
holds printed numbers of the paper. rho has three decimals; what is None or nan prints
as "undefined". Markdown escapes whatever a name may hold.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard


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
