"""Folds against scikit-learn's, and what each sample does in them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sklearn.model_selection import LeaveOneGroupOut

from aqa.cache.errors import AqaError
from aqa.regress.config import SplitConfig
from aqa.regress.splits import in_order, split_features


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
