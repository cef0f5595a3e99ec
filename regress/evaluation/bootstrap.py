"""Uncertainty of rank correlations over test samples and seeds.

Conventions: a resample draws n test samples with replacement and is kept as counts,
how often each sample was drawn, so that the ranks of all resamples come from sums. One
draw serves every model judged on the same samples, which pairs them; test sets that are
drawn from one pool use the pool's counts, so that a sample in several of them varies in
all alike. Samples of one group (a surgeon, a subject) are drawn together where groups
are what is left out. `rho` arrays are (seeds,), `z` are Fisher's, `nan` is undefined.

At small n the percentiles of a bootstrapped rank correlation cover too little, and
resamples of high correlations vary too much. So the resamples of each cell are scaled,
on Fisher's z, to the variance that Bonett and Wright (Psychometrika 65, 2000) give for
Spearman's rho, (1 + rho^2 / 2) / (n - 3); the bootstrap contributes what cells have in
common. Seeds are resampled with one draw fewer than there are, which makes the variance
of their mean unbiased. Intervals are normal on Fisher's z (differences: on rho), with
Student's t for the part that few seeds contribute, whose variance is pooled over the
cells of a row; arithmetic averages are corrected for the bias of Spearman's rho.
benchmarks/interval_coverage.py simulates how often they cover.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from aqa.regress.data import Rows
from aqa.regress.evaluation import metrics
from aqa.regress.evaluation.metrics import Floats, constant, defined_mean

#: An interval is given only where at least this share of the resamples is defined,
LEAST_DEFINED = 0.5
#: and from this many test samples on: the variance above needs more than three.
LEAST_INTERVAL = 4
LEVEL = 0.95
#: The largest mean of correlations with a finite Fisher's z.
WHOLE = 1 - 1e-9
#: A variance of resamples that is rounding.
TINY = 1e-12

Interval = tuple[float, float]


def draw_samples(n: int, count: int, seed: Sequence[int]) -> Floats:
    """Return how often each of n >= 1 samples is drawn in `count` resamples (count, n).

    `seed`: integers that, with n and count, fix every draw.
    """
    generator = np.random.default_rng(list(seed))
    return generator.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)


def draw_groups(groups: NDArray[Any], count: int, seed: Sequence[int]) -> Floats:
    """Draw whole groups: how often each sample of `groups` (n,) is drawn (count, n)."""
    names, number = np.unique(groups, return_inverse=True)
    return draw_samples(len(names), count, seed)[:, number]


@dataclass(frozen=True)
class SeedDraws:
    """The seeds that each resample averages, equal for all models of as many seeds."""

    count: int
    seed: int

    def of(self, seeds: int) -> NDArray[np.intp]:
        """Return draws with replacement (count, seeds - 1), at least one."""
        generator = np.random.default_rng([self.seed, seeds])
        return generator.integers(seeds, size=(self.count, max(1, seeds - 1)))


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

    @cached_property
    def noise(self) -> Floats:
        """Standard normal values (count,), the same for every model on this test."""
        generator = np.random.default_rng(zlib.crc32(self.counts.tobytes()))
        return generator.standard_normal(len(self.counts))

    def spearman(self, predicted: ArrayLike) -> Floats:
        """Return rho of `predicted` (n,) in each resample (count,)."""
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
        """Return centred average ranks within each resample and their sum of squares.

        Of a value drawn k times, after m smaller draws, every copy has the rank
        m + (k + 1) / 2.
        """
        distinct, group = np.unique(values, return_inverse=True)
        copies = self.counts @ np.eye(len(distinct))[group]  # (count, groups)
        ranks = np.cumsum(copies, axis=1) - (copies - 1) / 2
        centred = ranks[:, group] - self._middle  # (count, n)
        return centred, np.einsum("bn,bn,bn->b", self.counts, centred, centred)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Test samples of one action and the resamples that every model on them shares.

    `rows` (n,) index the features, `truth` (n,) is in judges' units. `groups` is the
    number of groups that are resampled whole, None where samples are independent.
    """

    rows: Rows
    truth: Floats
    resamples: Resamples
    groups: int | None = None

    @property
    def n(self) -> int:
        """The number of test samples."""
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Cell:
    """One row of a table on one action: the predictions behind each of its numbers.

    `tests` and `predicted`, in judges' units, hold one entry per seed, and so does
    `ranked`, the predictions as they are ranked (see `splits.join_folds`); `resampled`
    (seeds, count) are scaled resamples of Fisher's z (see above). `matched` marks a
    model tested on the action that it was trained on where the others are not; `units`
    is False where predictions are ranks, not scores. `parts` (n,) names the fold that
    tested each sample, in a cross-validation.
    """

    tests: tuple[HeldOut, ...]
    predicted: tuple[Floats, ...]
    ranked: tuple[Floats, ...]
    rho: Floats
    resampled: Floats
    matched: bool = False
    units: bool = True
    parts: NDArray[Any] | None = None

    @property
    def n(self) -> int:
        """The number of test samples."""
        return self.tests[0].n

    @property
    def z(self) -> Floats:
        """Fisher's z per seed."""
        return metrics.fisher_z(self.rho, self.n)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the variance over test samples, or over groups."""
        groups = self.tests[0].groups
        return np.inf if groups is None else max(1, groups - 1)

    @cached_property
    def kendall(self) -> Floats:
        """Kendall's tau-b per seed."""
        pairs = zip(self.tests, self.ranked, strict=True)
        return np.array([metrics.kendall(test.truth, guess) for test, guess in pairs])

    @property
    def bias(self) -> Floats:
        """Bias of rho per seed: its expectation is (3 tau + (n - 2) rho) / (n + 1)."""
        return np.asarray(3 * (self.kendall - self.rho) / max(1, self.n - 2))

    @property
    def bias_spread(self) -> float:
        """How much wider rho varies once its bias, about rho / n, is subtracted."""
        return (self.n - 1) / max(1, self.n - 2)


