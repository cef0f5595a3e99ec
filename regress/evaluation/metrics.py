"""How well predictions agree with the judges: pure functions on arrays.

Conventions: `truth` and `predicted` are float arrays (n,) over the test samples of
ONE action, in the same order; correlations lie in -1..1 and are `nan` where they are
undefined (fewer than two samples, all truths equal, all predictions equal up to
rounding, a prediction that is not finite). A mean over actions or seeds leaves
undefined values out; whoever reports it counts them with `undefined`. Pooling several
actions in one correlation mostly measures which sport is watched: `action_mean_floor`
says how much.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau, rankdata

Floats = NDArray[np.float64]

#: Fisher's z of a perfect correlation is infinite; it is taken as that of this value,
#: so that one perfect action weighs much in a mean and does not decide it alone.
LARGEST_RHO = 1 - 1e-6
#: Predictions closer than this, as a part of the largest of them, are one value: a
#: matrix product gives equal rows results that are some roundings of float32 apart.
ROUNDING = 1e-6


def spearman(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Spearman's rank correlation, ties given their average rank."""
    truths, predictions = _paired(truth, predicted)
    if not _rankable(truths, predictions):
        return float("nan")
    middle = (len(truths) + 1) / 2
    x = rankdata(truths) - middle
    y = rankdata(predictions) - middle
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def kendall(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Kendall's tau-b, the variant that allows for ties."""
    truths, predictions = _paired(truth, predicted)
    if not _rankable(truths, predictions):
        return float("nan")
    return float(kendalltau(truths, predictions).statistic)


def rl2(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Relative L2 distance as the leaderboards define it; they print it times 100.

    The mean of ((predicted - truth) / (highest - lowest truth))^2: the range is that
    of the test labels given here, so numbers over other test lists do not compare.
    Both in judges' units. `nan` where all truths are equal, or one is not finite.
    """
    truths, predictions = _paired(truth, predicted)
    finite = np.isfinite(truths).all() and np.isfinite(predictions).all()
    if len(truths) == 0 or not finite or np.ptp(truths) == 0:
        return float("nan")
    return float(np.mean(((predictions - truths) / np.ptp(truths)) ** 2))


def fisher_mean(rhos: ArrayLike) -> float:
    """Mean of the defined correlations through Fisher's z; `nan` where none is."""
    return float(np.tanh(defined_mean(fisher_z(rhos))))


def arithmetic_mean(values: ArrayLike) -> float:
    """Mean of the defined values; `nan` where none is."""
    return float(defined_mean(values))


def fisher_z(rhos: ArrayLike) -> Floats:
    """The inverse hyperbolic tangent; 1 and -1 count as plus, minus `LARGEST_RHO`."""
    clipped = np.asarray(rhos, np.float64).clip(-LARGEST_RHO, LARGEST_RHO)
    z: Floats = np.arctanh(clipped)
    return z


def defined_mean(values: ArrayLike, axis: int = 0) -> Floats:
    """Mean along an axis of the values that are not `nan`; `nan` where none is."""
    found = np.asarray(values, np.float64)
    kept = ~np.isnan(found)
    sums = np.where(kept, found, 0).sum(axis)
    counts = kept.sum(axis)
    mean: Floats = np.full_like(sums, np.nan)
    np.divide(sums, counts, out=mean, where=counts > 0)
    return mean


def undefined(values: ArrayLike) -> int:
    """How many of the values a mean leaves out."""
    return int(np.isnan(np.asarray(values, np.float64)).sum())


def action_mean_floor(
    train_action: ArrayLike,
    train_score: ArrayLike,
    test_action: ArrayLike,
    test_score: ArrayLike,
) -> float:
    """Pooled rho of a predictor that knows nothing but the sport.

    It predicts each test sample's score as its action's mean over the training list.
    Actions (n,) of names, scores (n,) in judges' units; test samples of an action
    without training samples are left out.
    """
    trained, scores = np.asarray(train_action), np.asarray(train_score, np.float64)
    tested, truth = np.asarray(test_action), np.asarray(test_score, np.float64)
    means = {name: scores[trained == name].mean() for name in np.unique(trained)}
    known = np.isin(tested, list(means))
    return spearman(truth[known], [means[name] for name in tested[known]])


def _paired(truth: ArrayLike, predicted: ArrayLike) -> tuple[Floats, Floats]:
    truths = np.asarray(truth, np.float64)
    predictions = np.asarray(predicted, np.float64)
    if truths.ndim != 1 or truths.shape != predictions.shape:
        raise ValueError(
            f"expected truth and predictions of one shape (n,), found {truths.shape} "
            f"and {predictions.shape}"
        )
    return truths, predictions


def constant(predicted: Floats) -> bool:
    """Whether predictions (n,) are one value up to rounding, and rank nothing."""
    return bool(np.ptp(predicted) <= ROUNDING * np.abs(predicted).max())


def _rankable(truths: Floats, predictions: Floats) -> bool:
    finite = np.isfinite(truths).all() and np.isfinite(predictions).all()
    return bool(
        finite and len(truths) > 1 and np.ptp(truths) > 0 and not constant(predictions)
    )
