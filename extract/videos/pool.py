"""Decode videos in worker processes, ahead of the network.

Conventions: results come in the order of the videos. A video that crashes its worker,
hangs or exceeds its memory limit gives a VideoError for that video only, and the worker
is replaced. Frames come back in shared memory, in a fixed number of slots: that bounds
how far ahead videos are decoded and the memory that this takes.

Workers are forked from a server process that has imported torch and FFmpeg and has done
nothing else: they start quickly and inherit neither threads nor the GPU. They compute
on one thread and end with the process that started them, however that ends.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import c_ubyte
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pebble import ProcessExpired, ProcessPool

from aqa.cache.errors import AqaError
from aqa.cache.processes import (
    exit_cause,
    exit_with_parent,
    limit_memory,
    usable_processors,
)
from aqa.extract.config import ClipConfig, Limits
from aqa.extract.datasets.dataset import Video
from aqa.extract.preprocessing import Preprocessing
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.video import LIMITS, Decoded, decode

#: Slots per worker: a video in work, one done and one to follow.
AHEAD = 3
#: How many pools in a row may die without finishing a video, before giving up.
MAX_BROKEN = 3

_slots: npt.NDArray[np.uint8]


def decode_all(
    videos: Iterable[Video],
    pre: Preprocessing,
    config: ClipConfig,
    *,
    workers: int | None = None,
    allow_damaged: bool = False,
    limits: Limits = LIMITS,
    start: float | None = None,
    end: float | None = None,
    decoder: Callable[..., Decoded] = decode,
) -> Generator[tuple[Video, Decoded | VideoError]]:
    """Yield each video with its frames, or with the reason why it has none, in order.

    `workers` None: one fewer than the usable processors, at least one. `start` and
    `end` are as in `decode`, and so are the arguments of `decoder`. Closing the
    iterator ends the workers.

    Raises:
        AqaError: workers die before they do anything, whatever the video.
    """
    options = {
        "config": config,
        "limits": limits,
        "allow_damaged": allow_damaged,
        "start": start,
        "end": end,
    }
    workers = workers or max(usable_processors() - 1, 1)
    pool = _Pool(workers, (config.length, pre.crop, pre.crop, 3), limits)
    try:
        for video in videos:
            if not pool.free:
                yield pool.oldest()
            pool.submit(video, (decoder, video.path, pre, options))
        while pool.tasks:
            yield pool.oldest()
    finally:
        pool.stop()


def _prepare(shared: Any, size: int, memory: int) -> None:
    """Set up a new worker; `memory` bytes are what a video may add to it."""
    global _slots
    _slots = np.frombuffer(shared, np.uint8).reshape(-1, size)
    torch.set_num_threads(1)
    exit_with_parent()
    limit_memory(memory)


def _work(
    slot: int,
    decoder: Callable[..., Decoded],
    path: Path,
    pre: Preprocessing,
    options: dict[str, Any],
) -> tuple[tuple[int, ...], Decoded]:
    """Decode one video into a slot; return the shape of its frames, and the rest.

    Raises:
        VideoError: with whatever went wrong.
    """
    try:
        decoded = decoder(path, pre, **options)
    except VideoError:
        raise
    except AqaError as error:
        raise VideoError(f"{path}: {error}") from error
    except Exception as error:
        # torch has no MemoryError; any other error is a file that found a gap in the
        # checks of FFmpeg or of this package, and must not end the run.
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise VideoError(f"{path}: needs more memory than it may take") from error
        raise VideoError(f"{path}: {type(error).__name__}: {error}") from error
    _slots[slot, : decoded.frames.size] = decoded.frames.ravel()
    return decoded.frames.shape, replace(decoded, frames=np.empty(0, np.uint8))


@dataclass
class _Task:
    """One video in one slot; `future` is None where no pool would take it."""

    video: Video
    arguments: tuple[Any, ...]
    slot: int
    future: Any = None


class _Pool:
    """Workers, replaced as they die, and the shared memory they return frames in."""

    def __init__(self, workers: int, shape: tuple[int, ...], limits: Limits) -> None:
        """Start the workers; `shape` is that of the largest result."""
        self._context: Any = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._workers, self._limits, self._size = workers, limits, int(np.prod(shape))
        slots = workers * AHEAD
        # Nameless, so that nothing is left behind whichever process is killed.
        self._shared = self._context.RawArray(c_ubyte, slots * self._size)
        self._frames = np.frombuffer(memoryview(self._shared), np.uint8)
        self.free = list(range(slots))
        #: In the order of the videos.
        self.tasks: deque[_Task] = deque()
        self._broken = 0
        self._pool = self._new_pool()

    def submit(self, video: Video, arguments: tuple[Any, ...]) -> None:
        """Take a free slot and queue a video for it."""
        self.tasks.append(_Task(video, arguments, self.free.pop()))
        self._schedule(self.tasks[-1])

    def oldest(self) -> tuple[Video, Decoded | VideoError]:
        """Wait for the first video that is queued and free its slot."""
        while not self._finished(self.tasks[0]):
            self._replace_pool()
        task = self.tasks.popleft()
        self.free.append(task.slot)
        self._broken = 0
        return task.video, self._result(task)

    def _result(self, task: _Task) -> Decoded | VideoError:
        path = task.video.path
        try:
            shape: tuple[int, ...]
            decoded: Decoded
            shape, decoded = task.future.result()
        except TimeoutError:
            seconds = f"{self._limits.seconds:g}"
            return VideoError(f"{path}: takes longer than {seconds} s to decode")
        except ProcessExpired as error:
            cause = exit_cause(error.exitcode)
            return VideoError(f"{path}: the decoder crashed ({cause})")
        except VideoError as error:
            return error
        begin = task.slot * self._size
        frames = self._frames[begin : begin + int(np.prod(shape))]
        return replace(decoded, frames=frames.reshape(shape).copy())

    def stop(self) -> None:
        """End all workers, whatever they are doing."""
        self._pool.stop()
        self._pool.join()

    def _new_pool(self) -> Any:
        return ProcessPool(
            self._workers,
            initializer=_prepare,
            initargs=(self._shared, self._size, self._limits.memory),
            context=self._context,
        )

    def _schedule(self, task: _Task) -> None:
        try:
            task.future = self._pool.schedule(
                _work,
                (task.slot, *task.arguments),
                timeout=self._limits.seconds,
            )
        except RuntimeError:  # the pool broke a moment ago
            task.future = None

    def _finished(self, task: _Task) -> bool:
        """Wait until a task has an outcome; return False if its pool broke instead."""
        while task.future is not None:
            if wait([task.future], timeout=1).done:
                return not isinstance(task.future.exception(), BrokenProcessPool)
            if not self._pool.active:
                return False
        return False

    def _replace_pool(self) -> None:
        """Start a new pool with all that the broken one left undone.

        A pool breaks when a worker is killed that has no video in hand: a worker that
        crashes over a video costs that video only.
        """
        self.stop()
        self._broken += 1
        if self._broken > MAX_BROKEN:
            raise AqaError(
                f"expected decoding processes to start, found that they died "
                f"{self._broken} times; is there memory for {self._workers} of them, "
                "and does the script that calls this work under `if __name__ == "
                '"__main__":`?'
            )
        self._pool = self._new_pool()
        for task in self.tasks:
            done = task.future is not None and task.future.done()
            if not done or isinstance(task.future.exception(), BrokenProcessPool):
                self._schedule(task)
