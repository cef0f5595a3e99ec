"""Clips on their way from disk to the network, decoded by worker processes.

Conventions: a batch is uint8 (B, 16, crop, crop, 3) RGB with labels int64 (B,); the
mean is subtracted later, on the device. Batches come in the order they were asked
for and hold the same bytes whatever the number of processes. Each process keeps the
first decoded videos that fit into its part of the memory, and decodes the others
anew, as far as needed; it keeps none when it has no part.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from aqa.cache.errors import AqaError
from aqa.extract.c3d import CLIP
from aqa.extract.config import Limits
from aqa.extract.preprocessing import Preprocessing
from aqa.extract.pretraining.footage import Frames, read_frames
from aqa.extract.pretraining.sampling import ClipTable, Draw, Window, window

#: Clips (B, 16, crop, crop, 3) and what each is: a label, or a video to judge.
Batch = tuple[Frames, NDArray[np.int64]]


@dataclass
class Footage:
    """Videos by index, and as many of them in memory as fit into `memory` bytes."""

    paths: Sequence[Path]
    frames: Sequence[int]
    pre: Preprocessing
    memory: int
    kept: dict[int, Frames] = field(default_factory=dict)
    used: int = 0

    def span(self, video: int, first: int, count: int) -> Frames:
        """Return `count` frames from `first` on, the last one repeated past the end."""
        if video not in self.kept and self.used < self.memory:
            whole = read_frames(self.paths[video], self.pre, 0, self.frames[video])
            fits = self.used + whole.nbytes <= self.memory
            if fits:
                self.kept[video] = whole
            # Full with the first that does not fit: no other is decoded in vain.
            self.used = self.used + whole.nbytes if fits else self.memory
        if video in self.kept:
            frames = self.kept[video][first : first + count]
        else:
            frames = read_frames(self.paths[video], self.pre, first, count)
        missing = count - len(frames)
        return np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])


@dataclass(frozen=True)
class TrainingClips(Dataset[Any]):
    """Clips cropped and mirrored at random; an item is a batch, asked for by draws.

    `labels` are of the clips, (clips,).
    """

    footage: Footage
    table: ClipTable
    labels: NDArray[np.int64]
    mirror: bool
    seed: int

    def __getitem__(self, draws: Sequence[Draw]) -> Batch | AqaError:
        """Return a batch, its labels those of its videos, or why there is none."""
        clips = []
        crop = self.footage.pre.crop
        try:
            for draw in draws:
                video, start = self.table.video[draw.clip], self.table.start[draw.clip]
                frames = self.footage.span(int(video), int(start), CLIP)
                spare = (frames.shape[1] - crop, frames.shape[2] - crop)
                drawn = window(draw, spare, self.mirror, self.seed)
                clips.append(_crop(frames, drawn, crop))
        except AqaError as error:
            return error
        return np.stack(clips), self.labels[[draw.clip for draw in draws]]


@dataclass(frozen=True)
class TestClips(Dataset[Any]):
    """Clips cropped as at extraction; an item is some of them, asked for by index."""

    footage: Footage
    table: ClipTable

    def __getitem__(self, clips: Sequence[int]) -> Batch | AqaError:
        """Return a batch and the videos that its clips are of, or why there is none.

        Clips of one video that follow one another are decoded together.
        """
        pre, cropped = self.footage.pre, []
        try:
            for video, group in groupby(clips, key=self.table.video.__getitem__):
                starts = self.table.start[list(group)]
                length = int(starts[-1] - starts[0]) + CLIP
                frames = self.footage.span(int(video), int(starts[0]), length)
                drawn = Window(*pre.corner(*frames.shape[1:3]), False)
                for begin in starts - starts[0]:
                    clip = frames[begin : begin + CLIP]
                    cropped.append(_crop(clip, drawn, pre.crop))
        except AqaError as error:
            return error
        return np.stack(cropped), self.table.video[list(clips)]


def load_batches(
    clips: TrainingClips | TestClips, asked: Iterable[Any], workers: int
) -> Iterator[Batch]:
    """Yield the batches that are asked for, in that order, made by worker processes.

    Raises:
        AqaError: naming the video that could not be decoded; or if a process died or
            got stuck, although every video was looked through before.
    """
    loader: Iterable[Any] = DataLoader(
        clips,
        batch_size=None,
        sampler=asked,
        num_workers=workers,
        multiprocessing_context=_context() if workers else None,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_interrupts,
        timeout=Limits.seconds if workers else 0,
    )
    try:
        for batch in loader:
            if isinstance(batch, AqaError):
                raise batch
            yield batch
    except RuntimeError as error:
        if not str(error).startswith("DataLoader"):
            raise
        raise AqaError(f"a decoding process died ({str(error)[:120]})") from None


def _context() -> BaseContext:
    """Where processes come from: a server that has imported torch and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _leave_interrupts(_: int) -> None:
    """Leave Ctrl-C to the caller, who has a step to finish and to save."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def worker_count(workers: int | None) -> int:
    """Decoding processes for `workers`; None: all processors but one, at least one."""
    return max(1, (os.cpu_count() or 1) - 1) if workers is None else max(0, workers)


def _as_it_is(item: Any) -> Any:
    """Leave NumPy's arrays alone: they cross processes without shared memory."""
    return item


def _crop(frames: Frames, drawn: Window, crop: int) -> Frames:
    """Cut a window, the same for all frames: (16, h, w, 3) -> (16, crop, crop, 3)."""
    top, left, mirrored = drawn
    part = frames[:, top : top + crop, left : left + crop]
    return part[:, :, ::-1] if mirrored else part
