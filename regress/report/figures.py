"""The pictures of a report, as SVG.

Conventions: colours are Okabe and Ito's, distinguishable by colour-blind readers, each
with its own marker and line style for print. Sizes are inches, fit for a page column.
The same numbers give the same bytes: no date, ids salted with the picture's name. Text
stays text, and a name is never read as mathematics. Undefined values are not drawn; an
interval is drawn where there is one. `PICTURES` names what an experiment may ask for.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from aqa.regress.experiments.describe import CellNumbers
from aqa.regress.experiments.fine_tune import SCRATCH, STARTS, TUNED
from aqa.regress.experiments.result import (
    FineTuneReport,
    FineTuneRow,
    Report,
    Result,
    Row,
)
from aqa.regress.experiments.study import title_of
from aqa.regress.heads import HEADS
from aqa.regress.report.formats import defined, number
from aqa.regress.report.tables import column_title, setting_title, varied


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
#: The line that marks rho = 0, and that of exact predictions.
RULE: dict[str, Any] = {"color": "#59636e", "linewidth": 0.8, "zorder": 1}
INK, FAINT = "#1b1f24", "#eaeef2"


@dataclass(frozen=True)
class Picture:
    """A drawn figure; `alt` describes it for those who do not see it.

    `width` in CSS pixels is the least at which it can be read.
    """

    name: str
    svg: str
    caption: str
    alt: str
    width: int = 520


def draw(name: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> str:
    """Let `paint` fill a figure of `size` inches; return its SVG element."""
    style = files("aqa.regress.report").joinpath("figures.mplstyle")
    with (
        as_file(style) as path,
        matplotlib.rc_context({"svg.hashsalt": name}, str(path)),
    ):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        buffer = io.StringIO()
        with warnings.catch_warnings():
            # The reader's fonts draw the text; a glyph that is missing here is not.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _element(buffer.getvalue())


def dot(label: str, pen: Pen) -> Line2D:
    """Return the legend entry of a row that is drawn in dots."""
    return Line2D([], [], marker=pen.marker, linestyle="", label=label, **face(pen))


def face(pen: Pen) -> dict[str, Any]:
    """Return a pen's colour and filling as matplotlib's markers take them."""
    filling = "white" if pen.hollow else pen.colour
    return {"color": pen.colour, "markerfacecolor": filling}


def averages_in_words(rows: Sequence[Row]) -> str:
    """Return every row's average, for those who do not see the picture."""
    return ", ".join(
        f"{title_of(row.name)} {number(row.average.fisher_z, '{:.2f}')}" for row in rows
    )


