"""The other side of `aqa.extract.videos.pool`: what happens in a worker process.

Conventions: a worker computes on one thread, writes frames into its slot of the
shared memory and answers with their shape and the rest of `Decoded`. Whatever goes
wrong inside is answered as a `VideoError`; what goes wrong with the process itself
is the caller's to notice.

Decoding ahead of the network, in processes that may die.

Conventions: results come in the order of the videos. A video that crashes its
worker, hangs or outgrows its memory costs a `VideoError` for that video; the worker
is replaced. Frames come back through shared memory in a fixed number of slots, which
bounds what is decoded ahead and what it takes.

Workers are forked from a server that has imported torch and FFmpeg and done nothing
else: quick to replace, and free of the caller's threads and GPU. They end with the
process that started them, however that ends.
"""

import multiprocessing
import os
import re
import resource
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import c_ubyte
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import wait as wait_for_connection
from pathlib import Path
from signal import Signals
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pebble import ProcessExpired, ProcessPool

from aqa.cache.errors import AqaError
from aqa.extract.config import ClipConfig, Limits
from aqa.extract.datasets.dataset import Video
from aqa.extract.preprocessing import Preprocessing
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.video import LIMITS, Decoded, decode

#: `Decoded`, but of its pixels the shape.
Answer = tuple[tuple[int, ...], int, tuple[str, ...], str, tuple[float, ...]]

_slots: npt.NDArray[np.uint8]


def prepare(shared: Any, size: int, memory: int) -> None:
    """Make a new process ready; `memory` bytes are what a video may add to it."""
    global _slots
    _slots = np.frombuffer(shared, np.uint8).reshape(-1, size)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit_memory(memory)


def work(
    slot: int,
    decoder: Callable[..., Decoded],
    path: Path,
    pre: Preprocessing,
    options: dict[str, Any],
) -> Answer:
    """Decode one video into a slot.

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
        # torch has no MemoryError; any other is a file that found a hole in FFmpeg's
        # or our own checks, and must not end the run.
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise VideoError(f"{path}: needs more memory than it may take") from error
        raise VideoError(f"{path}: {type(error).__name__}: {error}") from error
    _slots[slot, : decoded.frames.size] = decoded.frames.ravel()
    shape, rest = decoded.frames.shape, (decoded.total, decoded.damage)
    return shape, *rest, decoded.source_sha256, decoded.times


def _end_with_parent() -> None:
    """Exit as soon as the process that wanted the frames is gone.

    The kernel's own signal for this would not come: a worker's parent is the server
    that forked it, which lives while any worker does.
    """
    parent = parent_process()
    if parent is not None:
        wait_for_connection([parent.sentinel])
    os._exit(1)


def limit_memory(extra: int) -> None:
    """Let this process allocate `extra` bytes more than now, where the system can.

    The limit is on writable private memory; one on addresses would count torch's
    libraries, and what they reserve without using it.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # only Linux heeds such limits
        return
    if held := re.search(r"VmData:\s+(\d+) kB", status):
        most = int(held[1]) * 1024 + extra
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


