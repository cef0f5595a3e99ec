"""Frames to the network's input: by hand, by a literal bilinear resize and formula."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aqa.cache.errors import AqaError
from aqa.extract.config import ClipConfig
from aqa.extract.preprocessing import (
    PRESETS,
    Preprocessing,
    clip_starts,
    fit_length,
    normalise,
    resize_crop,
    shown_frames,
)

C3D = PRESETS["c3d"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def taps(source, target):
    """The two pixels that each target pixel lies between, and the second's share."""
    centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    first = np.floor(centre).astype(int)
    return first, np.minimum(first + 1, source - 1), centre - first


def bilinear(image, height, width):
    """OpenCV's INTER_LINEAR, in float64 and rounded once: (H, W, 3) -> uint8."""
    above, below, down = taps(image.shape[0], height)
    left, right, along = taps(image.shape[1], width)
    down, along = down[:, None, None], along[None, :, None]
    pixels = image.astype(np.float64)
    top = pixels[above][:, left] * (1 - along) + pixels[above][:, right] * along
    bottom = pixels[below][:, left] * (1 - along) + pixels[below][:, right] * along
    return np.rint(top * (1 - down) + bottom * down)


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 400)),
    seed=st.integers(0, 2**32 - 1),
)
def test_resize_is_within_a_grey_level_of_bilinear(size, seed):
    frames = np.random.default_rng(seed).integers(0, 256, (2, *size, 3), np.uint8)
    found = resize_crop(frames, C3D)
    for frame, result in zip(frames, found, strict=True):
        expected = bilinear(frame, 128, 171)[8:120, 29:141]
        assert np.abs(result - expected).max() <= 1


def test_crop_and_channel_order_of_a_hand_made_frame():
    frame = np.zeros((1, 128, 171, 3), np.uint8)
    frame[0, 8, 29] = 1, 2, 3
    frame[0, 119, 140] = 4, 5, 6
    frame[0, 7, 29] = frame[0, 120, 140] = frame[0, 119, 141] = 255
    cropped = resize_crop(frame, C3D)
    assert cropped.shape == (1, 112, 112, 3)
    assert cropped.max() == 6
    values = normalise(torch.from_numpy(cropped), C3D)
    assert values.shape == (3, 1, 112, 112)
    assert values.dtype == torch.float32
    mean = np.float32([90.25, 97.66, 101.41])
    np.testing.assert_array_equal(values[:, 0, 0, 0], np.float32([3, 2, 1]) - mean)
    np.testing.assert_array_equal(values[:, 0, -1, -1], np.float32([6, 5, 4]) - mean)
    # A black frame reaches the network as minus the mean.
    np.testing.assert_array_equal(values[:, 0, 50, 50], -mean)


