"""Frames of labelled videos, decoded and resized but not yet cropped.

Conventions: frames uint8 (T, h, w, 3) RGB, resized as the preset says (128 x 171 for
C3D's), whole, so that training can crop where it likes. What a video holds is what a
first decoding of all of it gave, never what its header says; a damaged one is refused
then, unless that is allowed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch.nn import functional

from aqa.extract.config import Limits
from aqa.extract.preprocessing import Preprocessing
from aqa.extract.videos.damage import Signs, VideoError, ffmpeg_log
from aqa.extract.videos.video import Decoded
from aqa.extract.videos.video_file import open_file

Frames = NDArray[np.uint8]

#: A labelled clip is seconds long; a film among them is a mistake.
MOST_FRAMES = 20_000


def count_frames(path: Path, allow_damaged: bool) -> int:
    """Decode all of a video and count.

    Raises:
        VideoError: if it is damaged and that is not allowed, or too long, or empty.
    """
    count = 0
    with _opened(path) as (promised, frames, signs):
        for _ in frames:
            count += 1
            if count > MOST_FRAMES:
                raise VideoError(
                    f"{path}: over {MOST_FRAMES} frames; cut it into single actions"
                )
        damage = "; ".join(signs.found(promised, count))
    if count == 0 or (damage and not allow_damaged):
        raise VideoError(
            f"{path}: expected a whole video, found {damage or 'no frames'}"
        )
    return count


def look_through(
    path: Path, pre: Preprocessing, *, allow_damaged: bool, **_: Any
) -> Decoded:
    """`count_frames` as `decode_all` takes it: `total` is all that comes back."""
    nothing = np.empty((0, pre.crop, pre.crop, 3), np.uint8)
    return Decoded(nothing, count_frames(path, allow_damaged), (), "")


def read_frames(path: Path, pre: Preprocessing, first: int, count: int) -> Frames:
    """Decode and resize `count` frames from `first` on: uint8 (T, h, w, 3).

    T is less than `count` where the video ends before.

    Raises:
        VideoError: if it ends even before `first`.
    """
    kept = []
    with _opened(path) as (_, frames, _):
        for index, frame in enumerate(frames):
            if index >= first:
                kept.append(_resize(frame, pre))
            if index == first + count - 1:
                break
    if not kept:
        raise VideoError(f"{path}: expected over {first} frames; has it changed?")
    return np.stack(kept)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int | None, Iterator[VideoFrame], Signs]]:
    """How many frames are promised, the frames, and the signs of damage."""
    try:
        with ffmpeg_log() as log:
            signs = Signs(log)
            with open_file(path, Limits(), signs, None) as (promised, frames):
                yield promised, frames, signs
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be decoded ({error.strerror})") from None


def _resize(frame: VideoFrame, pre: Preprocessing) -> Frames:
    """Turn a frame upright and resize it as `resize_crop` does: -> (h, w, 3)."""
    picture = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]  # (1, 3, H, W)
    size = pre.size(*picture.shape[:2])
    image = functional.interpolate(image, size, mode="bilinear", align_corners=False)
    return np.asarray(image[0].permute(1, 2, 0).contiguous(), np.uint8)
