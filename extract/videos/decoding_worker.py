"""The other side of `aqa.extract.videos.decoding`: what happens in a worker process.

Conventions: a worker computes on one thread, writes frames into its slot of the
shared memory and answers with their shape and the rest of `Decoded`. Whatever goes
wrong inside is answered as a `VideoError`; what goes wrong with the process itself
is the caller's to notice.
"""

import os
import re
import resource
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from aqa.cache.errors import AqaError
from aqa.extract.preprocessing import Preprocessing
from aqa.extract.videos.video import Decoded, VideoError

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
        wait([parent.sentinel])
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
