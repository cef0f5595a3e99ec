"""Agreement of predictions with the judges: pure functions on arrays.

Conventions: `truth` and `predicted` are float arrays (n,) over the test samples of
ONE action, in the same order; correlations lie in -1..1 and are `nan` where they are
undefined: fewer than two samples, all truths equal, all predictions equal up to
rounding, a prediction that is not finite. Means over actions or seeds leave undefined
values out; `undefined` counts them. Pooling several actions in one correlation mostly
measures which action is seen: `action_means` gives the baseline.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau, rankdata

Floats = NDArray[np.float64]

#: Predictions closer than this, relative to the largest, count as equal: a matrix
#: product gives equal rows results that differ by some roundings of float32.
ROUNDING = 1e-6


def spearman(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return Spearman's rank correlation with average ranks for ties."""
    truths, predictions = _paired(truth, predicted)
    if not _rankable(truths, predictions):
        return float("nan")
    middle = (len(truths) + 1) / 2
    x = rankdata(truths) - middle
    y = rankdata(predictions) - middle
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def kendall(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return Kendall's tau-b, the variant that allows for ties."""
    truths, predictions = _paired(truth, predicted)
    if not _rankable(truths, predictions):
        return float("nan")
    return float(kendalltau(truths, predictions).statistic)


def rl2_x100(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return the relative L2 distance times 100, as leaderboards print it.

    100 times the mean of ((predicted - truth) / (highest - lowest truth))^2, both in
    judges' units. The range is that of these test labels, so numbers over other test
    lists do not compare. `nan` where all truths are equal or a value is not finite.
    """
    truths, predictions = _paired(truth, predicted)
    finite = np.isfinite(truths).all() and np.isfinite(predictions).all()
    if len(truths) == 0 or not finite or np.ptp(truths) == 0:
        return float("nan")
    return float(100 * np.mean(((predictions - truths) / np.ptp(truths)) ** 2))


def largest_rho(n: ArrayLike) -> Floats:
    """Return what a perfect rank correlation of n >= 2 samples counts as in Fisher's z.

    Fisher's z of 1 is infinite. Without ties the value below 1 is 1 - 12 / (n^3 - n);
    a perfect one counts as half way to it, so that it does not decide a mean alone.
    """
    samples = np.asarray(n, np.float64)
    return np.asarray(1 - 6 / np.maximum(samples**3 - samples, 6))


def fisher_z(rhos: ArrayLike, n: ArrayLike) -> Floats:
    """Return the inverse hyperbolic tangent, |rho| limited to `largest_rho(n)`."""
    limit = largest_rho(n)
    z: Floats = np.arctanh(np.asarray(rhos, np.float64).clip(-limit, limit))
    return z


def fisher_mean(rhos: ArrayLike, n: ArrayLike) -> float:
    """Return the mean of defined correlations, each of n samples, by Fisher's z."""
    return float(np.tanh(defined_mean(fisher_z(rhos, n))))


def arithmetic_mean(values: ArrayLike) -> float:
    """Return the mean of the defined values; `nan` where none is."""
    return float(defined_mean(values))


def defined_mean(values: ArrayLike, axis: int = 0) -> Floats:
    """Return the mean along an axis without `nan`; `nan` where nothing is left."""
    found = np.asarray(values, np.float64)
    kept = ~np.isnan(found)
    sums = np.where(kept, found, 0).sum(axis)
    counts = kept.sum(axis)
    mean: Floats = np.full_like(sums, np.nan)
    np.divide(sums, counts, out=mean, where=counts > 0)
    return mean


def undefined(values: ArrayLike) -> int:
    """Return how many of the values a mean leaves out."""
    return int(np.isnan(np.asarray(values, np.float64)).sum())


def action_means(
    train_action: ArrayLike, train_score: ArrayLike, test_action: ArrayLike
) -> Floats:
    """Predict each test sample's score as its action's mean training score.

    Actions (n,) of names, scores (n,) in judges' units; `nan` for test samples of an
    action without training samples. Uses no features: the baseline of pooled rho.
    """
    trained, scores = np.asarray(train_action), np.asarray(train_score, np.float64)
    means = {name: scores[trained == name].mean() for name in np.unique(trained)}
    return np.array([means.get(name, np.nan) for name in np.asarray(test_action)])


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
    """Return whether predictions (n,) are equal up to rounding, and rank nothing."""
    return bool(np.ptp(predicted) <= ROUNDING * np.abs(predicted).max())


def _rankable(truths: Floats, predictions: Floats) -> bool:
    finite = np.isfinite(truths).all() and np.isfinite(predictions).all()
    return bool(
        finite and len(truths) > 1 and np.ptp(truths) > 0 and not constant(predictions)
    )