@pytest.mark.parametrize(
    ("frame", "resized"), [((256, 340), (128, 170)), ((640, 360), (228, 128))]
)
def test_mmaction_keeps_the_aspect_ratio_and_centres(frame, resized):
    pre = PRESETS["mmaction"]
    assert pre.size(*frame) == resized
    assert pre.corner(*resized) == ((resized[0] - 112) // 2, (resized[1] - 112) // 2)
    values = normalise(torch.full((1, 112, 112, 3), 255, dtype=torch.uint8), pre)
    np.testing.assert_array_equal(values[:, 0, 0, 0], [151, 138, 127])


def test_imagenet_scales_to_unit_deviation():
    frames = torch.tensor([255, 0, 128], dtype=torch.uint8).expand(1, 112, 112, 3)
    found = normalise(frames, PRESETS["imagenet"])[:, 0, 0, 0]
    expected = [
        (1 - 0.485) / 0.229,
        (0 - 0.456) / 0.224,
        (128 / 255 - 0.406) / 0.225,
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_mean_cube_is_averaged_over_time_and_cropped(rng):
    cube = rng.uniform(80, 120, (3, 16, 128, 171)).astype(np.float32)
    pre = C3D.with_mean_cube(cube)
    assert pre.mean.shape == (3, 112, 112)
    expected = cube[:, :, 8 + 5, 29 + 7].astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(pre.mean[:, 5, 7], expected, rtol=1e-6)
    frames = torch.full((2, 112, 112, 3), 100, dtype=torch.uint8)
    found = normalise(frames, pre)[:, 1, 5, 7]
    np.testing.assert_allclose(found, 100 - expected, rtol=1e-4)


def test_the_record_tells_image_means_apart(rng):
    image = rng.uniform(80, 120, (3, 112, 112)).astype(np.float32)
    one, same, other = (Preprocessing(mean=m) for m in (image, image.copy(), image + 1))
    assert one == same and hash(one) == hash(same)
    assert one != other and one != C3D
    assert len(one.record()["mean"]["image_sha256"]) == 64


@pytest.mark.parametrize(
    "bad",
    [{"channels": "GRB"}, {"mean": np.zeros((3, 16, 112, 112), np.float32)}],
)
def test_what_cannot_be_done_is_refused(bad):
    with pytest.raises(AqaError, match="expected"):
        Preprocessing(**bad)


def test_a_crop_outside_the_frame_is_refused():
    frames = np.zeros((1, 100, 100, 3), np.uint8)
    with pytest.raises(AqaError, match="inside the resized frame"):
        resize_crop(frames, Preprocessing(width=100, height=100))


def test_a_mean_cube_of_another_order_is_refused():
    with pytest.raises(AqaError, match=r"\(3, L, H, W\)"):
        C3D.with_mean_cube(np.zeros((16, 3, 128, 171), np.float32))


# Clips


def numbered(count):
    """Frames that hold their own 1-based number."""
    values = np.arange(1, count + 1, dtype=np.uint8)
    return np.broadcast_to(values[:, None, None, None], (count, 2, 2, 3))


@pytest.mark.parametrize(
    ("count", "keep", "fitted"),
    [
        (100, "last", [0, 0, 0, *range(1, 101)]),
        (103, "last", range(1, 104)),
        (110, "last", range(8, 111)),
        (110, "first", range(1, 104)),
        (110, "middle", range(4, 107)),
    ],
)
def test_short_videos_begin_black_and_of_long_ones_some_frames_stay(
    count, keep, fitted
):
    found = fit_length(numbered(count), ClipConfig(keep=keep))
    assert found.shape == (103, 2, 2, 3) and found.dtype == np.uint8
    assert found[:, 0, 0, 0].tolist() == list(fitted)


def test_the_papers_clips():
    starts = clip_starts(ClipConfig())
    assert starts.shape == (6, 6)
    assert starts[0].tolist() == [0, 16, 32, 48, 64, 80]
    assert starts[5].tolist() == [5, 21, 37, 53, 69, 85]


@given(length=st.integers(16, 400), offsets=st.integers(1, 10))
def test_the_number_of_clips_is_the_papers_formula(length, offsets):
    if length < 16 + offsets - 1:
        with pytest.raises(AqaError, match="length: expected at least"):
            ClipConfig(length=length, offsets=offsets)
        return
    config = ClipConfig(length=length, offsets=offsets)
    assert config.clips == (length - (offsets - 1)) // 16


@given(
    length=st.integers(16, 300), offsets=st.integers(1, 8), stride=st.integers(1, 40)
)
def test_every_clip_fits_and_no_further_one_would(length, offsets, stride):
    if length < 16 + offsets - 1:
        return
    config = ClipConfig(length=length, offsets=offsets, stride=stride)
    starts = clip_starts(config)
    assert starts.shape == (offsets, config.clips)
    assert starts.min() == 0
    assert starts.max() + 16 <= length < starts.max() + 16 + stride


@pytest.mark.parametrize(
    "bad", [{"stride": 0}, {"offsets": 0}, {"clip": 0}, {"keep": "best"}]
)
def test_odd_settings_are_refused(bad):
    with pytest.raises(AqaError, match="expected"):
        ClipConfig(**bad)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (103, [range(k, k + 16) for k in range(0, 96, 16)]),
        (20, [range(0)] * 5 + [range(0, 13)]),
        (30, [range(0)] * 4 + [range(0, 7), range(7, 23)]),
    ],
)
def test_frames_that_a_clip_shows(count, shown):
    """103 - 20 = 83 are black: the last clip, 80 to 95, has frames 0 to 12."""
    found = shown_frames(count, ClipConfig())
    assert [list(frames) for frames in found] == [list(frames) for frames in shown]
    video = np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None]
    fitted = fit_length(video, ClipConfig())[:, 0, 0, 0]
    for start, frames in zip(range(0, 96, 16), found, strict=True):
        clip = fitted[start : start + 16]
        assert clip[clip > 0].tolist() == [frame + 1 for frame in frames]
