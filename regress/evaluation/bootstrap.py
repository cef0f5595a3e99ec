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

From predictions to the numbers of a table.

Conventions: a cell is one row of a table on one action, with one prediction a test
sample and seed, in judges' units. `rho` is (seeds,), `resampled` (seeds, count), both
nan where undefined. An average over actions is formed for each seed and then averaged
over seeds; undefined values are left out of both and counted. Descriptions are plain
dicts for report.json.

The paper's claims, each as a paired comparison of two rows.

Conventions: a claim says that one row ranks test samples better than another. Both
are judged on the same resamples of test samples and the same draw of seeds, so that
what they share cancels; where rho is undefined for one of them, the other's is left
out too. `difference` is better minus other in rho; a claim is
"settled" when the 95 % interval of the average difference does not cover zero.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aqa.regress.data import Rows
from aqa.regress.evaluation import metrics
from aqa.regress.evaluation.metrics import (
    Floats,
    arithmetic_mean,
    constant,
    defined_mean,
)

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


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Test samples of one action and the resamples that every model on them shares.

    `rows` (n,) index the features, `truth` (n,) is in judges' units.
    """

    action: str
    rows: Rows
    truth: Floats
    resamples: Resamples


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


#: Averages over actions, along the first axis of an array of rho.
AVERAGES: dict[str, Callable[[Floats], Floats]] = {
    "fisher_z": lambda rho: np.tanh(defined_mean(metrics.fisher_z(rho))),
    "arithmetic": defined_mean,
}


@dataclass(frozen=True, eq=False)
class Cell:
    """One row of a table on one action: what each of its numbers comes from.

    `tests` and `predicted` hold one entry a seed; `matched` marks a model tested on
    the action that it was trained on where the others are not.
    """

    rows: tuple[NDArray[np.int64], ...]
    truth: tuple[Floats, ...]
    predicted: tuple[Floats, ...]
    rho: Floats
    resampled: Floats
    matched: bool = False


def judge(
    tests: Sequence[HeldOut], predicted: Sequence[Floats], *, matched: bool = False
) -> Cell:
    """Judge the predictions of each seed on its test set."""
    pairs = list(zip(tests, predicted, strict=True))
    return Cell(
        rows=tuple(test.rows for test in tests),
        truth=tuple(test.truth for test in tests),
        predicted=tuple(predicted),
        rho=np.array([metrics.spearman(test.truth, guess) for test, guess in pairs]),
        resampled=np.stack([test.resamples.spearman(guess) for test, guess in pairs]),
        matched=matched,
    )


def describe(cell: Cell) -> dict[str, Any]:
    """A cell's numbers; the interval is over test samples, of the mean over seeds."""
    pairs = list(zip(cell.truth, cell.predicted, strict=True))
    kendall = [metrics.kendall(truth, guess) for truth, guess in pairs]
    rl2_x100 = [100 * metrics.rl2(truth, guess) for truth, guess in pairs]
    return {
        "spearman": cell.rho.tolist(),
        "mean": metrics.arithmetic_mean(cell.rho),
        "sd": standard_deviation(cell.rho),
        "ci95": list(interval(defined_mean(cell.resampled))),
        "n_test": len(cell.truth[0]),
        "undefined": metrics.undefined(cell.rho),
        "kendall": kendall,
        "kendall_mean": metrics.arithmetic_mean(kendall),
        "rl2_x100": rl2_x100,
        "rl2_x100_mean": metrics.arithmetic_mean(rl2_x100),
        "matched": cell.matched,
    }


def describe_average(cells: Sequence[Cell], drawn: NDArray[np.intp]) -> dict[str, Any]:
    """The averages over actions; intervals over seeds and test samples together.

    `drawn` (count, seeds) says which seeds each resample averages.
    """
    unseen = [cell for cell in cells if not cell.matched]
    rho = np.stack([cell.rho for cell in unseen])  # (actions, seeds)
    resampled = np.stack([cell.resampled for cell in unseen])  # (actions, seeds, count)
    per_seed = {name: average(rho) for name, average in AVERAGES.items()}
    return {
        **{name: metrics.arithmetic_mean(values) for name, values in per_seed.items()},
        "sd": {name: standard_deviation(values) for name, values in per_seed.items()},
        "ci95": {
            name: list(interval(over_seeds(average(resampled), drawn)))
            for name, average in AVERAGES.items()
        },
        "per_seed": {name: values.tolist() for name, values in per_seed.items()},
        "actions": len(unseen),
        "undefined": metrics.undefined(rho),
    }


def describe_row(
    name: str,
    mode: str,
    head: str,
    cells: Mapping[str, Cell],
    drawn: NDArray[np.intp],
    **more: Any,
) -> dict[str, Any]:
    """One row of a table whose columns are actions."""
    return {
        "name": name,
        "mode": mode,
        "head": head,
        **more,
        "per_action": {action: describe(cell) for action, cell in cells.items()},
        "average": describe_average(list(cells.values()), drawn),
    }


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