def _element(svg: str) -> str:
    """Return the <svg> element, its groups without ids: a page holds several."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*"', "<g", element).strip() + "\n"


#: Vertical room of one dot and of a legend's line, in inches.
ROOM, LEGEND_ROOM = 0.15, 0.22
#: Room between groups, in dots.
GAP = 1.4

#: Of each kind of head, in the order of `HEADS`: its rows, those that average over
#: copies, and those of the caches and variants that follow the first.
MARKERS = (("o", "P", "8HDP"), ("s", "D", "^X*d"), ("v", "v", "<>ph"), ("p", "X", "*h"))

PAPER: dict[str, Any] = {
    "color": INK,
    "marker": "|",
    "markersize": 9,
    "markeredgewidth": 1.6,
}


def dots(result: Result) -> Picture:
    """Draw every row of the table in every column, the paper's marks beside ours."""
    report = _with_rows(result)
    rows, pens = report.rows, _pens(report.rows)
    printed = report.paper.rows if report.paper else {}
    marked = any(row.name in printed for row in rows)
    groups = {action: column_title(report, action) for action in report.samples}
    groups["fisher_z"] = "average"
    step = len(rows) + GAP

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, **RULE)
        for place, group in enumerate(groups):
            axes.axhline(place * step - 0.5 - GAP / 2, color=FAINT, zorder=0)
            for nth, (row, pen) in enumerate(zip(rows, pens, strict=True)):
                y = place * step + nth
                value, ends, _ = row.values()[group]
                axes.plot(ends, [y, y], color=pen.colour, linewidth=2, alpha=0.45)
                axes.plot(value, y, pen.marker, markersize=5.5, **face(pen))
                if row.name in printed:
                    paper = printed[row.name]
                    axes.plot(paper.per_action.get(group, paper.average), y, **PAPER)
        middles = [place * step + (len(rows) - 1) / 2 for place in range(len(groups))]
        axes.set_yticks(middles, list(groups.values()), fontsize=9)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(groups) * step - 0.5 - GAP / 2, -0.5 - GAP / 2)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("Spearman's rho on the test samples")
        handles = [dot(row.name, pen) for row, pen in zip(rows, pens, strict=True)]
        if marked:
            handles.append(Line2D([], [], linestyle="", label="the paper", **PAPER))
        figure.legend(handles=handles, loc="outside upper left", ncols=2)

    legend = LEGEND_ROOM * ((len(rows) + marked + 1) // 2)
    return Picture(
        report.experiment,
        draw(report.experiment, (7.2, 0.6 + legend + ROOM * step * len(groups)), paint),
        "Spearman's rho by action, mean over seeds, with the 95 % interval over "
        f"{varied(report)}. The average is Fisher's z. Hollow: heads of a single "
        "action." + (" Black bars: the paper." if marked else ""),
        f"Dots with intervals; averages: {averages_in_words(rows)}.",
        width=480,
    )


def _with_rows(result: Result) -> Report:
    assert isinstance(result.report, Report), "the picture needs rows over actions"
    return result.report


def _pens(rows: Sequence[Row]) -> list[Pen]:
    """Choose markers by head; single-action ones are hollow and of another colour.

    Further caches and variants have their own pair of colours, and each its markers.
    """
    labels = [(row.features, _variant(row)) for row in rows]
    distinct = list(dict.fromkeys(labels))
    found = []
    for row, label in zip(rows, labels, strict=True):
        further = distinct.index(label)
        single, every = (ORANGE, SKY) if further else (VERMILION, BLUE)
        own, mean, others = MARKERS[[*HEADS].index(row.head) % len(MARKERS)]
        marker = mean if (row.copies or 1) > 1 else own
        if further:
            marker = others[(further - 1) % len(others)]
        hollow = row.mode == "single-action"
        pen = single if hollow else every
        found.append(replace(pen, marker=marker, hollow=hollow))
    return found


def _variant(row: Row) -> str:
    """Return what follows the head in a row's name, but for averaged copies."""
    _, _, rest = row.name.partition(", ")
    return "" if rest.startswith("mean of") else rest


PENS = {TUNED: BLUE, SCRATCH: VERMILION}
ABOVE: dict[str, Any] = {"markersize": 4.5, "clip_on": False, "zorder": 5}


def curves(result: Result) -> Picture:
    """Draw rho over the iterations: an action per row, a training size per column."""
    report = result.report
    assert isinstance(report, FineTuneReport), "the picture needs curves"
    panels: dict[str, dict[int, list[FineTuneRow]]] = {}
    for row in report.rows:
        panels.setdefault(row.action, {}).setdefault(row.n_train, []).append(row)
    printed = report.paper.rows if report.paper else []
    across = max(map(len, panels.values()))

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(panels), across, squeeze=False, sharey=True)
        for line, (action, sizes) in zip(grid, panels.items(), strict=True):
            for axes in line[len(sizes) :]:
                axes.set_axis_off()
            for axes, (n, rows) in zip(line, sizes.items(), strict=False):
                axes.axhline(0, **RULE)
                for row in rows:
                    _curve(axes, row)
                for mark in printed:
                    if (mark.action, mark.n_train) == (action, n):
                        # The paper does not say which iteration was best.
                        pen, end = PENS[mark.init], rows[0].iterations
                        look = face(replace(pen, hollow=True)) | ABOVE
                        axes.plot(end, mark.best, pen.marker, **look)
                axes.set_title(setting_title(action, n, rows[0].n_test))
                axes.grid(axis="y")
                axes.locator_params(axis="x", nbins=4, integer=True)
        figure.supxlabel("iteration", fontsize=9)
        figure.supylabel("Spearman's rho on the held-out samples", fontsize=9)
        handles = [
            Line2D([], [], color=pen.colour, linestyle=pen.line, label=STARTS[start])
            for start, pen in PENS.items()
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=2)

    return Picture(
        "fine-tune",
        draw("fine-tune", (8.2, 0.8 + 1.35 * len(panels)), paint),
        "rho on the held-out samples while a head is fine-tuned on n samples: the mean "
        "over seeds, the band from the lowest to the highest seed."
        + (" Hollow marks: the paper's best iteration." if printed else ""),
        "Curves of rho over iterations, from scratch and fine-tuned. "
        + report.findings[-1],
        width=600,
    )


def _curve(axes: Axes, row: FineTuneRow) -> None:
    pen = PENS[row.init]
    iterations, mean = zip(*row.curve, strict=True)
    axes.plot(iterations, mean, pen.line, color=pen.colour, linewidth=1.5)
    seeds = np.array(row.curve_per_seed)
    if len(seeds) > 1:
        low, high = np.fmin.reduce(seeds), np.fmax.reduce(seeds)
        axes.fill_between(iterations, low, high, color=pen.colour, alpha=0.16, lw=0)


