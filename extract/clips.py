"""Temporal sampling: a video is brought to `length` frames and cut into clips.

Conventions: frames are uint8 (T, H, W, 3); a start is the index of a clip's first
frame in the fitted video; arrays over clips are (offsets, clips, ...). A copy is the
sequence of clips at one start offset.

Padding goes in front and cutting keeps the end by default, so that what decides the
score (the entry, the landing) falls at the same place of every video.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from aqa.extract.config import ClipConfig

Value = TypeVar("Value", bound=np.generic)


def fit_length(frames: npt.NDArray[Value], config: ClipConfig) -> npt.NDArray[Value]:
    """Return `config.length` frames: (T, ...) -> (length, ...).

    Shorter videos get black frames (zeros) in front; of longer ones, the frames that
    `config.keep` says stay.
    """
    missing = config.length - len(frames)
    if missing > 0:
        return np.pad(frames, ((missing, 0), *[(0, 0)] * (frames.ndim - 1)))
    kept = kept_frames(len(frames), config)
    return frames[kept.start : kept.stop]


def kept_frames(total: int, config: ClipConfig) -> range:
    """Return the indices of the frames that `fit_length` keeps of `total`."""
    spare = max(total - config.length, 0)
    first = {"first": 0, "middle": spare // 2, "last": spare}[config.keep]
    return range(first, min(first + config.length, total))


def clip_starts(config: ClipConfig) -> npt.NDArray[np.int64]:
    """Return the first frame of every clip, (offsets, clips)."""
    offsets = np.arange(config.offsets)
    return offsets[:, None] + config.stride * np.arange(config.clips)


def shown_frames(count: int, config: ClipConfig) -> list[range]:
    """Return which of a video's `count` kept frames each clip of the first copy shows.

    The range of a clip that shows only padding is empty.
    """
    black = max(config.length - count, 0)
    return [
        range(max(start - black, 0), max(start + config.clip - black, 0))
        for start in clip_starts(config)[0].tolist()
    ]


def middle_frames(
    frames: npt.NDArray[np.uint8], config: ClipConfig
) -> npt.NDArray[np.uint8]:
    """Return the middle frame of each clip of the first copy: (clips, H, W, 3)."""
    starts = clip_starts(config)[0]
    middles: npt.NDArray[np.uint8] = fit_length(frames, config)[
        starts + config.clip // 2
    ]
    return middles
