"""The heads follow scikit-learn's estimator contract, and are the same heads."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.utils.estimator_checks import check_estimator

from aqa.cache.errors import AqaError
from aqa.regress.heads.estimators import LSTMRegressor, SVRRegressor

QUICK = {
    "lstm": LSTMRegressor(
        hidden=8, iterations=150, learning_rate=0.02, step=60, batch=10
    ),
    "svr": SVRRegressor(costs=(0.1, 1.0, 10.0), epsilons=(0.1,), folds=3, repeats=1),
}


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(60, 3, 5)).astype(np.float32)
    y = 40 + 12 * X[:, :, 0].mean(1) + 4 * X[:, :, 1].mean(1)
    return X, y, np.repeat(np.arange(12), 5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", QUICK)
def test_contract_of_estimators(kind):
    results = check_estimator(QUICK[kind], on_skip=None, on_fail=None)
    failed = {one["check_name"] for one in results if one["status"] == "failed"}
    assert failed == set()
    assert sum(one["status"] == "passed" for one in results) > 30


@pytest.mark.parametrize("kind", QUICK)
def test_cross_validation_by_groups(data, kind):
    X, y, groups = data
    made = cross_val_predict(clone(QUICK[kind]), X, y, groups=groups, cv=GroupKFold(4))
    assert spearmanr(made, y).statistic > 0.8
    assert np.abs(made - y).mean() < y.std() / 2
    fold = next(GroupKFold(4).split(X, y, groups))
    alone = clone(QUICK[kind]).fit(X[fold[0]], y[fold[0]]).predict(X[fold[1]])
    np.testing.assert_allclose(made[fold[1]], alone, rtol=1e-5)


def test_parameters_are_those_of_the_heads():
    estimator = LSTMRegressor(hidden=3, iterations=7, loss="rank", random_state=5)
    assert clone(estimator).get_params() == estimator.get_params()
    config = estimator._config()
    assert (config.lstm.hidden, config.iterations, config.loss) == (3, 7, "rank")
    assert config.first_seed == 5
    assert SVRRegressor(costs=(1.0,))._config().svr.costs == (1.0,)


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_candidates_are_any_sequence_or_one_alone(data, kind):
    X, y, _ = data
    plain = SVRRegressor(kernels=("linear",), costs=(1.0,), epsilons=(0.1,), repeats=1)
    want = plain.fit(X, y).predict(X)
    for kernels, costs in (("linear", 1), (kind(["linear"]), kind([1]))):
        options = {"kernels": kernels, "costs": costs, "epsilons": 0.1, "repeats": 1}
        made = SVRRegressor(**options).fit(X, y).predict(X)
        np.testing.assert_array_equal(made, want)


def test_other_parameters_are_refused(data):
    X, y, _ = data
    for options, message in (
        ({"costs": "much"}, "costs: expected"),
        ({"costs": [[1.0]]}, "costs: expected"),
        ({"epsilons": None}, "epsilons: expected"),
        ({"kernels": []}, "kernels: expected one candidate or more"),
        ({"folds": 2.5}, "folds: expected"),
        ({"random_state": "x"}, "seed: expected"),
    ):
        with pytest.raises(AqaError, match=message):
            SVRRegressor(**options).fit(X, y)


def test_actions_have_scales_of_their_own(data):
    X, y, _ = data
    actions = np.where(np.arange(60) < 30, "diving", "luge")
    mixed = np.where(actions == "luge", 1000 + y, y / 10)
    for kind, estimator in QUICK.items():
        fitted = clone(estimator).fit(X, mixed, actions=actions)
        made = fitted.predict(X, actions=actions)
        for name in ("diving", "luge"):
            own = actions == name
            assert spearmanr(made[own], mixed[own]).statistic > 0.8, kind
            assert abs(made[own].mean() - mixed[own].mean()) < mixed[own].std()


def test_actions_that_were_not_fitted_are_refused(data):
    X, y, _ = data
    names = np.where(np.arange(60) % 2, "a", "b")
    model = clone(QUICK["svr"]).fit(X, y, actions=names)
    for actions in (None, ["a", "zz", "b"], ["a"]):
        with pytest.raises(AqaError, match="expected one of a, b for each of 3"):
            model.predict(X[:3], actions)


def padded(X, count):
    """Return X, and `count` clips more in front of every second row, of NaN."""
    front = np.full((len(X), count, X.shape[2]), np.nan, np.float32)
    long = np.concatenate([front, X], 1)
    long[::2, :count] = np.random.default_rng(1).normal(size=long[::2, :count].shape)
    return long


@pytest.mark.parametrize("kind", QUICK)
def test_padding_of_shorter_samples_is_ignored(data, kind):
    X, y, _ = data
    long, odd = padded(X, 2), np.arange(60) % 2 == 1
    fitted = clone(QUICK[kind]).fit(long, y)
    made = fitted.predict(long)
    # A sample of fewer clips predicts as it does alone, without any padding.
    np.testing.assert_allclose(made[odd], fitted.predict(X[odd]), rtol=1e-5)
    if kind == "svr":  # an SVR sees means over clips, which NumPy takes of real ones
        means = np.nanmean(long, 1)
        alone = clone(QUICK[kind]).fit(means, y).predict(means)
        np.testing.assert_allclose(made, alone, rtol=1e-3)
    for row in ([np.nan, 0, 0, 0, 0], [np.inf] * 5):
        long[0, 0] = row
        with pytest.raises(ValueError, match="expected finite|contains infinity"):
            fitted.predict(long)


def test_shapes(data):
    X, y, _ = data
    estimator = QUICK["svr"]
    flat = clone(estimator).fit(X[:, 0], y).predict(X[:, 0])
    assert np.array_equal(flat, clone(estimator).fit(X[:, :1], y).predict(X[:, :1]))
    copies = np.stack([X, X + 0.01], 1)
    assert clone(estimator).fit(copies, y).predict(copies).shape == (60,)
    fitted = clone(estimator).fit(X, y)
    assert fitted.predict(X[:, :2]).shape == (60,)  # of fewer clips
    with pytest.raises(ValueError, match="X has 4 features, but .* expecting 5"):
        fitted.predict(X[..., :4])
    with pytest.raises(
        AqaError, match=r"expected \(n, D\), .* found \(60, 1, 1, 3, 5\)"
    ):
        clone(estimator).fit(X[:, None, None], y)
