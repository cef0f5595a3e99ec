"""Folds against scikit-learn's, and what each sample does in them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr
from sklearn.model_selection import LeaveOneGroupOut

from aqa.cache.errors import AqaError
from aqa.regress.config import SplitConfig
from aqa.regress.splits import doubts, in_order, join_folds, split_features


@pytest.fixture
def features(make_features):
    made = make_features({"diving": 12, "gym_vault": 9})
    surgeon = np.array(list("ABC"))[np.arange(len(made.key)) % 3]
    fold = (np.arange(len(made.key)) % 4 + 8).astype(str)  # "8" to "11"
    score = made.score.copy()
    score[3] = np.nan
    return replace(made, score=score, extra={"surgeon": surgeon, "fold": fold})


def lists(fold):
    """Return the rows that train and the rows that test."""
    split = fold.features.split
    return tuple(set(np.flatnonzero(split == name)) for name in ("train", "test"))


@pytest.mark.parametrize(
    "config",
    [
        SplitConfig(folds=4),
        SplitConfig(folds="fold"),
        SplitConfig(leave_one_out="surgeon"),
    ],
)
def test_each_labelled_sample_is_tested_once_and_trains_elsewhere(features, config):
    labelled = set(np.flatnonzero(np.isfinite(features.score)))
    tested = Counter()
    for fold in split_features(features, config).folds:
        train, test = lists(fold)
        assert train | test == labelled and not train & test
        assert fold.features.x is features.x
        tested.update(test)
    assert tested == dict.fromkeys(labelled, 1)


@pytest.mark.parametrize("name", ["folds", "leave_one_out"])
def test_a_group_spelt_in_two_ways_is_refused(features, name):
    """Or a person trains and tests."""
    surgeon = features.extra["surgeon"].astype("U9")
    for other in ("b", "B ", "\uff22", "B\u200b"):
        surgeon[1] = other
        found = replace(features, extra={"surgeon": surgeon})
        with pytest.raises(AqaError, match="column surgeon: .* differ in case or bl"):
            split_features(found, SplitConfig(**{name: "surgeon"}))


def test_a_group_that_may_be_another_is_said(features):
    surgeon = features.extra["surgeon"].astype("U9")
    surgeon[1::3], surgeon[4] = "p1_2", "p12"
    found = replace(features, extra={"surgeon": surgeon})
    split = split_features(found, SplitConfig(leave_one_out="surgeon"))
    said = "'surgeon p12' and 'surgeon p1_2' differ in blanks, - or _ only"
    assert any(said in line for line in doubts(found, split.folds, ["diving"]))
    plain = split_features(features, SplitConfig(leave_one_out="surgeon"))
    assert not [
        d for d in doubts(features, plain.folds, ["diving"]) if "differ in" in d
    ]


def test_without_a_wish_the_caches_split_stands(features):
    split = split_features(features, SplitConfig())
    [fold] = split.folds
    assert fold.features is features and split.groups is None


def test_a_number_of_folds_is_stratified_and_seeded(features):
    def tests(seed):
        folds = split_features(features, SplitConfig(folds=3, seed=seed)).folds
        assert [fold.name for fold in folds] == ["fold 1", "fold 2", "fold 3"]
        return [lists(fold)[1] for fold in folds]

    for test in tests(0):
        counts = Counter(features.action[list(test)])
        assert counts["diving"] in (4, 5) and counts["gym_vault"] in (3, 4)
    assert tests(0) == tests(0) != tests(1)


def test_groups_are_left_out_as_scikit_learn_does(features):
    split = split_features(features, SplitConfig(leave_one_out="surgeon"))
    rows = features.rows()
    groups = features.extra["surgeon"][rows]
    expected = [
        (set(rows[train]), set(rows[test]))
        for train, test in LeaveOneGroupOut().split(rows, groups=groups)
    ]
    assert [lists(fold) for fold in split.folds] == expected
    assert [fold.name for fold in split.folds] == [
        "surgeon A",
        "surgeon B",
        "surgeon C",
    ]
    np.testing.assert_array_equal(split.groups, features.extra["surgeon"])


def test_a_given_column_is_read_in_the_order_of_numbers(features):
    split = split_features(features, SplitConfig(folds="fold"))
    assert [fold.name for fold in split.folds] == [f"fold {n}" for n in (8, 9, 10, 11)]
    assert split.groups is None
    assert in_order(["10", "x", "9"]) == ["10", "9", "x"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SplitConfig(folds=1), "expected 2 to 24, the labelled samples; found 1"),
        (SplitConfig(folds=25), "found 25"),
        (SplitConfig(folds="subject"), "no label column subject.*has fold, surgeon"),
        (SplitConfig(leave_one_out="subject"), "no label column subject"),
        (SplitConfig(folds=2, leave_one_out="fold"), "ask for one of them"),
    ],
)
def test_what_cannot_be_had_is_refused(features, config, message):
    with pytest.raises(AqaError, match=message):
        split_features(features, config)


def test_a_column_with_gaps_or_one_value_is_refused(features):
    gaps = features.extra["surgeon"].copy()
    gaps[3] = gaps[5] = ""  # sample 3 has no score: it needs no group
    with pytest.raises(AqaError, match="1 labelled samples .*first diving.005"):
        split_features(
            replace(features, extra={"surgeon": gaps}),
            SplitConfig(leave_one_out="surgeon"),
        )
    one = np.full(len(features.key), "A")
    with pytest.raises(AqaError, match="one value only"):
        split_features(replace(features, extra={"s": one}), SplitConfig(folds="s"))


def test_held_out_predictions_are_aligned_by_hand():
    """Two heads, four samples: 5 and 7 are the heads' means."""
    heads = [np.array([2.0, 4.0, 6.0, 8.0]), np.array([9.0, 9.0, 5.0, 5.0])]
    tested = [np.array([1, 1, 0, 0], bool), np.array([0, 0, 1, 1], bool)]
    joined, aligned = join_folds(heads, tested)
    np.testing.assert_array_equal(joined, [2, 4, 5, 5])
    np.testing.assert_array_equal(aligned, [2, 4, 3, 3])


