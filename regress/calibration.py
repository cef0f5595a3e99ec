"""How far a model's scores are from the judges', learnt inside the training rows.

Conventions: judges' units. Held-out predictions of training videos (each made by a
head that never saw the video) leave residuals, truth minus prediction; an interval is
a score plus their low and high order statistics, so that a new video of the kind falls
inside about as often as `level` says; with too few videos for the level it is the
whole range of the residuals. The typical course is the training videos' mean
prediction after each clip: what is lost in a clip is told against it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from aqa.cache.errors import AqaError
from aqa.regress.metrics import Floats

#: The part of new videos that an interval is meant to hold.
LEVEL = 0.9


@dataclass(frozen=True)
class Calibration:
    """What is known of a model's errors on one action.

    `low` and `high` are the residuals that bound an interval, of `videos` held out;
    `folds` heads were trained for them. `typical` holds the mean course, empty for a
    head without one.
    """

    low: float
    high: float
    level: float
    videos: int
    folds: int
    typical: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no residuals could have given."""
        bounds = np.array([self.low, self.high, *self.typical], np.float64)
        if not (np.isfinite(bounds).all() and self.low <= self.high):
            raise AqaError(
                f"calibration bounds {self.low} to {self.high} are no interval"
            )
        if not (0 < self.level < 1 and self.videos > 0 and self.folds > 1):
            raise AqaError("calibration without level, videos or folds")

    def words(self) -> str:
        """What an interval is worth, and how that is known."""
        return (
            f"{100 * self.level:g} %, calibrated on {self.videos} training videos "
            f"held out in {self.folds} folds"
        )

    def basis(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {"level": self.level, "videos": self.videos, "folds": self.folds}


def residual_bounds(residuals: Floats, level: float = LEVEL) -> tuple[float, float]:
    """The order statistics between which a further residual falls with `level`.

    residuals: (n,). As many are cut off below as above, of n + 1 equally likely
    places for the next one; (lowest, highest) where that is none.
    """
    ordered = np.sort(residuals)
    # Rounded first: 0.05 * 20 must be one place, not 0.9999.
    cut = max(1, int(np.floor(round((len(ordered) + 1) * (1 - level) / 2, 9))))
    return float(ordered[cut - 1]), float(ordered[-cut])
