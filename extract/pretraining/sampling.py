"""Which clips a training run sees, and how each is cropped: a function of the seed.

Conventions: a clip is 16 frames from a start on; starts are a stride apart. Position
p of epoch e is the p-th clip of that epoch's own shuffle, and the batches follow one
another through the epochs without a gap. What is drawn for a clip depends on the
seed, e and p alone: not on the batch, the number of processes, or whether the run
was stopped and resumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aqa.extract.c3d import CLIP

_SHUFFLE, _WINDOW = 1, 2


class Draw(NamedTuple):
    """One clip of one epoch."""

    epoch: int
    position: int
    clip: int


class Window(NamedTuple):
    """Where a training clip is cut from its frames, and whether it is mirrored."""

    top: int
    left: int
    mirrored: bool


@dataclass(frozen=True)
class ClipTable:
    """Video index and first frame of every clip, both (clips,)."""

    video: NDArray[np.int64]
    start: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the clips."""
        return len(self.video)


def cut(frames: Sequence[int], stride: int) -> ClipTable:
    """Cut videos of so many frames into clips; a shorter one is one clip all the same.

    >>> cut([40, 12], stride=16).start.tolist()
    [0, 16, 0]
    """
    starts = [np.arange(0, max(n - CLIP, 0) + 1, stride) for n in frames]
    video = np.repeat(np.arange(len(frames)), [len(part) for part in starts])
    return ClipTable(video, np.concatenate(starts))


def draws(iteration: int, batch: int, clips: int, seed: int) -> list[Draw]:
    """Return the clips of an iteration (0-based)."""
    places = [divmod(iteration * batch + i, clips) for i in range(batch)]
    return [Draw(e, p, int(_shuffle(seed, e, clips)[p])) for e, p in places]


@lru_cache(maxsize=2)
def _shuffle(seed: int, epoch: int, clips: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _SHUFFLE, epoch]).permutation(clips)


def window(draw: Draw, spare: tuple[int, int], mirror: bool, seed: int) -> Window:
    """Draw one crop and one flip for all frames of a clip.

    `spare` are the rows and columns that the crop leaves over: offsets 0 to one less,
    as Caffe's `rand % spare` gives.
    """
    rng = np.random.default_rng([seed, _WINDOW, draw.epoch, draw.position])
    top, left = (int(rng.integers(max(rows, 1))) for rows in spare)
    return Window(top, left, bool(mirror and rng.random() < 0.5))