def judge(
    tests: Sequence[HeldOut],
    predicted: Sequence[Floats],
    ranked: Sequence[Floats] | None = None,
    *,
    matched: bool = False,
    units: bool = True,
    parts: NDArray[Any] | None = None,
) -> Cell:
    """Judge each seed's predictions on its test set; None ranks them as they are."""
    ranked = predicted if ranked is None else ranked
    pairs = list(zip(tests, ranked, strict=True))
    rho = np.array([metrics.spearman(test.truth, guess) for test, guess in pairs])
    resampled = [
        _scaled(test, value, test.resamples.spearman(guess))
        for (test, guess), value in zip(pairs, rho, strict=True)
    ]
    return Cell(
        tuple(tests),
        tuple(predicted),
        tuple(ranked),
        rho,
        np.stack(resampled),
        matched,
        units,
        parts,
    )


def _scaled(test: HeldOut, rho: float, resampled: Floats) -> Floats:
    """Return resamples of Fisher's z about z(rho), with the variance that n allows."""
    z = metrics.fisher_z(resampled, test.n)
    defined = z[~np.isnan(z)]
    if test.n < LEAST_INTERVAL or len(defined) < LEAST_DEFINED * len(z):
        return np.full(len(z), np.nan)
    limited = metrics.fisher_z(rho, test.n)
    variance = (1 + np.tanh(limited) ** 2 / 2) / (test.n - 3)
    spread = defined.var()
    if test.groups is not None:
        # Samples of a group are alike: never below what the groups' resamples show.
        variance = max(variance, spread * test.groups / max(1, test.groups - 1))
    if spread < TINY:  # a perfect ranking stays perfect in every resample
        return np.asarray(limited + np.sqrt(variance) * test.resamples.noise)
    return np.asarray(limited + (z - defined.mean()) * np.sqrt(variance / spread))


#: Averages over actions.
AVERAGES = ("fisher_z", "arithmetic")


def average(kind: str, z: Floats) -> Floats:
    """Average correlations along the first axis of Fisher's z; returns rho."""
    if kind == "fisher_z":
        return np.asarray(np.tanh(defined_mean(z)))
    return defined_mean(np.tanh(z))


