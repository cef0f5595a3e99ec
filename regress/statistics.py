"""How sure a correlation is: the bootstrap over test samples and over seeds.

Conventions: a resample draws n test samples with replacement and is kept as counts,
how often each sample was drawn, so that ranks of all resamples come from sums, not
from sorting each. One draw serves every model judged on the same samples, which pairs
them; test sets that are drawn from one pool take their part of the pool's counts, so
that a sample in several of them varies in all alike. Arrays of resampled rho are
(count,) or (seeds, count), `nan` where a resample leaves rho undefined. Intervals are
percentiles; a probability "A better than B" is the share of resamples in which A has
the higher rho, ties counted half. It is not a p-value, and no statement about other
data sets.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aqa.regress.metrics import Floats, constant, defined_mean

#: An interval is given only where at least this share of the resamples is defined.
LEAST_DEFINED = 0.5


def draw_samples(n: int, count: int, seed: Sequence[int]) -> Floats:
    """How often each of n >= 1 samples is drawn in `count` resamples: (count, n).

    `seed`: integers that, with n and count, fix every draw.
    """
    generator = np.random.default_rng(list(seed))
    return generator.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)


class Resamples:
    """Bootstrap resamples of test samples.

    `truth` (n,) in judges' units; `counts` (count, n) says how often each sample is
    in a resample. The totals of resamples may differ.
    """

    def __init__(self, truth: ArrayLike, counts: Floats) -> None:
        """Rank the truth in each resample."""
        self.counts = counts
        self._middle = (counts.sum(1, keepdims=True) + 1) / 2  # (count, 1)
        self._truth, self._variance = self._ranked(np.asarray(truth, np.float64))

    def spearman(self, predicted: ArrayLike) -> Floats:
        """rho of `predicted` (n,) in each resample -> (count,)."""
        predictions = np.asarray(predicted, np.float64)
        if not np.isfinite(predictions).all() or constant(predictions):
            return np.full(len(self.counts), np.nan)
        ranks, variance = self._ranked(predictions)
        covariance = np.einsum("bn,bn,bn->b", self.counts, ranks, self._truth)
        product = self._variance * variance
        rho = np.full(len(self.counts), np.nan)
        # Half ranks are exact in floating point, so an undefined rho is exactly 0 / 0.
        np.divide(covariance, np.sqrt(product), out=rho, where=product > 0)
        return rho.clip(-1, 1)

    def _ranked(self, values: Floats) -> tuple[Floats, Floats]:
        """Average ranks within each resample, less their mean, and their squares' sum.

        Of a value drawn k times, after m smaller draws, every copy has the rank
        m + (k + 1) / 2.
        """
        distinct, group = np.unique(values, return_inverse=True)
        copies = (
            self.counts @ np.eye(len(distinct))[group]
        )  # (count, n) -> (.., groups)
        ranks = np.cumsum(copies, axis=1) - (copies - 1) / 2
        centred = ranks[:, group] - self._middle  # (count, groups) -> (.., n)
        return centred, np.einsum("bn,bn,bn->b", self.counts, centred, centred)


def draw_seeds(seeds: int, count: int, seed: Sequence[int]) -> NDArray[np.intp]:
    """Which of the seeds each resample averages, with replacement (count, seeds)."""
    return np.random.default_rng(list(seed)).integers(seeds, size=(count, seeds))


def over_seeds(resampled: Floats, drawn: NDArray[np.intp]) -> Floats:
    """Mean of each resample over its drawn seeds: (seeds, count) -> (count,)."""
    return defined_mean(np.take_along_axis(resampled, drawn.T, axis=0))


def interval(resampled: Floats, level: float = 0.95) -> tuple[float, float]:
    """The central `level` of the defined values; (nan, nan) where too few are."""
    kept = resampled[~np.isnan(resampled)]
    if kept.size == 0 or kept.size < LEAST_DEFINED * resampled.size:
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def probability_better(a: Floats, b: Floats) -> float:
    """Share of the paired resamples in which `a` exceeds `b`; `nan` where none is."""
    both = ~(np.isnan(a) | np.isnan(b))
    if not both.any():
        return float("nan")
    return float(np.mean((a[both] > b[both]) + (a[both] == b[both]) / 2))


def standard_deviation(values: ArrayLike) -> float:
    """Standard deviation (ddof 1) of the defined values; `nan` for fewer than two."""
    found = np.asarray(values, np.float64)
    kept = found[~np.isnan(found)]
    return float(kept.std(ddof=1)) if kept.size > 1 else float("nan")
