"""Figure 3 as a picture: rho over the iterations of fine-tuning.

Conventions: an action a row, a training size a column, iterations to the right. The
two starts differ in colour and in line style.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aqa.regress.report.drawing import (
    BLUE,
    VERMILION,
    Picture,
    draw,
    or_nan,
    zero_line,
)
from aqa.regress.report.tables import Report
from aqa.regress.study import title_of

PENS = {"multi-action": BLUE, "random": VERMILION}
LABELS = {
    "multi-action": "fine-tuned from the multi-action head",
    "random": "trained from scratch",
}


def curves(report: Report) -> Picture:
    """Small multiples of both curves, with the paper's marks where there are any."""
    panels: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for row in report["rows"]:
        sizes = panels.setdefault(row["action"], {})
        sizes.setdefault(row["n_train"], []).append(row)
    printed = report["paper"]["rows"] if report["paper"] else []
    across = max(map(len, panels.values()))

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(panels), across, squeeze=False, sharey=True)
        for line, (action, sizes) in zip(grid, panels.items(), strict=True):
            for axes in line[len(sizes) :]:
                axes.set_axis_off()
            for axes, (n, rows) in zip(line, sizes.items(), strict=False):
                zero_line(axes, upright=False)
                for row in rows:
                    _curve(axes, row)
                for mark in printed:
                    if (mark["action"], mark["n_train"]) == (action, n):
                        _paper_mark(axes, mark, rows[0]["iterations"])
                axes.set_title(f"{title_of(action)}, n = {n}")
                axes.grid(axis="y")
                axes.locator_params(axis="x", nbins=4, integer=True)
        figure.supxlabel("iteration", fontsize=9)
        figure.supylabel("Spearman's rho on the held-out samples", fontsize=9)
        handles = [
            Line2D([], [], color=pen.colour, linestyle=pen.line, label=LABELS[start])
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
        + report["findings"][-1],
        width=600,
    )


def _curve(axes: Axes, row: Mapping[str, Any]) -> None:
    pen = PENS[row["init"]]
    iterations = [iteration for iteration, _ in row["curve"]]
    mean = [or_nan(rho) for _, rho in row["curve"]]
    axes.plot(iterations, mean, pen.line, color=pen.colour, linewidth=1.5)
    seeds = np.array([[or_nan(rho) for rho in seed] for seed in row["curve_per_seed"]])
    if len(seeds) > 1:
        low, high = np.fmin.reduce(seeds), np.fmax.reduce(seeds)
        axes.fill_between(iterations, low, high, color=pen.colour, alpha=0.16, lw=0)


def _paper_mark(axes: Axes, mark: Mapping[str, Any], iterations: int) -> None:
    """At the right edge: the paper does not say at which iteration it was best."""
    pen = PENS[mark["init"]]
    axes.plot(
        iterations,
        mark["best"],
        pen.marker,
        color=pen.colour,
        markerfacecolor="white",
        markersize=4.5,
        clip_on=False,
        zorder=5,
    )
