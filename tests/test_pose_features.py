"""Pose features against literal sums, hand examples and what must not matter."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqa.cache.errors import AqaError
from aqa.extract.config import PoseConfig
from aqa.extract.poses.conventions import PoseFile
from aqa.extract.poses.features import (
    approximate_entropy,
    head_centred,
    low_frequencies,
    pose_features,
    pose_record,
)
from aqa.extract.poses.layouts import named_layout
from aqa.extract.poses.read import PoseError
from aqa.extract.poses.tracks import Poses

SERIES = st.lists(
    st.floats(-500, 500, allow_subnormal=False), min_size=4, max_size=30
).map(np.array)


def described(joints, config, units="pixels", layout="coco17"):
    """Features of joints (athletes, frames, joints, axes)."""
    file = PoseFile(np.empty(0), named_layout(layout), {"units": units}, ())
    return pose_features(Poses(np.asarray(joints), file, ""), config)


def literal_dct(series, coefficients):
    """Absolute orthonormal DCT-II as its defining sum of cosines."""
    count = len(series)
    out = [0.0] * coefficients
    for k in range(min(coefficients, count)):
        total = sum(
            value * math.cos(math.pi * k * (2 * t + 1) / (2 * count))
            for t, value in enumerate(series)
        )
        out[k] = abs(total * math.sqrt((1 if k == 0 else 2) / count))
    return out


def literal_entropy(series, m, tolerance):
    """Pincus's definition, pattern by pattern."""
    count = len(series)
    mean = sum(series) / count
    r = tolerance * math.sqrt(sum((x - mean) ** 2 for x in series) / count)

    def phi(m):
        patterns = [series[i : i + m] for i in range(count - m + 1)]
        logs = []
        for one in patterns:
            alike = sum(
                max(abs(a - b) for a, b in zip(one, other, strict=True)) <= r
                for other in patterns
            )
            logs.append(math.log(alike / len(patterns)))
        return sum(logs) / len(logs)

    return phi(m) - phi(m + 1)


def test_series_are_seen_from_the_head_all_x_before_all_y():
    joints = np.array([[[1, 10], [3, 14], [6, 9]], [[2, 20], [2, 25], [9, 26]]], float)
    expected = [[2, 0], [5, 7], [4, 5], [-1, 6]]
    np.testing.assert_array_equal(head_centred(joints, 0), expected)
    from_the_last = [[-5, -7], [-3, -7], [1, -6], [5, -1]]
    np.testing.assert_array_equal(head_centred(joints, 2), from_the_last)


def test_dct_by_hand():
    # (3, 1): the mean times sqrt(2), and the difference times cos(pi / 4).
    found = low_frequencies(np.array([[3.0, 1.0]]), 4)
    np.testing.assert_allclose(found, [[4 / math.sqrt(2), math.sqrt(2), 0, 0]])


@given(SERIES, st.integers(1, 50))
def test_dct_is_the_sum_of_cosines(series, coefficients):
    found = low_frequencies(series[None], coefficients)
    assert found.shape == (1, coefficients)
    expected = literal_dct(series.tolist(), coefficients)
    np.testing.assert_allclose(found[0], expected, atol=1e-9, rtol=1e-9)


def test_entropy_by_hand():
    # 1 2 1 2 1, patterns of 1: shares 3/5, 2/5; of 2: 12 21 12 21, shares 1/2.
    first = (3 * math.log(3 / 5) + 2 * math.log(2 / 5)) / 5
    second = math.log(1 / 2)
    found = approximate_entropy(np.array([1.0, 2, 1, 2, 1]), embedding=1)
    assert found == pytest.approx(first - second, rel=1e-12)


@given(SERIES, st.integers(1, 2), st.sampled_from([0.1, 0.2, 1.0]))
def test_entropy_is_the_literal_one(series, embedding, tolerance):
    # Numbers that rounding cannot put on either side of the tolerance.
    series = np.round(series)
    found = approximate_entropy(series, embedding, tolerance + 1e-6)
    expected = literal_entropy(series.tolist(), embedding, tolerance + 1e-6)
    assert found == pytest.approx(expected, abs=1e-9)


