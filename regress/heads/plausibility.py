"""Distance of a video's features to those of the training videos.

Conventions: a sample is copy 0 of a video, averaged over its real clips and
standardised on the training samples, float32 (D,). The distance of a video is the mean
Euclidean distance to its `NEIGHBOURS` nearest training samples of the action, over
sqrt(D). The threshold of an action comes from its training samples, each measured
against the others: a further video of the kind exceeds it with a probability of at
most `FALSE_ALARMS`, where there are enough samples, else 1 / (n + 1).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa.cache.errors import AqaError
from aqa.regress.data import FeatureSet, Floats, Rows, scaling_std
from aqa.regress.heads.registry import (
    Clips,
    averaged,
    axis_length,
    check_arrays,
    check_width,
)

NEIGHBOURS = 3
FALSE_ALARMS = 0.02
#: Actions with fewer training samples have no threshold.
LEAST_SAMPLES = 5


@dataclass(frozen=True, eq=False)
class Plausibility:
    """Standardised training samples (n, D) in the order of actions, and thresholds.

    `counts` is the number of samples of each action, in the order of `thresholds`.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    samples: NDArray[np.float32]
    counts: Mapping[str, int]
    thresholds: Mapping[str, float]

    @classmethod
    def learn(cls, features: FeatureSet, rows: Rows) -> "Plausibility | None":
        """Learn from training rows; None where no action has enough of them."""
        actions = features.action[rows]
        names, found = np.unique(actions, return_counts=True)
        counts = {
            str(name): int(count)
            for name, count in zip(names, found, strict=True)
            if count >= LEAST_SAMPLES
        }
        if not counts:
            return None
        raw = features.clip_means(rows)
        mean = raw.mean(0)
        std = scaling_std(mean, raw.var(0), len(raw))
        samples = ((raw - mean) / std).astype(np.float32)
        parts = [samples[actions == name] for name in counts]
        thresholds = {
            name: _threshold(part) for name, part in zip(counts, parts, strict=True)
        }
        return cls(
            mean.astype(np.float32),
            std.astype(np.float32),
            np.concatenate(parts),
            counts,
            thresholds,
        )

    def distance(
        self, x: NDArray[np.float32], action: str, clips: Clips = None
    ) -> float:
        """Return the distance of one video x (1, clips, D) to an action's samples."""
        check_width(x, len(self.mean))
        sample = (averaged(x, clips)[0] - self.mean) / self.std
        start = 0
        for name, count in self.counts.items():
            if name == action:
                own = self.samples[start : start + count]
                return _mean_of_nearest(np.linalg.norm(own - sample, axis=1), sample)
            start += count
        raise AqaError(f"{action}: no training features are known")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of a model file."""
        return {"mean": self.mean, "std": self.std, "samples": self.samples}

    def record(self) -> dict[str, Any]:
        """Return the rest as JSON values: count and threshold by action."""
        return {
            name: {"videos": self.counts[name], "threshold": threshold}
            for name, threshold in self.thresholds.items()
        }

    @classmethod
    def read(
        cls, arrays: Mapping[str, NDArray[Any]], record: Mapping[str, Any]
    ) -> "Plausibility":
        """Check and return what a model file holds."""
        width, count = (
            axis_length(arrays, "samples", 1),
            axis_length(arrays, "samples", 0),
        )
        shapes = {"mean": (width,), "std": (width,), "samples": (count, width)}
        check_arrays(arrays, {name: (s, "float32") for name, s in shapes.items()})
        counts = {name: int(fields["videos"]) for name, fields in record.items()}
        thresholds = {
            name: float(fields["threshold"]) for name, fields in record.items()
        }
        if min(counts.values()) < NEIGHBOURS or sum(counts.values()) != count:
            raise AqaError(f"plausibility of {count} samples, said to be {counts}")
        if not (
            (arrays["std"] > 0).all() and all(map(math.isfinite, thresholds.values()))
        ):
            raise AqaError(
                "plausibility: a standard deviation or threshold is no number"
            )
        return cls(arrays["mean"], arrays["std"], arrays["samples"], counts, thresholds)


def _mean_of_nearest(distances: Floats, sample: Floats) -> float:
    nearest = np.sort(distances)[:NEIGHBOURS]
    return float(nearest.mean() / math.sqrt(len(sample)))


def _threshold(samples: NDArray[np.float32]) -> float:
    """Return the distance that at most `FALSE_ALARMS` of such samples exceed."""
    distances = []
    for place, sample in enumerate(samples):
        others = np.linalg.norm(np.delete(samples, place, 0) - sample, axis=1)
        distances.append(_mean_of_nearest(others, sample))
    above = max(1, math.floor((len(samples) + 1) * FALSE_ALARMS))
    return float(np.sort(distances)[-above])