#: Slots for each worker: a video in work, one done and one to follow.
AHEAD = 3
#: How many pools in a row may die without finishing a video, before giving up.
PATIENCE = 3


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
    """Each video with its frames, or with the reason why it has none, in order.

    `workers` None takes one fewer than the processors, at least one; `start` and
    `end` are as in `decode`. Closing the iterator ends the workers. `decoder` takes
    the arguments of `decode`: tests hand in one that fails.

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
    shape = (config.length, pre.crop, pre.crop, 3)
    crew = _Crew(workers or _spare_processors(), shape, limits)
    under_way: deque[tuple[Video, _Task]] = deque()
    try:
        for video in videos:
            if crew.busy:
                oldest, task = under_way.popleft()
                yield oldest, crew.result(task)
            arguments = (decoder, video.path, pre, options)
            under_way.append((video, crew.begin(video.path, arguments)))
        while under_way:
            oldest, task = under_way.popleft()
            yield oldest, crew.result(task)
    finally:
        crew.dismiss()


@dataclass
class _Task:
    """One video in one slot; `future` is None where no pool would take it."""

    path: Path
    arguments: tuple[Any, ...]
    slot: int
    future: Any = None


class _Crew:
    """A pool of workers and the shared memory that they hand frames back in."""

    def __init__(self, workers: int, shape: tuple[int, ...], limits: Limits) -> None:
        """Start nothing yet; `shape` is that of the largest result."""
        self._context = _context()
        self._workers, self._limits, self._size = workers, limits, int(np.prod(shape))
        slots = workers * AHEAD
        # Nameless, so that nothing is left behind whoever is killed.
        self._shared = self._context.RawArray(c_ubyte, slots * self._size)
        self._frames: npt.NDArray[np.uint8] = np.frombuffer(self._shared, np.uint8)
        self._free = list(range(slots))
        self._tasks: list[_Task] = []
        self._broken = 0
        self._pool = self._new_pool()

    @property
    def busy(self) -> bool:
        """Whether every slot is taken."""
        return not self._free

    def begin(self, path: Path, arguments: tuple[Any, ...]) -> _Task:
        """Take a free slot and queue a video for it."""
        task = _Task(path, arguments, self._free.pop())
        self._tasks.append(task)
        self._schedule(task)
        return task

    def result(self, task: _Task) -> Decoded | VideoError:
        """Wait for a video and give its slot free."""
        while not self._finished(task):
            self._replace_pool()
        self._tasks.remove(task)
        self._free.append(task.slot)
        self._broken = 0
        try:
            shape, *rest = task.future.result()
        except TimeoutError:
            seconds = f"{self._limits.seconds:g}"
            return VideoError(f"{task.path}: takes longer than {seconds} s to decode")
        except ProcessExpired as error:
            cause = _cause(error.exitcode)
            return VideoError(f"{task.path}: the decoder crashed ({cause})")
        except VideoError as error:
            return error
        frames = self._slot(task)[: int(np.prod(shape))].reshape(shape).copy()
        return Decoded(frames, *rest)

    def dismiss(self) -> None:
        """End all workers, whatever they are at."""
        self._pool.stop()
        self._pool.join()

    def _slot(self, task: _Task) -> npt.NDArray[np.uint8]:
        return self._frames[task.slot * self._size : (task.slot + 1) * self._size]

    def _new_pool(self) -> Any:
        return ProcessPool(
            self._workers,
            initializer=prepare,
            initargs=(self._shared, self._size, self._limits.memory),
            context=self._context,
        )

    def _schedule(self, task: _Task) -> None:
        try:
            task.future = self._pool.schedule(
                work,
                (task.slot, *task.arguments),
                timeout=self._limits.seconds,
            )
        except RuntimeError:  # the pool broke a moment ago
            task.future = None

    def _finished(self, task: _Task) -> bool:
        """Wait until a task has an outcome: False if its pool broke instead."""
        while task.future is not None:
            if wait([task.future], timeout=1).done:
                return not isinstance(task.future.exception(), BrokenProcessPool)
            if not self._pool.active:
                return False
        return False

    def _replace_pool(self) -> None:
        """Start anew with all that the broken pool left undone.

        Pools break when a worker is killed that had no video in hand: a worker
        that crashes over a video costs that video only.
        """
        self.dismiss()
        self._broken += 1
        if self._broken > PATIENCE:
            raise AqaError(
                f"expected decoding processes to start, found that they died "
                f"{self._broken} times; is there memory for {self._workers} of them, "
                "and does the script that calls this work under `if __name__ == "
                '"__main__":`?'
            )
        self._pool = self._new_pool()
        for task in self._tasks:
            done = task.future is not None and task.future.done()
            if not done or isinstance(task.future.exception(), BrokenProcessPool):
                self._schedule(task)


def _context() -> Any:
    """Where processes come from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _cause(exitcode: int) -> str:
    if exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        return Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"


def _spare_processors() -> int:
    """One for each processor that this process may use, but one for the network."""
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        processors = os.cpu_count() or 1
    return max(processors - 1, 1)
