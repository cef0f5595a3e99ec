"""Table 3 as a picture: an annotated matrix of what was trained on by what was judged.

Conventions: colour is rho from -1 to 1 on a scale that colour-blind readers can read;
the number stands in every cell, so that the colour may be lost.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from aqa.regress.claims import covers_zero
from aqa.regress.report.drawing import INK, Picture, averages_in_words, draw, or_nan
from aqa.regress.report.table import defined, number
from aqa.regress.report.tables import Report
from aqa.regress.study import title_of

#: |rho| beyond which a cell is dark and its number white.
DARK = 0.65
#: Letters of a column's title beyond which it takes two lines.
LONG = 9


def matrix(report: Report) -> Picture:
    """Every row of the table on every action."""
    rows = report["rows"]
    actions = list(report["samples"])
    table = np.array(
        [[or_nan(row["per_action"][name]["mean"]) for name in actions] for row in rows]
    )  # (rows, actions)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        borders = (np.arange(count + 1) - 0.5 for count in table.shape[::-1])
        mesh = axes.pcolormesh(*borders, table, cmap="PuOr_r", vmin=-1, vmax=1)
        mesh.set(edgecolors="white", linewidth=2)
        axes.invert_yaxis()
        for y, row in enumerate(rows):
            for x, name in enumerate(actions):
                _annotate(axes, x, y, row["per_action"][name])
        axes.set_xticks(range(len(actions)), [_broken(title_of(a)) for a in actions])
        axes.set_yticks(range(len(rows)), [title_of(row["name"]) for row in rows])
        axes.tick_params(length=0, labelcolor=INK, labelsize=9)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("judged on", loc="left", labelpad=8)
        axes.set_ylabel("trained on", loc="top")
        axes.spines[:].set_visible(False)

    return Picture(
        "zero-shot",
        draw("zero-shot", (7.2, 0.9 + 0.38 * len(rows)), paint),
        "rho on every action (columns) of heads trained on nothing (random), on one "
        "action, or on all actions but the judged one (multi-action); orange above "
        "zero, violet below. Bold: the 95 % interval does not cover zero. Framed: "
        "trained and tested on the same action.",
        f"Matrix of rho; averages: {averages_in_words(rows)}.",
    )


def _annotate(axes: Axes, x: int, y: int, cell: Mapping[str, Any]) -> None:
    """Write a cell's rho on its colour; frame it where it is matched."""
    value = cell["mean"]
    axes.text(
        x,
        y,
        number(value, "{:.2f}"),
        ha="center",
        va="center",
        color="white" if defined(value) and abs(value) > DARK else INK,
        fontweight="normal" if covers_zero(cell["ci95"]) else "bold",
    )
    if cell["matched"]:
        corner = (x - 0.46, y - 0.44)
        axes.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, edgecolor=INK))


def _broken(title: str) -> str:
    """A long title of two words on two lines."""
    return title.replace(" ", "\n", 1) if len(title) > LONG else title
