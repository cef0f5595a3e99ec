"""Table 2 as a picture: a group of dots for every action and for the average.

Conventions: rho to the right, one row of the table a dot with its interval; undefined
values are not drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aqa.regress.report.drawing import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    SKY,
    VERMILION,
    Pen,
    Picture,
    averages_in_words,
    dot,
    draw,
    face,
    zero_line,
)
from aqa.regress.report.table import defined
from aqa.regress.report.tables import Report, varied
from aqa.regress.study import title_of

#: Vertical room of one dot and of a legend's line, in inches.
ROOM, LEGEND_ROOM = 0.15, 0.22
#: Room between groups, in dots.
GAP = 1.4

MARKERS = {"svr": "s", "lstm": "o", "nu-svr": "v"}
#: Of rows that average over copies, and of the caches that follow the first.
MEANS = {"svr": "D", "lstm": "P"}
FURTHER = {"svr": "^X*d", "lstm": "8HDP", "nu-svr": "<>ph"}

PAPER: dict[str, Any] = {
    "color": INK,
    "marker": "|",
    "markersize": 9,
    "markeredgewidth": 1.6,
}


def dots(report: Report) -> Picture:
    """Every row of the table in every column, the paper's marks beside ours."""
    rows = report["rows"]
    printed = report["paper"]["rows"] if report["paper"] else {}
    groups = [*report["samples"], "average"]
    pens = _pens(rows)
    step = len(rows) + GAP

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        zero_line(axes, upright=True)
        for place, group in enumerate(groups):
            axes.axhline(place * step - 0.5 - GAP / 2, color=FAINT, zorder=0)
            for nth, (row, pen) in enumerate(zip(rows, pens, strict=True)):
                y = place * step + nth
                _dot(axes, y, *_value(row, group), pen)
                if row["name"] in printed:
                    _paper_mark(axes, y, printed[row["name"]], group)
        middles = [place * step + (len(rows) - 1) / 2 for place in range(len(groups))]
        axes.set_yticks(middles, [title_of(group) for group in groups], fontsize=9)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(groups) * step - 0.5 - GAP / 2, -0.5 - GAP / 2)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("Spearman's rho on the test samples")
        handles = [dot(row["name"], pen) for row, pen in zip(rows, pens, strict=True)]
        if printed:
            handles.append(Line2D([], [], linestyle="", label="the paper", **PAPER))
        figure.legend(handles=handles, loc="outside upper left", ncols=2)

    legend = LEGEND_ROOM * ((len(rows) + bool(printed) + 1) // 2)
    return Picture(
        "single-vs-all",
        draw("single-vs-all", (7.2, 0.6 + legend + ROOM * step * len(groups)), paint),
        "Spearman's rho by action, mean over seeds, with the bootstrap 95 % interval "
        f"over test samples. The average is Fisher's z, its interval over "
        f"{varied(report)}. Hollow: heads of a single action."
        + (" Black bars: the paper." if printed else ""),
        f"Dots with intervals; averages: {averages_in_words(rows)}.",
        width=480,
    )


def _pens(rows: Sequence[Mapping[str, Any]]) -> list[Pen]:
    """The marker tells what a head is; hollow, and of another colour: single-action.

    Further caches have a colour pair of their own, and each its markers.
    """
    labels = list(dict.fromkeys(row["features"] for row in rows))
    found = []
    for row in rows:
        head, further = row["head"], labels.index(row["features"])
        hollow = row["mode"] == "single-action"
        marker = MEANS[head] if row["copies"] > 1 else MARKERS[head]
        single, every = VERMILION, BLUE
        if further:
            single, every = ORANGE, SKY
            marker = FURTHER[head][(further - 1) % len(FURTHER[head])]
        pen = single if hollow else every
        found.append(replace(pen, marker=marker, hollow=hollow))
    return found


def _value(row: Mapping[str, Any], group: str) -> tuple[float | None, Sequence[Any]]:
    """Value and interval of a row in one group."""
    if group == "average":
        return row["average"]["fisher_z"], row["average"]["ci95"]["fisher_z"]
    cell = row["per_action"][group]
    return cell["mean"], cell["ci95"]


def _dot(
    axes: Axes, y: float, value: float | None, ends: Sequence[Any], pen: Pen
) -> None:
    if all(map(defined, ends)):
        axes.plot(ends, [y, y], color=pen.colour, linewidth=2, alpha=0.45)
    if defined(value):
        axes.plot(value, y, pen.marker, markersize=5.5, **face(pen))


def _paper_mark(axes: Axes, y: float, printed: Mapping[str, Any], group: str) -> None:
    average = group == "average"
    value = printed["average"] if average else printed["per_action"][group]
    if defined(value):
        axes.plot(value, y, **PAPER)
