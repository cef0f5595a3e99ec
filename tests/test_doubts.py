"""Samples that are doubtful are named before anything is trained on them."""

from dataclasses import replace

import numpy as np
import pytest

from aqa.regress.config import FitConfig, SplitConfig, SvrConfig
from aqa.regress.heads.fit import fit
from aqa.regress.splits import doubts, split_features

FIXED = SplitConfig()


@pytest.fixture
def features(make_features):
    """Eight samples to train, then two to test."""
    made = make_features({"diving": 8})
    return replace(made, score=np.linspace(20, 80, 10)[[0, 9, 3, 4, 2, 5, 8, 7, 1, 6]])


def found(features, split=FIXED):
    return doubts(features, split_features(features, split).folds, ["diving"])


def test_sound_samples_are_not_doubted(features):
    assert found(features) == found(features, SplitConfig(folds=3)) == []


def test_a_video_that_trains_and_tests_is_named(features):
    x = features.x.copy()
    x[9] = x[2]  # another key, another list
    x[1] = x[0]  # both train: no harm to the test
    (line,) = found(replace(features, x=x))
    assert line.startswith("1 of 2 test samples have the very features of a training")
    assert "diving/009 is diving/002" in line
    (line,) = found(replace(features, x=x), SplitConfig(folds=10))
    assert line.startswith("4 of 10 test samples")


@pytest.mark.parametrize(
    "code, rows", [(-1, [3]), (-9, [3, 5]), (999, [3]), (999, [0, 3]), (-999, [3])]
)
def test_a_code_for_missing_is_named(features, code, rows):
    score = features.score.copy()
    score[rows] = code
    (line,) = found(replace(features, score=score))
    assert line.startswith(f"diving: the score {code} ({len(rows)} sample")


@pytest.mark.parametrize(
    "scores",
    [
        np.arange(10),  # 0 is a mark like others
        np.arange(10) - 5.0,  # scores may be below 0
        [7.0] * 10,
        [0, 100, 50, 40, 60, 55, 45, 30, 70, 20],
        [0.0] * 9 + [1.0],  # passed or failed
    ],
)
def test_usual_scores_are_no_codes(features, scores):
    score = np.array(scores, float)
    assert not [line for line in found(replace(features, score=score)) if "far" in line]


def test_lists_in_other_units_are_named(features):
    split = np.array(["train"] * 6 + ["test"] * 4)
    score = np.where(split == "train", features.score / 100, features.score)
    (line,) = found(replace(features, split=split, score=score))
    assert line.startswith("diving: test scores (26.6667 to 73.3333) lie outside the")
    assert found(replace(features, split=split)) == []


def test_fit_says_so(plant, tmp_path):
    from aqa.cache.labels import Label, relabel

    cache = plant(tmp_path / "f.h5", "shared", {"diving": (12, 6)})
    relabel(cache, {"diving/003": Label("diving", -999, "train")})
    svr = SvrConfig(kernels=("linear",), costs=(1.0,), epsilons=(0.1,), folds=2)
    config = FitConfig(head="svr", svr=svr, calibration_folds=2, workers=1)
    warnings = fit(cache, config, tmp_path / "models").warnings
    assert "the score -999 (1 sample) is far from all others" in warnings[0]
