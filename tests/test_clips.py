"""The 103-frame rule and the clip starts, by hand and by the paper's formula."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqa.cache.errors import AqaError
from aqa.extract.config import ClipConfig
from aqa.extract.preprocessing import clip_starts, fit_length, shown_frames


def numbered(count):
    """Frames that hold their own 1-based number."""
    values = np.arange(1, count + 1, dtype=np.uint8)
    return np.broadcast_to(values[:, None, None, None], (count, 2, 2, 3))


def numbers(frames):
    return frames[:, 0, 0, 0].tolist()


def test_a_short_video_is_padded_in_front_with_black():
    fitted = fit_length(numbered(100), ClipConfig())
    assert fitted.shape == (103, 2, 2, 3)
    assert fitted.dtype == np.uint8
    assert numbers(fitted) == [0, 0, 0, *range(1, 101)]


@pytest.mark.parametrize(("keep", "first"), [("last", 8), ("first", 1), ("middle", 4)])
def test_of_a_long_video_the_asked_for_frames_stay(keep, first):
    fitted = fit_length(numbered(110), ClipConfig(keep=keep))
    assert numbers(fitted) == list(range(first, first + 103))


def test_an_exact_video_is_left_alone():
    assert numbers(fit_length(numbered(103), ClipConfig())) == list(range(1, 104))


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
