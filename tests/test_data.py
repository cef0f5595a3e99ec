"""Features and labels: what is refused, what scales them, how processes share them."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from aqa.cache.errors import AqaError
from aqa.cache.processes import process_outcomes
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import write_cache
from aqa.regress.data import (
    LabelScale,
    SharedArray,
    load,
    scaling_std,
    share,
)


def test_cache_is_loaded_once_and_by_action(plant, tmp_path):
    counts = {"diving": (4, 2), "gym_vault": (3, 1)}
    path = plant(tmp_path / "features.h5", "shared", counts)
    features = load(path)
    assert features.x.shape == (10, 2, 3, 16)
    assert features.shared is not None and features.x is features.shared.array
    assert list(features.rows("gym_vault", "train")) == [6, 7, 8]
    vault = load(path, ["gym_vault"])
    assert np.array_equal(vault.x, features.x[6:])
    assert vault.digests == features.digests[6:]
    assert vault.digests == replace(vault, feature_sha256=None).digests
    assert list(vault.frames) == [100] * 4


def test_padding_and_further_columns_come_with_the_features(tmp_path):
    samples = [
        Sample("a", "kata", "", 1.0, 9, "", clips=2, extra={"fold": "1"}),
        Sample("b", "kata", "", 2.0, 9, "", extra={"fold": "2"}),
        Sample("c", "luge", "", 2.0, 9, "", extra={"judge": "J"}),
    ]
    x = np.arange(24, dtype=np.float32).reshape(3, 1, 4, 2)
    path = write_cache(tmp_path / "f.h5", samples, x, Provenance({"features": "x"}))
    features = load(path)
    assert features.clips.tolist() == [2, 4, 4]
    assert features.extra["fold"].tolist() == ["1", "2", ""]
    assert load(path, ["luge"]).extra["judge"].tolist() == ["J"]
    assert features.clip_means([0]).tolist() == [[5, 6]]  # of (4, 5) and (6, 7)
    write_cache(path, samples[1:], x[1:], Provenance({"features": "x"}))
    assert load(path).clips is None


def test_action_that_is_not_there_is_named(plant, tmp_path):
    path = plant(tmp_path / "features.h5", "shared", {"diving": (2, 1)})
    with pytest.raises(AqaError, match="no sample of luge; it holds diving"):
        load(path, ["diving", "luge"])


def test_rows_are_labelled_rows(make_features):
    features = make_features({"diving": 3, "luge": 2})
    features.score[1] = np.nan
    assert list(features.rows()) == [0, 2, 3, 4, 5, 6, 7, 8]
    assert list(features.rows("diving", "train")) == [0, 2]
    assert list(features.rows(["luge", "diving"], "test")) == [3, 4, 7, 8]


def test_deviation_is_that_of_training_rows(make_features):
    features = make_features({"diving": 3, "luge": 2})
    features.score[:3] = [1, 2, 6]
    features.score[5:7] = [10, 14]
    found = LabelScale.learn(features, features.rows(split="train"))
    # Squares of -2, -1 and 3 over 2; of -2 and 2 over 1.
    assert found.scale == pytest.approx({"diving": np.sqrt(7), "luge": np.sqrt(8)})
    scale = LabelScale("std", {"diving": 0.0}, {"diving": 2.0})
    labels = scale.to_scaled(features.score, features.action)
    assert list(labels[:3]) == [0.5, 1, 3]
    assert np.isnan(labels[5:]).all()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([3.3, 3.3, 3.3], "all 3 training scores are 3.3"),
        ([1.0, np.nan, 2.0], "diving/001: no score"),
        ([1.0], "one training sample"),
        ([1e300, 2e300, 4e300], "from 1e.300 to 4e.300 .*write them in another unit"),
        ([1e-310, 2e-310, 4e-310], "no standard deviation in double precision"),
    ],
)
def test_labels_that_cannot_be_scaled(make_features, scores, message):
    features = make_features({"diving": 3})
    features.score[: len(scores)] = scores
    with pytest.raises(AqaError, match=message):
        LabelScale.learn(features, range(len(scores)))


def test_z_scores_are_learned_from_training_rows_and_undone(make_features):
    features = make_features({"diving": 3, "luge": 2})
    features.score[:3] = [1, 2, 6]
    features.score[5:7] = [10, 14]
    scale = LabelScale.learn(features, features.rows(split="train"), "zscore")
    scaled = scale.to_scaled(features.score, features.action)
    # Mean 3 and standard deviation 7 ** 0.5; mean 12 and 8 ** 0.5.
    np.testing.assert_allclose(scaled[:3], np.array([-2, -1, 3]) / 7**0.5)
    np.testing.assert_allclose(scaled[5:7], np.array([-2, 2]) / 8**0.5)
    np.testing.assert_allclose(
        scale.to_units(scaled, features.action), features.score, rtol=1e-12
    )
    assert scale.to_units(0.0, "luge") == pytest.approx(12)
    assert np.isnan(scale.to_scaled([1.0], np.array(["vault"]))).all()
    paper = LabelScale.learn(features, features.rows(split="train"))
    assert paper.kind == "std" and set(paper.offset.values()) == {0.0}
    with pytest.raises(AqaError, match="label scale 'minmax' is not known"):
        LabelScale.learn(features, [0, 1], "minmax")


def test_constant_columns_are_those_of_scikit_learn():
    """A column may be constant but for rounding: its scale is 1, not 1e-16."""
    generator = np.random.default_rng(0)
    # Means over six clips of a sine of the clip's number, as imports hold.
    sine = np.sin(np.pi * np.arange(6) / 6).astype(np.float32)
    samples = generator.normal(size=(45, 8)) * 10.0 ** np.arange(-4, 4)
    samples[:, 3] = sine.mean(dtype=float) + generator.choice([0, 1e-16], 45)
    samples[:, 4] = 1e6 * (1 + generator.choice([0, 2e-16], 45))
    samples[:, 5] = 0
    scaler = StandardScaler().fit(samples)
    assert (scaler.scale_[[3, 4, 5]] == 1).all()
    mean, variance = samples.mean(0), samples.var(0)
    std = scaling_std(mean, variance, len(samples))
    np.testing.assert_allclose(std, scaler.scale_, rtol=1e-9)
    # Features are float32: what varies in their last place only is constant, too.
    noise = 3 * (1 + generator.choice([0, 1.2e-7], 45))
    assert scaling_std(noise.mean(None), noise.var(None), 45) == 1


def test_shapes_are_checked(make_features):
    features = make_features()
    with pytest.raises(AqaError, match="float32"):
        replace(features, x=features.x.astype(float))
    with pytest.raises(AqaError, match="key: expected 14 values"):
        replace(features, key=features.key[1:])
    with pytest.raises(AqaError, match="clips: expected 1 to 4; found 5"):
        replace(features, clips=np.full(14, 5, np.int32))


def test_means_are_over_real_clips(make_features):
    features = make_features()
    shorter = replace(features, clips=np.array([4, 2, 1] + [4] * 11, np.int32))
    found = shorter.clip_means([1, 2, 3], copies=2).reshape(3, 2, 10)
    for place, (row, real) in enumerate(((1, 2), (2, 1), (3, 4))):
        for copy in range(2):
            expected = features.x[row, copy, 4 - real :].astype(float).mean(0)
            np.testing.assert_allclose(found[place, copy], expected)


def _negate(shared):
    shared.array *= -1


def test_memory_is_shared_with_a_process_that_starts():
    shared = share(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert list(process_outcomes(_negate, [shared])) == [None]
    assert shared.array.tolist() == [[0, -1, -2], [-3, -4, -5]]


def test_memory_outlives_its_owner():
    shared = SharedArray((2, 2))
    array = shared.array
    del shared
    array += 1
    assert array.sum() == 4


def test_no_room_is_an_error_and_no_crash():
    with pytest.raises(AqaError, match="set TMPDIR"):
        SharedArray((1 << 50,))
