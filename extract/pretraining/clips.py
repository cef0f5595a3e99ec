"""Clips for pre-training: which ones, how they are cropped, and decoding them.

Conventions: frames are uint8 (T, h, w, 3) RGB, resized as the preset says (128 x 171
for C3D's) and not yet cropped. A clip is 16 frames from a start on; starts are
`stride` frames apart, and a shorter video is one clip with its last frame repeated. A
batch is uint8 (B, 16, crop, crop, 3) with the videos' indices int64 (B,).

Position p of epoch e is the p-th clip of that epoch's own shuffle; batches follow one
another through the epochs without a gap. What is drawn for a clip depends on the seed,
e and p alone: not on the batch size, the number of processes, or interruptions.

The number of frames of a video is what decoding all of it once gave, not what its
header says. Worker processes keep the first decoded videos that fit into their share of
the memory, and decode others again as far as needed.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aqa.cache.console import Progress
from aqa.cache.errors import AqaError, raise_any
from aqa.cache.processes import other_processors, process_outcomes
from aqa.extract.c3d import CLIP
from aqa.extract.config import Limits, PretrainConfig
from aqa.extract.preprocessing import Preprocessing, resize
from aqa.extract.pretraining.ucf101 import ClassSet
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.video import open_frames, read_all

Frames = NDArray[np.uint8]
Batch = tuple[Frames, NDArray[np.int64]]

#: Most frames of a labelled video, which is seconds long.
MOST_FRAMES = 20_000
_SHUFFLE, _CROP = 1, 2  # independent random streams of one seed


# Videos.


def count_frames(path: Path, allow_damaged: bool) -> int:
    """Return the number of frames that decode.

    Raises:
        VideoError: damaged and not allowed, too long, or empty.
    """
    count = 0
    with open_frames(path) as source:
        for _ in source:
            count += 1
            if count > MOST_FRAMES:
                raise VideoError(
                    f"{path}: over {MOST_FRAMES} frames; cut it into single actions"
                )
        damage = "; ".join(source.damage(count))
    if count == 0 or (damage and not allow_damaged):
        raise VideoError(
            f"{path}: expected a whole video, found {damage or 'no frames'}"
        )
    return count


def read_frames(path: Path, pre: Preprocessing, first: int, count: int) -> Frames:
    """Decode and resize up to `count` frames from `first` on: (T, h, w, 3).

    Raises:
        VideoError: the video ends before `first`.
    """
    kept = []
    with open_frames(path) as source:
        for index, picture in enumerate(source):
            if index >= first:
                kept.append(resize(picture.rgb()[None], pre)[0])
            if index == first + count - 1:
                break
    if not kept:
        raise VideoError(f"{path}: expected over {first} frames; has it changed?")
    return np.stack(kept)


# Clips.


class Clip(NamedTuple):
    """One clip of a table; `drawn` is its epoch and position, None for a test clip."""

    number: int
    drawn: tuple[int, int] | None = None


def draws(iteration: int, batch: int, clips: int, seed: int) -> list[Clip]:
    """Return the training clips of an iteration (0-based), of `clips` in all."""
    places = [divmod(iteration * batch + i, clips) for i in range(batch)]
    return [Clip(int(_shuffle(seed, e, clips)[p]), (e, p)) for e, p in places]


@lru_cache(maxsize=2)
def _shuffle(seed: int, epoch: int, clips: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _SHUFFLE, epoch]).permutation(clips)


class Window(NamedTuple):
    """Top left corner of a crop, and whether it is mirrored."""

    top: int
    left: int
    mirrored: bool


def draw_window(
    drawn: tuple[int, int], spare: tuple[int, int], mirror: bool, seed: int
) -> Window:
    """Draw one crop and one flip for all frames of a clip.

    `spare` are the rows and columns that the crop leaves over; offsets are 0 to one
    less, like Caffe's `rand % spare`.
    """
    rng = np.random.default_rng([seed, _CROP, *drawn])
    top, left = (int(rng.integers(max(rows, 1))) for rows in spare)
    return Window(top, left, bool(mirror and rng.random() < 0.5))


@dataclass
class Clips:
    """The clips of one side of a data set; indexing with clips decodes a batch.

    `lengths` are the videos' numbers of frames, `memory` the bytes of decoded frames
    that may be kept; `videos` (clips,) and `starts` (clips,) are each clip's video and
    first frame.
    """

    paths: Sequence[Path]
    lengths: Sequence[int]
    pre: Preprocessing
    stride: int
    mirror: bool = False
    seed: int = 0
    memory: int = 0
    kept: dict[int, Frames] = field(default_factory=dict)
    used: int = 0

    def __post_init__(self) -> None:
        """Cut the videos into clips."""
        starts = [np.arange(0, max(n - CLIP, 0) + 1, self.stride) for n in self.lengths]
        self.videos = np.repeat(np.arange(len(starts)), [len(part) for part in starts])
        self.starts = np.concatenate(starts)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.videos)

    def __getitem__(self, clips: Sequence[Clip]) -> Batch:
        """Return a batch; consecutive clips of one video are decoded together.

        Raises:
            VideoError: naming the video that could not be decoded.
        """
        cropped = []
        for video, part in groupby(clips, lambda clip: int(self.videos[clip.number])):
            group = list(part)
            starts = self.starts[[clip.number for clip in group]]
            first = int(starts.min())
            frames = self._span(video, first, int(starts.max()) - first + CLIP)
            for clip, start in zip(group, starts - first, strict=True):
                cropped.append(self._crop(frames[start : start + CLIP], clip.drawn))
        return np.stack(cropped), self.videos[[clip.number for clip in clips]]

    def _crop(self, frames: Frames, drawn: tuple[int, int] | None) -> Frames:
        height, width = frames.shape[1:3]
        crop = self.pre.crop
        if drawn is None:
            window = Window(*self.pre.corner(height, width), False)
        else:
            spare = height - crop, width - crop
            window = draw_window(drawn, spare, self.mirror, self.seed)
        top, left, mirrored = window
        part = frames[:, top : top + crop, left : left + crop]
        return part[:, :, ::-1] if mirrored else part

    def _span(self, video: int, first: int, count: int) -> Frames:
        """Return `count` frames from `first` on, the last one repeated past the end."""
        if video not in self.kept and self.used < self.memory:
            whole = read_frames(self.paths[video], self.pre, 0, self.lengths[video])
            if fits := self.used + whole.nbytes <= self.memory:
                self.kept[video] = whole
            # Full at the first that does not fit, so that none is decoded in vain.
            self.used = self.used + whole.nbytes if fits else self.memory
        if video in self.kept:
            frames = self.kept[video][first : first + count]
        else:
            frames = read_frames(self.paths[video], self.pre, first, count)
        missing = count - len(frames)
        return np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])


_here: Clips  # of a worker process


def _prepare(clips: Clips) -> None:
    global _here
    _here = clips


def _decode(asked: Callable[[int], Sequence[Clip]], item: int) -> Batch:
    return _here[asked(item)]


def load_batches(
    clips: Clips,
    asked: Callable[[int], Sequence[Clip]],
    items: range,
    workers: int,
) -> Iterator[Batch]:
    """Yield the batch of clips `asked(item)` for each item, in order.

    Args:
        clips: what to decode from.
        asked: importable; a partial of such a function will do.
        items: iterations or numbers of batches.
        workers: processes that decode ahead; 0 decodes in this process.

    Raises:
        AqaError: a video could not be decoded, or its process died or got stuck.
    """
    if workers == 0:
        yield from (clips[asked(item)] for item in items)
        return
    outcomes = process_outcomes(
        partial(_decode, asked),
        items,
        workers,
        seconds=Limits.seconds,
        prepare=_prepare,
        arguments=(clips,),
    )
    with closing(outcomes):
        for batch in outcomes:
            if isinstance(batch, AqaError):
                raise AqaError(f"decoding a batch failed: {batch}")
            yield batch


def worker_count(workers: int | None) -> int:
    """Return the number of decoding processes; None is all processors but one."""
    return other_processors() if workers is None else workers


# A data set.


@dataclass(frozen=True)
class Material:
    """The clips to train and to test on, and the videos' labels on both sides."""

    classes: tuple[str, ...]
    train: Clips
    test: Clips
    train_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]
    division: str
    sha256: str

    def record(self) -> dict[str, Any]:
        """Return everything that determines a run, as JSON values."""
        return {
            "classes": list(self.classes),
            "division": self.division,
            "train_clips": len(self.train),
            "test_clips": len(self.test),
            "data_sha256": self.sha256,
        }