def test_entropy_of_the_regular_is_less_than_of_noise():
    rng = np.random.default_rng(0)
    regular = np.sin(np.arange(200) / 3)
    assert approximate_entropy(np.full(50, 7.0)) == 0
    assert approximate_entropy(regular) < approximate_entropy(rng.normal(size=200))


def test_entropy_needs_patterns():
    with pytest.raises(PoseError, match="at least 4 frames, found 3"):
        approximate_entropy(np.arange(3.0))


@pytest.mark.parametrize(
    ("kind", "width"), [("pose-dct", 16 * 2 * 50), ("pose-apen", 16 * 2)]
)
@pytest.mark.parametrize("frames", [5, 49, 103, 160])
def test_width_is_fixed_however_long(kind, width, frames):
    joints = np.random.default_rng(0).normal(size=(1, frames, 17, 2)) * 30
    features = described(joints, PoseConfig(features=kind))
    assert features.shape == (1, 1, width) and features.dtype == np.float32
    assert np.isfinite(features).all()


@pytest.mark.parametrize("kind", ["pose-dct", "pose-apen"])
def test_where_the_athlete_stands_does_not_matter(kind):
    config = PoseConfig(features=kind)
    joints = np.random.default_rng(0).normal(size=(1, 60, 17, 2)).round(2) * 32
    walking = np.arange(60)[None, :, None, None] * 4.0
    before, after = (
        described(joints, config),
        described(joints + walking, config),
    )
    np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("frames", "axes"), [(40, 2), (150, 3)])
def test_clips_are_the_sums_of_cosines_of_each_clip(frames, axes):
    joints = np.random.default_rng(0).normal(100, 20, (1, frames, 17, axes))
    found = described(joints, PoseConfig(features="pose-clips"))
    assert found.shape == (6, 6, 18 * axes * 4)
    hips = joints[0][:, [11, 12]].mean(axis=1, keepdims=True)
    spread = joints[0] - joints[0].mean(axis=1, keepdims=True)
    size = np.median(np.sqrt((spread**2).sum(axis=2).mean(axis=1)))
    path = hips - hips.mean(axis=0)
    body = np.concatenate([joints[0] - hips, path], axis=1) / size
    video = np.zeros((103, 18, axes))
    video[max(103 - frames, 0) :] = body[-103:]
    time = np.arange(16)
    for offset, clip, joint, axis in ((0, 0, 3, 0), (5, 2, 17, 1), (2, 5, 9, axes - 1)):
        start = offset + 16 * clip
        values = video[start : start + 16, joint, axis]
        for k in range(4):
            wave = np.cos(np.pi * k * (2 * time + 1) / 32) * np.sqrt(
                (2 - (k == 0)) / 16
            )
            place = (joint * axes + axis) * 4 + k
            assert found[offset, clip, place] == pytest.approx(wave @ values, abs=1e-5)


def test_two_athletes_one_after_the_other_and_zeros_for_nobody():
    config = PoseConfig(athletes=2)
    joints = np.random.default_rng(0).normal(size=(2, 60, 17, 2)) * 30
    both = described(joints, config)
    for i, half in enumerate(np.split(both, 2, axis=2)):
        np.testing.assert_array_equal(half, described(joints[[i]], PoseConfig()))
    alone = described(joints[:1], config)
    np.testing.assert_array_equal(
        alone[0, 0], np.concatenate([both[0, 0, :1600], np.zeros(1600)])
    )


def test_record_names_what_decides_and_nothing_else():
    dct = pose_record(PoseConfig())
    assert dct["features"] == "pose-dct" and dct["coefficients"] == 50
    assert "embedding" not in dct
    entropy = pose_record(PoseConfig(features="pose-apen"))
    assert entropy["tolerance"] == 0.2 and "coefficients" not in entropy
    assert pose_record(PoseConfig(athletes=2)) != dct


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": "pose-dft"},
        {"athletes": 3},
        {"confidence": 1.5},
        {"missing": -0.1},
        {"coefficients": 0},
        {"embedding": 0},
        {"tolerance": 0.0},
        {"root": 0},
        {"joints": 1, "root": 0},
        {"joints": 9, "root": 9},
        {"layout": "coco18"},
        {"third": "z"},
        {"units": "inches"},
        {"picture": (0, 5)},
        {"clip_coefficients": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(
        AqaError, match=f"^({next(iter(wrong))}|root|joints and root): "
    ):
        PoseConfig(**wrong)