def over_seeds(resampled: Floats, drawn: NDArray[np.intp]) -> Floats:
    """Average each resample over its drawn seeds: (seeds, count) -> (count,)."""
    return defined_mean(np.take_along_axis(resampled, drawn.T, axis=0))


def interval(
    per_seed: Floats,
    resampled: Floats,
    limit: float = WHOLE,
    bias: float = 0.0,
    wider: float = 1.0,
    pooled: "SeedVariance | None" = None,
    freedom: float = np.inf,
) -> Interval:
    """Return the 95 % interval of a mean correlation.

    per_seed: (seeds,) its values; resampled: (count,) of their mean, seeds drawn too.
    `limit` is the largest |rho| that counts (see `metrics.largest_rho`); `bias` of
    the mean is subtracted, which makes the interval `wider` by a factor. `pooled`
    replaces the variance of these seeds, `freedom` is that of the test samples. The
    mean itself is always inside.
    """
    kept = per_seed[~np.isnan(per_seed)]
    if not len(kept):
        return np.nan, np.nan
    mean = kept.mean()
    z, seeds = (
        np.arctanh(np.clip(values, -limit, limit)) for values in (mean - bias, kept)
    )
    all_z = np.arctanh(np.clip(resampled, -WHOLE, WHOLE))
    half = wider * half_width([seeds], all_z, pooled, freedom)
    low, high = np.tanh(z - half), np.tanh(z + half)
    return float(np.minimum(low, mean)), float(np.maximum(high, mean))


#: Variance of one seed's value, and the degrees of freedom of its estimate.
SeedVariance = tuple[float, int]


def seed_variance(per_seed: Sequence[Floats]) -> SeedVariance:
    """Estimate the variance over seeds that several lists of values have in common."""
    kept = [values[~np.isnan(values)] for values in per_seed]
    freedom = sum(len(values) - 1 for values in kept if len(values))
    squares = sum(float(values.var()) * len(values) for values in kept if len(values))
    return (squares / freedom if freedom else 0.0), freedom


def half_width(
    per_seed: Sequence[Floats],
    resampled: Floats,
    pooled: SeedVariance | None = None,
    freedom: float = np.inf,
) -> float:
    """Return half the 95 % interval of a sum of independent means over seeds.

    per_seed: each mean's values (seeds,), whose variance `pooled` replaces; resampled:
    (count,) of the sum. `freedom` is that of the variance over test samples, where
    these are few groups. `nan` where fewer than `LEAST_DEFINED` of them are defined.
    """
    kept = resampled[~np.isnan(resampled)]
    if kept.size == 0 or kept.size < LEAST_DEFINED * resampled.size:
        return float("nan")
    # Each part with its own quantile: the variance of few seeds may be small by chance.
    samples, squared = float(kept.var()), 0.0
    for values in (each[~np.isnan(each)] for each in per_seed):
        own = seed_variance([values])
        variance, degrees = pooled or own
        if degrees:
            quantile = stdtrit(degrees, (1 + LEVEL) / 2)
            squared += variance / len(values) * quantile**2
            samples -= own[0] / len(values)
    squared += max(samples, 0) * stdtrit(freedom, (1 + LEVEL) / 2) ** 2
    return float(np.sqrt(squared))


def covers_zero(ends: Sequence[float]) -> bool:
    """Return whether an interval is defined and leaves the sign open."""
    low, high = ends
    return low <= 0 <= high


def probability_better(a: Floats, b: Floats) -> float:
    """Return the share of paired resamples in which `a` exceeds `b`; nan for none."""
    both = ~(np.isnan(a) | np.isnan(b))
    if not both.any():
        return float("nan")
    return float(np.mean((a[both] > b[both]) + (a[both] == b[both]) / 2))


def standard_deviation(values: ArrayLike) -> float:
    """Return the standard deviation (ddof 1) of defined values; nan below two."""
    found = np.asarray(values, np.float64)
    kept = found[~np.isnan(found)]
    return float(kept.std(ddof=1)) if kept.size > 1 else float("nan")