def cut_into_clips(
    config: PretrainConfig, pre: Preprocessing, classes: ClassSet, lengths: list[int]
) -> Material:
    """Return the clips of a data set whose videos have these numbers of frames.

    The digest is over the classes and every video's name, label and length, which
    determine the order of a run.
    """
    videos = (*classes.train, *classes.test)
    described = [(v.name, v.label, n) for v, n in zip(videos, lengths, strict=True)]
    text = json.dumps([classes.classes, len(classes.train), described])
    split = len(classes.train)
    paths = [classes.root / video.name for video in videos]
    labels = np.array([video.label for video in videos])
    test = Clips(paths[split:], lengths[split:], pre, config.stride)
    # Test clips are seldom used, so training clips have all the memory.
    train = replace(
        test,
        paths=paths[:split],
        lengths=lengths[:split],
        mirror=config.mirror,
        seed=config.seed,
        memory=(config.memory << 20) // max(1, worker_count(config.workers)),
        kept={},
    )
    return Material(
        classes=classes.classes,
        train=train,
        test=test,
        train_labels=labels[:split],
        test_labels=labels[split:],
        division=classes.division,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def count_all(
    config: PretrainConfig, classes: ClassSet, progress: Progress
) -> list[int]:
    """Decode every video once, training videos first; return their numbers of frames.

    Raises:
        AqaError: naming the videos that cannot be used.
    """
    videos = [classes.root / each.name for each in (*classes.train, *classes.test)]
    count = partial(count_frames, allow_damaged=config.allow_damaged)
    lengths, problems = [], []
    with closing(read_all(videos, count, config.workers, config.limits)) as results:
        for number, found in enumerate(results, 1):
            if isinstance(found, VideoError):
                problems.append(str(found))
            else:
                lengths.append(found)
            progress(number, len(videos), "checking the videos")
    raise_any(problems)
    return lengths
