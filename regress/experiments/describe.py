"""From the cells of a table to the numbers and sentences of its report.

Conventions: a row's average is formed per seed and then averaged over seeds, in two
kinds, "fisher_z" and "arithmetic" (`bootstrap.AVERAGES`). Lists "per seed" are in the
order of the seeds; nan is undefined. Two rows are compared on the same resamples of
test samples and, where both have as many seeds, the same draws of seeds, so that what
they share cancels. A difference is settled when its 95 % interval does not cover zero,
and never with one seed. The fields of the classes are keys of report.json.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from aqa.regress.evaluation import metrics
from aqa.regress.evaluation.bootstrap import (
    AVERAGES,
    WHOLE,
    Cell,
    Interval,
    SeedDraws,
    average,
    covers_zero,
    half_width,
    interval,
    over_seeds,
    probability_better,
    seed_variance,
    standard_deviation,
)
from aqa.regress.evaluation.metrics import Floats, arithmetic_mean, largest_rho

#: Marks fields that JSON leaves out where they are None.
OPTIONAL = {"optional": True}
ByKind = Mapping[str, float]
#: By row, then by column.
Cells = Mapping[str, Mapping[str, Cell]]


@dataclass(frozen=True)
class FoldNumbers:
    """A cell within one fold: rho per seed, its mean, and the samples tested."""

    spearman: list[float]
    mean: float
    n_test: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Numbers of predictions over seeds.

    `sd` is the standard deviation of rho over seeds, the interval that of its mean;
    `kendall` and `rl2_x100` (times 100) are per seed, beside their means; `undefined`
    counts seeds without a rho. In a cross-validation all this is over all folds'
    predictions together, each sample predicted once, and `per_fold` within each fold.
    """

    sd: float
    ci95: Interval
    n_test: int
    undefined: int
    kendall: list[float]
    kendall_mean: float
    rl2_x100: list[float]
    rl2_x100_mean: float
    per_fold: dict[str, FoldNumbers] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class CellNumbers(Metrics):
    """One row on one action: rho per seed and its mean."""

    spearman: list[float]
    mean: float
    matched: bool


@dataclass(frozen=True)
class Average:
    """The averages of a row over `actions` actions, formed per seed, then averaged."""

    fisher_z: float
    arithmetic: float
    sd: ByKind
    ci95: Mapping[str, Interval]
    per_seed: Mapping[str, list[float]]
    actions: int
    undefined: int

    def of(self, kind: str) -> float:
        """Return the average of a kind."""
        return self.fisher_z if kind == "fisher_z" else self.arithmetic


@dataclass(frozen=True)
class Difference:
    """Better minus other in rho, its interval, and the share of resamples above 0."""

    difference: float
    ci95: Interval
    probability: float


@dataclass(frozen=True)
class Comparison:
    """Two rows compared on the same resamples of test samples, `words` the outcome."""

    better: str
    other: str
    per_column: Mapping[str, Difference]
    average: Mapping[str, Difference]
    words: str


def describe(cell: Cell, draws: SeedDraws, row: Sequence[Cell] = ()) -> CellNumbers:
    """Return a cell's numbers; the cells of its `row` vary alike with seeds."""
    rl2 = [
        metrics.rl2_x100(test.truth, guess) if cell.units else math.nan
        for test, guess in zip(cell.tests, cell.predicted, strict=True)
    ]
    resampled = over_seeds(np.tanh(cell.resampled), draws.of(len(cell.rho)))
    return CellNumbers(
        spearman=cell.rho.tolist(),
        mean=arithmetic_mean(cell.rho),
        sd=standard_deviation(cell.rho),
        ci95=interval(
            cell.rho,
            resampled,
            float(largest_rho(cell.n)),
            pooled=seed_variance([each.z for each in row or (cell,)]),
            freedom=cell.freedom,
        ),
        n_test=cell.n,
        undefined=metrics.undefined(cell.rho),
        kendall=cell.kendall.tolist(),
        kendall_mean=arithmetic_mean(cell.kendall),
        rl2_x100=rl2,
        rl2_x100_mean=arithmetic_mean(rl2),
        matched=cell.matched,
        per_fold=_by_fold(cell),
    )


def _by_fold(cell: Cell) -> dict[str, FoldNumbers] | None:
    """Return the numbers within each fold, where there are folds."""
    if cell.parts is None:
        return None
    found = {}
    for name in dict.fromkeys(cell.parts.tolist()):
        inside = cell.parts == name
        rho = [
            metrics.spearman(test.truth[inside], guess[inside])
            for test, guess in zip(cell.tests, cell.predicted, strict=True)
        ]
        found[name] = FoldNumbers(rho, arithmetic_mean(rho), int(inside.sum()))
    return found


