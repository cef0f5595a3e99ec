"""The SVR head equals scikit-learn's, and is chosen inside the training rows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR, NuSVR

from aqa.cache.errors import AqaError
from aqa.regress.config import NU_SVR, SvrConfig
from aqa.regress.data import deal
from aqa.regress.heads import svr
from aqa.regress.heads.svr import (
    candidates,
    fit_svr,
    held_out_predictions,
    selection_loss,
)

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
    head = fit_svr(features, features.score / 8, TRAIN, NU_SVR)
    machine = NuSVR(kernel="linear", C=0.001, nu=0.5)
    machine.fit(features.x[:30, 0, 0].astype(float), features.score[:30])
    expected = machine.predict(features.x[30:, 0, 0].astype(float)) / 8
    np.testing.assert_allclose(head.predict(features.x[30:, 0]), expected, atol=1e-5)
    assert not head.mean.any() and head.gamma == 1


def test_held_out_predictions_come_from_the_other_folds(features, targets):
    samples = features.x[:30, 0].mean(1, dtype=np.float64)
    folds = deal(features.action[:30], 5, 4)
    choices = candidates(replace(ONE, kernels=("rbf",)))
    (held_out,) = held_out_predictions(samples, targets[:30], folds, choices, True)
    for fold in range(5):
        inside = folds != fold
        machine = reference("rbf", 3.0, 0.1, 10)
        machine.fit(samples[inside], targets[:30][inside])
        np.testing.assert_allclose(
            held_out[~inside], machine.predict(samples[~inside]), atol=5e-3
        )


def test_best_candidate_wins(features, targets):
    """The loss of each candidate, from scikit-learn's own pipelines on our folds."""
    config = SvrConfig(costs=(0.001, 1.0), epsilons=(0.1, 2.0), repeats=2, folds=3)
    chosen = fit_svr(features, targets, TRAIN, config, seed=4)
    samples, labels = features.x[:30, 0].mean(1, dtype=np.float64), targets[:30]
    losses = []
    for choice in candidates(config):
        loss = 0.0
        for repeat in range(2):
            folds = deal(features.action[:30], 3, 4 + repeat * 1_000_003)
            machine = reference(choice.kernel, choice.cost, choice.epsilon, 10)
            made = cross_val_predict(
                machine, samples, labels, cv=PredefinedSplit(folds)
            )
            rho = spearmanr(made, labels).statistic if np.ptp(made) > 1e-6 else -1
            error = np.sqrt(np.mean((made - labels) ** 2)) / labels.std()
            loss += (1 - rho + error) / 2
        losses.append(loss)
    assert candidates(config)[int(np.argmin(losses))] == chosen.choice
    assert chosen.cv_loss == pytest.approx(min(losses), abs=0.01)


def test_ranks_and_units_weigh_alike():
    labels, actions = np.arange(6.0), np.array(["a"] * 3 + ["b"] * 3)
    std = labels[:3].std()
    assert selection_loss(labels, labels, actions) == 0
    mean = np.where(actions == "a", 1.0, 4.0)
    # The mean of an action has no rank, which counts as the worst: 2, and 1 in units.
    assert selection_loss(labels, mean, actions) == pytest.approx(3)
    # Perfect ranks of "a", half a standard deviation too high.
    shifted = labels + np.where(actions == "a", std / 2, 0)
    assert selection_loss(labels, shifted, actions) == pytest.approx(0.5 / 2)
    backwards = np.array([2.0, 1, 0, 3, 4, 5])
    root = np.sqrt(8 / 3) / std
    assert selection_loss(labels, backwards, actions) == pytest.approx((2 + root) / 2)


def test_a_candidate_right_in_rank_and_wrong_in_units_loses(make_features):
    """Actions whose labels lie far apart: a small cost ranks well and is far off."""
    features = make_features({"diving": 20, "luge": 20})
    luge = features.action == "luge"
    targets = features.score / 8 + np.where(luge, 12, 0)
    rows = features.rows(split="train")
    config = SvrConfig(kernels=("linear",), costs=(1e-4, 10.0), epsilons=(0.1,))
    features.x[luge, ..., 9] += 5  # the action can be told
    head = fit_svr(features, targets, rows, config)
    assert head.choice.cost == 10
    made = head.predict(features.x[rows, 0])
    for action in (luge, ~luge):
        error = made[action[rows]] - targets[rows][action[rows]]
        assert abs(error.mean()) < targets[rows][action[rows]].std()


def test_the_end_of_a_grid_is_reported(features, targets):
    grid = SvrConfig(kernels=("linear",), costs=(1e-4, 2e-4), epsilons=(0.1,))
    (note,) = fit_svr(features, targets, TRAIN, grid).warnings()
    assert "a cost at the end of its grid, 0.0002" in note
    assert fit_svr(features, targets, TRAIN, ONE).warnings() == []


def test_constant_columns_do_not_decide(make_features):
    """Against scikit-learn: a column constant but for rounding, 0 in one test video."""
    features = make_features({"diving": 30}, clips=6)
    features.x[..., 8] = np.sin(np.pi * np.arange(6) / 6)
    features.x[31, :, -1] = 0  # its last clip was padded with zeros
    targets = features.score / 8
    head = fit_svr(features, targets, TRAIN, replace(ONE, kernels=("linear",)))
    samples = features.x[:30].mean(2, dtype=np.float64).reshape(90, 10)
    machine = reference("linear", 3.0 / 3, 0.1, 10)
    machine.fit(samples, np.repeat(targets[:30], 3))
    expected = machine.predict(features.x[30:, 0].mean(1, dtype=np.float64))
    np.testing.assert_allclose(head.predict(features.x[30:, 0]), expected, atol=0.01)


def test_nu_svr_on_other_units_than_pixels_is_a_warning(make_features):
    """The preset scales nothing: coordinates in metres are far too small for it."""
    features = make_features({"diving": 30}, copies=1, clips=1)
    targets = features.score / 8
    pixels = replace(features, x=features.x * 100)
    assert fit_svr(pixels, targets, TRAIN, NU_SVR).warnings() == []
    metres = replace(features, x=features.x / 100)
    (note,) = fit_svr(metres, targets, TRAIN, NU_SVR).warnings()
    assert "nothing is scaled for this SVR" in note and "pixels" in note


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


def test_bad_input_is_refused(features, targets):
    with pytest.raises(AqaError, match="kernels: expected linear or rbf, found .poly"):
        fit_svr(features, targets, TRAIN, replace(ONE, kernels=("poly",)))
    with pytest.raises(AqaError, match="no label to train on: diving/002"):
        fit_svr(features, np.where(np.arange(33) == 2, np.nan, targets), TRAIN)
    with pytest.raises(AqaError, match="no rows"):
        fit_svr(features, targets, [])
    with pytest.raises(AqaError, match=r"\(videos, clips, 10\); found \(4, 3\)"):
        fit_svr(features, targets, TRAIN, ONE).predict(np.zeros((4, 3), np.float32))


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