#: |rho| beyond which a cell is dark and its number white.
DARK = 0.65
#: Letters of a column's title beyond which it takes two lines.
LONG = 9


def matrix(result: Result) -> Picture:
    """Draw the table as a matrix: what was trained on by what was judged."""
    report = _with_rows(result)
    rows = report.rows
    actions = list(report.samples)
    titles = [_broken(column_title(report, action)) for action in actions]
    table = np.array(
        [[row.per_action[name].mean for name in actions] for row in rows]
    )  # (rows, actions)
    bold = len(report.seeds) > 1  # with one seed nothing is settled

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        borders = (np.arange(count + 1) - 0.5 for count in table.shape[::-1])
        mesh = axes.pcolormesh(*borders, table, cmap="PuOr_r", vmin=-1, vmax=1)
        mesh.set(edgecolors="white", linewidth=2)
        axes.invert_yaxis()
        for y, row in enumerate(rows):
            for x, name in enumerate(actions):
                _annotate(axes, x, y, row.per_action[name], bold)
        axes.set_xticks(range(len(actions)), titles)
        axes.set_yticks(range(len(rows)), [title_of(row.name) for row in rows])
        axes.tick_params(length=0, labelcolor=INK, labelsize=9)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("judged on", loc="left", labelpad=8)
        axes.set_ylabel("trained on", loc="top")
        axes.spines[:].set_visible(False)

    return Picture(
        "zero-shot",
        draw("zero-shot", (7.2, 0.9 + 0.38 * len(rows)), paint),
        "rho on every action (columns) of heads trained on nothing (random: the mean "
        "of many draws), on one action, or on all actions but the judged one "
        "(multi-action); orange above zero, violet below. "
        + ("Bold: the 95 % interval does not cover zero. " if bold else "")
        + "Framed: trained and tested on the same action.",
        f"Matrix of rho; averages: {averages_in_words(rows)}.",
    )


def _annotate(axes: Axes, x: int, y: int, cell: CellNumbers, bold: bool) -> None:
    """Write a cell's rho on its colour; frame it where it is matched."""
    value, (low, high) = cell.mean, cell.ci95
    axes.text(
        x,
        y,
        number(value, "{:.2f}"),
        ha="center",
        va="center",
        color="white" if defined(value) and abs(value) > DARK else INK,
        fontweight="bold" if bold and (low > 0 or high < 0) else "normal",
    )
    if cell.matched:
        corner = (x - 0.46, y - 0.44)
        axes.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, edgecolor=INK))


def _broken(title: str) -> str:
    """Break a long title into two lines."""
    return title.replace(" ", "\n", 1) if len(title) > LONG else title


#: The rows that are drawn: the paper's own comparison. Hollow, then filled.
PAIR_PENS = {"single-action LSTM": VERMILION, "all-action LSTM": BLUE}


def scatter(result: Result) -> Picture:
    """Draw predicted against true scores of two LSTM heads, a panel per action."""
    actions, cells = list(result.report.samples), result.cells
    across = min(3, len(actions))
    down = -(-len(actions) // across)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for axes in panels[len(actions) :]:
            axes.set_axis_off()
        for axes, action in zip(panels, actions, strict=False):
            for name, pen in PAIR_PENS.items():
                cell = cells[name][action]
                axes.plot(
                    cell.tests[0].truth,
                    cell.predicted[0],
                    pen.marker,
                    markersize=3.6,
                    alpha=0.75,
                    **face(pen),
                )
            ends = [cell.tests[0].truth.min(), cell.tests[0].truth.max()]
            axes.plot(ends, ends, **RULE)
            single, every = (number(cells[name][action].rho[0]) for name in PAIR_PENS)
            title = column_title(result.report, action)
            axes.set_title(f"{title}\nrho {single} single, {every} all")
            axes.grid()
        figure.supxlabel("the judges' score", fontsize=9)
        figure.supylabel("the predicted score", fontsize=9)
        handles = [dot(name, pen) for name, pen in PAIR_PENS.items()]
        figure.legend(handles=handles, loc="outside upper left", ncols=2)

    return Picture(
        "predictions",
        draw("predictions", (8.2, 0.7 + 2.4 * down), paint),
        "Predicted against true scores of the test samples, first seed, judges' units. "
        "On the line a prediction is exact; rho asks only for the order.",
        "Scatter of predicted against true scores, a panel an action.",
        width=600,
    )


#: What an experiment may name in its `Result.pictures`.
PICTURES = {"dots": dots, "scatter": scatter, "matrix": matrix, "curves": curves}


def pictures_of(result: Result) -> tuple[Picture, ...]:
    """Draw an experiment's pictures."""
    return tuple(PICTURES[name](result) for name in result.pictures)
