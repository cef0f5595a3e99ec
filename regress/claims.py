"""The paper's claims, each as a paired comparison of two rows.

Conventions: a claim says that one row ranks test samples better than another. Both
are judged on the same resamples of test samples and the same draw of seeds, so that
what they share cancels. `difference` is better minus other in rho; a claim is
"settled" when the 95 % interval of the average difference does not cover zero.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa.regress.evaluation import AVERAGES, Cell
from aqa.regress.metrics import Floats
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
    rho_a, rho_b = (np.stack([cell.rho for cell in side]) for side in sides)
    resampled_a, resampled_b = (
        np.stack([cell.resampled for cell in side]) for side in sides
    )  # (columns, seeds, count)
    average = {
        name: _difference(
            over(rho_a), over(rho_b), over(resampled_a), over(resampled_b), drawn
        )
        for name, over in AVERAGES.items()
    }
    return {
        "better": better,
        "other": other,
        "per_column": {
            column: _difference(a.rho, b.rho, a.resampled, b.resampled, drawn)
            for column, (a, b) in cells.items()
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


def _difference(
    rho_a: Floats,
    rho_b: Floats,
    resampled_a: Floats,
    resampled_b: Floats,
    drawn: NDArray[np.intp],
) -> dict[str, Any]:
    """Difference of two rows: rho (seeds,), resampled rho (seeds, count)."""
    both = ~np.isnan(rho_a - rho_b)
    a, b = over_seeds(resampled_a, drawn), over_seeds(resampled_b, drawn)
    return {
        "difference": float((rho_a - rho_b)[both].mean()) if both.any() else np.nan,
        "ci95": list(interval(a - b)),
        "probability": probability_better(a, b),
    }


def _words(better: str, other: str, average: Mapping[str, Any]) -> str:
    """The claim's outcome in one sentence."""
    if np.isnan(average["difference"]):
        return f"{capital(better)} against {other}: undefined, nothing can be said."
    low, high = average["ci95"]
    numbers = (
        f"{average['difference']:+.3f} on average (Fisher z; 95 % interval "
        f"{low:+.3f} to {high:+.3f}, bootstrap probability that it is better "
        f"{average['probability']:.2f})"
    )
    if covers_zero(average["ci95"]):
        return (
            f"{capital(better)} against {other}: {numbers}. The interval covers zero: "
            "these data do not settle which is better."
        )
    verdict = "better than" if average["difference"] > 0 else "worse than"
    return f"{capital(better)} is {verdict} {other}: {numbers}."