def describe_average(cells: Sequence[Cell], draws: SeedDraws) -> Average:
    """Return the averages over actions, matched cells left out."""
    unseen = [cell for cell in cells if not cell.matched]
    z = np.stack([cell.z for cell in unseen])  # (actions, seeds)
    resampled = np.stack([cell.resampled for cell in unseen])  # (actions, seeds, count)
    per_seed = {
        "fisher_z": average("fisher_z", z),
        "arithmetic": metrics.defined_mean([cell.rho for cell in unseen]),
    }
    bias = arithmetic_mean(np.stack([cell.bias for cell in unseen]).ravel())
    wider = arithmetic_mean([cell.bias_spread for cell in unseen])
    corrections = {"fisher_z": (0.0, 1.0), "arithmetic": (bias, wider)}
    return Average(
        fisher_z=arithmetic_mean(per_seed["fisher_z"]),
        arithmetic=arithmetic_mean(per_seed["arithmetic"]),
        sd={kind: standard_deviation(found) for kind, found in per_seed.items()},
        ci95={
            kind: interval(
                found,
                _averaged(kind, z, resampled, draws),
                WHOLE,
                *corrections[kind],
                freedom=min(cell.freedom for cell in unseen),
            )
            for kind, found in per_seed.items()
        },
        per_seed={kind: found.tolist() for kind, found in per_seed.items()},
        actions=len(unseen),
        undefined=metrics.undefined(z),
    )


def _averaged(kind: str, z: Floats, resampled: Floats, draws: SeedDraws) -> Floats:
    """Average resamples over actions and drawn seeds: (actions, seeds, n) -> (n,).

    All are nan where an action is too small for resamples.
    """
    if (np.isnan(resampled).all(-1) & ~np.isnan(z)).any():
        return np.full(resampled.shape[-1], np.nan)
    return over_seeds(average(kind, resampled), draws.of(z.shape[1]))


def compare_rows(better: str, other: str, cells: Cells, draws: SeedDraws) -> Comparison:
    """Compare two rows, column by column and on average.

    Where rho is undefined for one row, the other's is left out too. Seeds are paired
    where both rows have as many.
    """
    a, b = (list(cells[name].values()) for name in (better, other))
    per_column = {
        column: _difference("arithmetic", [one], [two], draws)
        for column, one, two in zip(cells[better], a, b, strict=True)
    }
    overall = {kind: _difference(kind, a, b, draws) for kind in AVERAGES}
    seeds = min(len(a[0].rho), len(b[0].rho))
    words = _words(better, other, overall["fisher_z"], seeds)
    return Comparison(better, other, per_column, overall, words)


def _difference(
    kind: str, a: Sequence[Cell], b: Sequence[Cell], draws: SeedDraws
) -> Difference:
    """Return the difference of two rows' averages over some columns."""
    z = _both([cell.z for cell in a], [cell.z for cell in b])
    resampled = _both([cell.resampled for cell in a], [cell.resampled for cell in b])
    x, y = (_averaged(kind, *side, draws) for side in zip(z, resampled, strict=True))
    per_seed = [average(kind, side) for side in z]
    value = arithmetic_mean(per_seed[0]) - arithmetic_mean(per_seed[1])
    if len(per_seed[0]) == len(per_seed[1]):
        per_seed = [per_seed[0] - per_seed[1]]
    half = half_width(per_seed, x - y, freedom=min(c.freedom for c in (*a, *b)))
    return Difference(value, (value - half, value + half), probability_better(x, y))


def _both(a: Sequence[Floats], b: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Stack the columns (columns, seeds, ...) of two rows, nan in both for either."""
    left, right = np.stack(a), np.stack(b)
    if left.shape == right.shape:
        either = np.isnan(left) | np.isnan(right)
    else:
        either = np.asarray(np.isnan(left).all(1) | np.isnan(right).all(1))[:, None]
    return np.where(either, np.nan, left), np.where(either, np.nan, right)


def in_words(rho: float) -> str:
    """Return a correlation as it stands in a sentence."""
    return "undefined" if np.isnan(rho) else f"{rho:.3f}"


def capital(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _words(better: str, other: str, found: Difference, seeds: int) -> str:
    """Return the outcome of a comparison in one or two sentences."""
    against = f"{capital(better)} against {other}"
    if np.isnan(found.difference):
        return f"{against}: undefined, nothing can be said."
    on_average = f"{found.difference:+.3f} on average (Fisher z; "
    low, high = found.ci95
    if np.isnan(low):
        return (
            f"{against}: {on_average}no interval). The test lists are too short, or "
            "rho is undefined in most resamples: these data do not settle which is "
            "better."
        )
    numbers = (
        f"{on_average}95 % interval {low:+.3f} to {high:+.3f}, bootstrap probability "
        f"that it is better {found.probability:.2f})"
    )
    if seeds == 1:
        return (
            f"{against}: {numbers}. One seed only, and another may reverse the order: "
            "no verdict."
        )
    if covers_zero(found.ci95):
        return (
            f"{against}: {numbers}. The interval covers zero: these data do not settle "
            "which is better."
        )
    verdict = "better than" if found.difference > 0 else "worse than"
    return f"{capital(better)} is {verdict} {other}: {numbers}."