@given(
    n=st.integers(2, 12),
    folds=st.integers(1, 4),
    offsets=arrays(np.float64, 4, elements=st.integers(-50, 50)),
    seed=st.integers(0, 99),
)
def test_alignment_takes_offsets_of_heads_away_and_nothing_else(
    n, folds, offsets, seed
):
    generator = np.random.default_rng(seed)
    truth, fold = generator.normal(size=n), generator.integers(folds, size=n)
    tested = [fold == number for number in range(folds)]
    heads = [truth + offset for offset in offsets[:folds]]
    joined, aligned = join_folds(heads, tested)
    np.testing.assert_allclose(joined, truth + offsets[fold])
    np.testing.assert_allclose(np.diff(aligned), np.diff(truth), atol=1e-9)
    if len(set(offsets[:folds])) == 1:
        np.testing.assert_allclose(aligned, joined)


def test_heads_that_know_nothing_rank_about_as_well_as_chance():
    """Ridge regression on noise, leaving one of six groups out (closed form)."""
    generator = np.random.default_rng(0)
    plain, ranked = [], []
    for _ in range(100):
        x, y = generator.normal(size=(33, 20)), generator.normal(size=33)
        group = np.arange(33) % 6
        tested = [group == number for number in range(6)]
        heads = []
        for own in tested:
            middle, mean = x[~own].mean(0), y[~own].mean()
            centred = x[~own] - middle
            weights = np.linalg.solve(
                centred.T @ centred + 500 * np.eye(20), centred.T @ (y[~own] - mean)
            )
            heads.append(mean + (x - middle) @ weights)
        joined, aligned = join_folds(heads, tested)
        plain.append(spearmanr(joined, y).statistic)
        ranked.append(spearmanr(aligned, y).statistic)
    assert np.mean(plain) < -0.2
    assert abs(np.mean(ranked)) < 3 * np.std(ranked) / np.sqrt(len(ranked))
