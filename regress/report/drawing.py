"""How every picture looks, and how it becomes an SVG.

Conventions: colours are Okabe and Ito's, told apart by colour-blind readers, and each
comes with its own marker and line style, for print. Sizes are inches, fit for a page
column. The same numbers give the same bytes: no date, ids salted with the picture's
name. Text stays text, and a name is never read as mathematics.
"""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aqa.regress.report.table import defined, number
from aqa.regress.study import title_of


@dataclass(frozen=True)
class Pen:
    """How one row is drawn wherever it is drawn."""

    colour: str
    marker: str
    line: Literal["-", "--"] = "-"
    hollow: bool = False


BLUE = Pen("#0072B2", "o")
VERMILION = Pen("#D55E00", "s", "--", hollow=True)
ORANGE, SKY = Pen("#E69F00", "^"), Pen("#56B4E9", "^")
INK, QUIET, RULE, FAINT = "#1b1f24", "#59636e", "#d0d7de", "#eaeef2"

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True)
class Picture:
    """A drawn figure: `alt` says in words what it shows, for those who do not see it.

    `width` in CSS pixels is the least at which it can be read.
    """

    name: str
    svg: str
    caption: str
    alt: str
    width: int = 520


def draw(name: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> str:
    """Let `paint` fill a figure of `size` inches; its SVG element as text."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        buffer = io.StringIO()
        with warnings.catch_warnings():
            # The reader's fonts draw the text; a glyph that is missing here is not.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _element(buffer.getvalue())


def zero_line(axes: Axes, *, upright: bool) -> None:
    """Mark rho = 0."""
    line = axes.axvline if upright else axes.axhline
    line(0, color=QUIET, linewidth=0.8, zorder=1)


def dot(label: str, pen: Pen) -> Line2D:
    """A legend's entry for a row that is drawn in dots."""
    return Line2D([], [], marker=pen.marker, linestyle="", label=label, **face(pen))


def face(pen: Pen) -> dict[str, Any]:
    """A pen's colour and filling, as matplotlib's marks take them."""
    filling = "white" if pen.hollow else pen.colour
    return {"color": pen.colour, "markerfacecolor": filling}


def averages_in_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every row's average, for those who do not see the picture."""
    return ", ".join(
        f"{title_of(row['name'])} {number(row['average']['fisher_z'], '{:.2f}')}"
        for row in rows
    )


def or_nan(value: float | None) -> float:
    """A number that can be drawn: what is undefined leaves a gap."""
    return value if defined(value) else float("nan")


def _element(svg: str) -> str:
    """The <svg> element alone, its groups without ids: several stand in one page."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*"', "<g", element).strip() + "\n"
