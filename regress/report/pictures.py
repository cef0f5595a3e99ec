"""Which pictures an experiment has.

Conventions: a picture is made from a report.json object, and where that is not enough
from the cells behind its rows. Apart from `sections`, so that words and tables need
no matplotlib.
"""

from collections.abc import Mapping

from aqa.regress.evaluation import Cell
from aqa.regress.report.curves import curves
from aqa.regress.report.dots import dots
from aqa.regress.report.drawing import Picture
from aqa.regress.report.matrix import matrix
from aqa.regress.report.scatter import scatter
from aqa.regress.report.sections import SINGLE, ZERO_SHOT
from aqa.regress.report.tables import Report


def pictures_of(
    report: Report, cells: Mapping[str, Mapping[str, Cell]]
) -> tuple[Picture, ...]:
    """An experiment's pictures; `cells` are those behind the report's rows."""
    if report["experiment"] == SINGLE:
        return dots(report), scatter(cells, report)
    if report["experiment"] == ZERO_SHOT:
        return (matrix(report),)
    return (curves(report),)
