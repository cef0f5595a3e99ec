"""Predicted against true scores as a picture, a panel an action.

Conventions: both in judges' units, test samples, seed 0. `cells` are those behind the
report's rows, by row name and action.
"""

from collections.abc import Mapping

from matplotlib.figure import Figure

from aqa.regress.evaluation import Cell
from aqa.regress.report.drawing import (
    BLUE,
    QUIET,
    VERMILION,
    Picture,
    dot,
    draw,
    face,
)
from aqa.regress.report.table import number
from aqa.regress.report.tables import Report
from aqa.regress.study import title_of

#: The rows that are drawn: the paper's own comparison. Hollow, then filled.
PENS = {"single-action LSTM": VERMILION, "all-action LSTM": BLUE}


def scatter(cells: Mapping[str, Mapping[str, Cell]], report: Report) -> Picture:
    """The two LSTM heads of the first seed on every action."""
    actions = list(report["samples"])
    across = min(3, len(actions))
    down = -(-len(actions) // across)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for axes in panels[len(actions) :]:
            axes.set_axis_off()
        for axes, action in zip(panels, actions, strict=False):
            for name, pen in PENS.items():
                cell = cells[name][action]
                axes.plot(
                    cell.truth[0],
                    cell.predicted[0],
                    pen.marker,
                    markersize=3.6,
                    alpha=0.75,
                    **face(pen),
                )
            ends = [cell.truth[0].min(), cell.truth[0].max()]
            axes.plot(ends, ends, color=QUIET, linewidth=0.8, zorder=1)
            single, every = (number(cells[name][action].rho[0]) for name in PENS)
            axes.set_title(f"{title_of(action)}\nrho {single} single, {every} all")
            axes.grid()
        figure.supxlabel("the judges' score", fontsize=9)
        figure.supylabel("the predicted score", fontsize=9)
        handles = [dot(name, pen) for name, pen in PENS.items()]
        figure.legend(handles=handles, loc="outside upper left", ncols=2)

    return Picture(
        "predictions",
        draw("predictions", (8.2, 0.7 + 2.4 * down), paint),
        "Predicted against true scores of the test samples, seed 0, in judges' units. "
        "On the line a prediction is exact; rho asks only for the order.",
        "Scatter of predicted against true scores, a panel an action.",
        width=600,
    )
