"""The paper's claims, each as a paired comparison of two rows.

Conventions: a claim says that one row ranks test samples better than another. Both
are judged on the same resamples of test samples and the same draw of seeds, so that
what they share cancels; where rho is undefined for one of them, the other's is left
out too. `difference` is better minus other in rho; a claim is
"settled" when the 95 % interval of the average difference does not cover zero.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa.regress.evaluation import AVERAGES, Cell
from aqa.regress.metrics import Floats, arithmetic_mean
from aqa.regress.statistics import interval, over_seeds, probability_better


def describe_claim(
    better: str,
    other: str,
    cells: Mapping[str, tuple[Cell, Cell]],
    drawn: NDArray[np.intp],
) -> dict[str, Any]:
    """Compare two rows column by column and on average.

    `cells` maps a column to (better's cell, other's cell); `drawn` (count, seeds) says
    which seeds each resample averages.
    """
    sides = list(zip(*cells.values(), strict=True))
    # (2, columns, seeds) and (2, columns, seeds, count)
    rho = _paired([[cell.rho for cell in side] for side in sides])
    resampled = _paired([[cell.resampled for cell in side] for side in sides])
    average = {
        name: _difference(list(map(over, rho)), list(map(over, resampled)), drawn)
        for name, over in AVERAGES.items()
    }
    return {
        "better": better,
        "other": other,
        "per_column": {
            column: _difference(rho[:, place], resampled[:, place], drawn)
            for place, column in enumerate(cells)
        },
        "average": average,
        "words": _words(better, other, average["fisher_z"]),
    }


def in_words(rho: float) -> str:
    """A correlation within a sentence."""
    return "undefined" if np.isnan(rho) else f"{rho:.3f}"


def capital(text: str) -> str:
    """The text with a capital first letter, as it begins a sentence."""
    return text[:1].upper() + text[1:]


def covers_zero(ci95: list[float]) -> bool:
    """Whether an interval leaves the sign open; one that is undefined does."""
    low, high = ci95
    return not (low > 0 or high < 0)


def _paired(sides: Sequence[Sequence[Floats]]) -> Floats:
    """Both sides' numbers in one array (2, ...), nan in both where either is."""
    both = np.array(sides)
    return np.where(np.isnan(both).any(0), np.nan, both)


def _difference(
    rho: Sequence[Floats] | Floats,
    resampled: Sequence[Floats] | Floats,
    drawn: NDArray[np.intp],
) -> dict[str, Any]:
    """Difference of two rows: each has rho (seeds,) and resampled (seeds, count)."""
    a, b = (over_seeds(side, drawn) for side in resampled)
    return {
        "difference": arithmetic_mean(rho[0] - rho[1]),
        "ci95": list(interval(a - b)),
        "probability": probability_better(a, b),
    }


def _words(better: str, other: str, average: Mapping[str, Any]) -> str:
    """The claim's outcome in one sentence."""
    if np.isnan(average["difference"]):
        return f"{capital(better)} against {other}: undefined, nothing can be said."
    on_average = f"{average['difference']:+.3f} on average (Fisher z; "
    low, high = average["ci95"]
    if np.isnan(low):
        return (
            f"{capital(better)} against {other}: {on_average}no interval). rho is "
            "undefined in most resamples: these data do not settle which is better."
        )
    numbers = (
        f"{on_average}95 % interval {low:+.3f} to {high:+.3f}, bootstrap probability "
        f"that it is better {average['probability']:.2f})"
    )
    if covers_zero(average["ci95"]):
        return (
            f"{capital(better)} against {other}: {numbers}. The interval covers zero: "
            "these data do not settle which is better."
        )
    verdict = "better than" if average["difference"] > 0 else "worse than"
    return f"{capital(better)} is {verdict} {other}: {numbers}."
