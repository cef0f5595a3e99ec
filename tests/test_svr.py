"""The SVR head equals scikit-learn's, and is chosen inside the training rows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR, NuSVR

from aqa.cache.errors import AqaError
from aqa.regress.config import SVR_PRESETS, SvrConfig
from aqa.regress.data import deal
from aqa.regress.heads import svr
from aqa.regress.heads.svr import candidates, fit_svr, worth

TRAIN = range(30)
ONE = SvrConfig(costs=(3.0,), epsilons=(0.1,))


@pytest.fixture
def features(make_features):
    return make_features({"diving": 30})


@pytest.fixture
def targets(features):
    return features.score / 8


def reference(kernel, cost, epsilon, width):
    """scikit-learn's own SVR: its linear kernel is ours times the width."""
    if kernel == "linear":
        machine = SVR(kernel="linear", C=cost / width, epsilon=epsilon)
    else:
        machine = SVR(kernel="rbf", C=cost, gamma=1 / width, epsilon=epsilon)
    return make_pipeline(StandardScaler(), machine.set_params(tol=1e-6))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_predictions_are_scikit_learns(features, targets, kernel, monkeypatch):
    monkeypatch.setattr(svr, "solve", exactly(svr.solve))
    head = fit_svr(features, targets, TRAIN, replace(ONE, kernels=(kernel,)))
    # All three copies of a video, each at a third of the cost.
    samples = features.x[:30].mean(2, dtype=np.float64).reshape(90, 10)
    machine = reference(kernel, 3.0 / 3, 0.1, 10)
    machine.fit(samples, np.repeat(targets[:30], 3))
    expected = machine.predict(features.x[30:, 0].mean(1, dtype=np.float64))
    np.testing.assert_allclose(head.predict(features.x[30:, 0]), expected, atol=1e-5)


def exactly(solve):
    """The same solver, run until nothing moves: both sides at one optimum."""

    def solved(kernel, labels, choice, copies=1):
        machine = solve(kernel, labels, choice, copies)
        return machine.set_params(tol=1e-6).fit(kernel, labels)

    return solved


def test_pose_preset_is_nu_svr_on_raw_scores(make_features):
    features = make_features({"diving": 30}, copies=1, clips=1)
    head = fit_svr(features, features.score / 8, TRAIN, SVR_PRESETS["pose-dct"])
    machine = NuSVR(kernel="linear", C=0.001, nu=0.5)
    machine.fit(features.x[:30, 0, 0].astype(float), features.score[:30])
    expected = machine.predict(features.x[30:, 0, 0].astype(float)) / 8
    np.testing.assert_allclose(head.predict(features.x[30:, 0]), expected, atol=1e-5)
    assert not head.scaling.mean.any() and head.gamma == 1


def test_held_out_predictions_come_from_the_other_folds(features, targets):
    head = fit_svr(features, targets, TRAIN, replace(ONE, kernels=("rbf",)), seed=4)
    samples = features.x[:30, 0].mean(1, dtype=np.float64)
    folds = deal(features.action[:30], 5, 4)
    for fold in range(5):
        inside = folds != fold
        machine = reference("rbf", 3.0, 0.1, 10)
        machine.fit(samples[inside], targets[:30][inside])
        np.testing.assert_allclose(
            head.held_out[~inside], machine.predict(samples[~inside]), atol=5e-3
        )
    rho = spearmanr(head.held_out, targets[:30]).statistic
    assert head.worth == pytest.approx(rho)


def test_best_candidate_wins(features, targets):
    config = SvrConfig(costs=(0.001, 1.0), epsilons=(0.1, 30.0))
    chosen = fit_svr(features, targets, TRAIN, config)
    worths = [
        fit_svr(
            features,
            targets,
            TRAIN,
            SvrConfig((choice.kernel,), (choice.cost,), (choice.epsilon,)),
        ).worth
        for choice in candidates(config)
    ]
    assert candidates(config)[int(np.argmax(worths))] == chosen.choice
    assert chosen.worth == max(worths) > 0.8


def test_one_value_for_all_is_worth_least():
    labels, actions = np.arange(6.0), np.array(["a"] * 3 + ["b"] * 3)
    assert worth(labels, labels, actions) == pytest.approx(1)
    assert worth(labels, np.where(actions == "a", labels, 7), actions) == 0


def test_worth_is_the_mean_over_actions(make_features):
    """Knowing which action it is brings nothing."""
    features = make_features({"diving": 20, "luge": 20})
    luge = features.action == "luge"
    features.x[luge, ..., 9] += 100
    targets = np.where(luge, 100.0, 0.0) + np.random.default_rng(0).normal(size=44)
    rows = features.rows(split="train")
    head = fit_svr(features, targets, rows, replace(ONE, kernels=("linear",)))
    assert abs(head.worth) < 0.5
    assert spearmanr(head.held_out, targets[rows]).statistic > 0.7


def test_labels_outside_the_rows_are_not_looked_at(features, targets):
    head = fit_svr(features, targets, TRAIN, ONE)
    targets[30:] = np.nan
    again = fit_svr(features, targets, TRAIN, ONE)
    assert np.array_equal(head.vectors, again.vectors)
    assert np.array_equal(head.coefficients, again.coefficients)
    assert head.intercept == again.intercept


def test_fewer_copies_where_all_would_be_too_many(features, targets, monkeypatch):
    monkeypatch.setattr(svr, "MOST_SAMPLES", 60)
    config = replace(ONE, kernels=("rbf",))
    two = fit_svr(features, targets, TRAIN, config)
    fewer = replace(features, x=features.x[:, :2])
    again = fit_svr(fewer, targets, TRAIN, config)
    assert np.array_equal(two.vectors, again.vectors)


def test_two_videos_are_enough(features, targets):
    head = fit_svr(features, targets, [0, 1], ONE)
    assert np.isfinite(head.predict(features.x[:, 0])).all()


def test_bad_input_is_refused(make_features, features, targets):
    with pytest.raises(AqaError, match="kernel poly: expected linear or rbf"):
        fit_svr(features, targets, TRAIN, replace(ONE, kernels=("poly",)))
    with pytest.raises(AqaError, match="no label to train on: diving/002"):
        fit_svr(features, np.where(np.arange(33) == 2, np.nan, targets), TRAIN)
    with pytest.raises(AqaError, match="no rows"):
        fit_svr(features, targets, [])
    with pytest.raises(AqaError, match=r"\(videos, clips, 10\); found \(4, 3\)"):
        fit_svr(features, targets, TRAIN, ONE).predict(np.zeros((4, 3), np.float32))
    mixed = make_features({"diving": 20, "luge": 20})
    labels = mixed.score / np.where(mixed.action == "luge", 2.0, 3.0)
    with pytest.raises(AqaError, match="one action at a time"):
        fit_svr(mixed, labels, range(44), SVR_PRESETS["pose-dct"])


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=40),
    st.integers(2, 6),
    st.integers(0, 99),
)
def test_folds_are_even_within_each_action(actions, folds, seed):
    names = np.array(actions)
    dealt = deal(names, folds, seed)
    counts = np.bincount(dealt, minlength=min(folds, len(names)))
    assert np.ptp(counts) <= 1 and len(counts) == min(folds, len(names))
    for name in set(actions):
        assert np.ptp(np.bincount(dealt[names == name], minlength=len(counts))) <= 1
    assert np.array_equal(dealt, deal(names, folds, seed))
