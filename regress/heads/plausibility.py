"""Distance of a video's features to those of the training videos of its action.

Conventions: a sample is copy 0 of a video, averaged over its real clips, (D,). The
distance of a video is the mean Euclidean distance to its `NEIGHBOURS` nearest training
samples of the action, each column divided by its standard deviation there or by the
root mean square of all columns' standard deviations, whichever is larger (a rarely
active column would otherwise decide alone), over sqrt(D).

The threshold of an action is the largest distance of a training sample to the others
times `1 + MARGIN / n`: of n + 1 videos of a kind, the next one is the farthest with
probability 1 / (n + 1), which the margin lowers where n is small. On the rendered set
(tiny weights, 20 to 75 training videos per action) 0 to 5 % of held-out videos of the
action exceed it, and all test cards, plain pictures and other films do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa.cache.errors import AqaError
from aqa.regress.data import FeatureSet, Rows
from aqa.regress.heads.base import (
    Clips,
    averaged,
    axis_length,
    check_arrays,
    check_width,
)

NEIGHBOURS = 3
MARGIN = 2.5
#: Actions with fewer training samples have no threshold.
LEAST_SAMPLES = 5


@dataclass(frozen=True, eq=False)
class Plausibility:
    """Training samples (n, D), sorted by action, and what distances are compared to.

    `counts` and `thresholds` are by action, in the order of the samples; `scales`
    (actions, D) are what columns are divided by.
    """

    samples: NDArray[np.float32]
    scales: NDArray[np.float32]
    counts: Mapping[str, int]
    thresholds: Mapping[str, float]

    @classmethod
    def learn(cls, features: FeatureSet, rows: Rows) -> "Plausibility | None":
        """Learn from training rows; None where no action has enough of them."""
        actions = features.action[rows]
        samples, scales, counts, thresholds = [], [], {}, {}
        for name in np.unique(actions):
            own = features.clip_means(rows[actions == name]).astype(np.float32)
            if len(own) < LEAST_SAMPLES:
                continue
            variance = own.var(0, dtype=np.float64)
            scale = np.sqrt(np.maximum(variance, variance.mean()))
            scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
            others = [
                _distance(np.delete(own, place, 0), sample, scale)
                for place, sample in enumerate(own)
            ]
            samples.append(own)
            scales.append(scale)
            counts[str(name)] = len(own)
            thresholds[str(name)] = max(others) * (1 + MARGIN / len(own))
        if not counts:
            return None
        return cls(np.concatenate(samples), np.stack(scales), counts, thresholds)

    def distance(
        self, x: NDArray[np.float32], action: str, clips: Clips = None
    ) -> float:
        """Return the distance of one video x (1, clips, D) to an action's samples."""
        check_width(x, self.samples.shape[1])
        place = list(self.counts).index(action)
        start = sum(list(self.counts.values())[:place])
        own = self.samples[start : start + self.counts[action]]
        return _distance(own, averaged(x, clips)[0], self.scales[place])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of a model file."""
        return {"samples": self.samples, "scales": self.scales}

    def record(self) -> list[dict[str, Any]]:
        """Return the rest as JSON values, in the order of the samples."""
        return [
            {"action": name, "videos": self.counts[name], "threshold": threshold}
            for name, threshold in self.thresholds.items()
        ]

    @classmethod
    def read(
        cls, arrays: Mapping[str, NDArray[Any]], record: Sequence[Mapping[str, Any]]
    ) -> "Plausibility":
        """Check and return what a model file holds."""
        count, width = (axis_length(arrays, "samples", axis) for axis in (0, 1))
        shapes = {"samples": (count, width), "scales": (len(record), width)}
        check_arrays(arrays, {name: (s, "float32") for name, s in shapes.items()})
        counts = {str(fields["action"]): int(fields["videos"]) for fields in record}
        thresholds = {
            str(fields["action"]): float(fields["threshold"]) for fields in record
        }
        if min(counts.values()) < NEIGHBOURS or sum(counts.values()) != count:
            raise AqaError(f"plausibility of {count} samples, said to be {counts}")
        if not (
            (arrays["scales"] > 0).all()
            and all(map(math.isfinite, thresholds.values()))
        ):
            raise AqaError("plausibility: scales are above 0, thresholds finite")
        return cls(arrays["samples"], arrays["scales"], counts, thresholds)


def _distance(
    samples: NDArray[np.float32], sample: NDArray[Any], scale: NDArray[np.float32]
) -> float:
    """Return the distance of a sample (D,) to the nearest of samples (n, D)."""
    each = (samples.astype(np.float64) - sample) / scale
    distances = np.sort(np.sqrt((each**2).mean(1)))
    return float(distances[:NEIGHBOURS].mean())
