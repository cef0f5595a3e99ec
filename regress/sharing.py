"""Arrays that training processes share: held once, however many read them.

Conventions: the memory is a file without a name in the temporary folder ($TMPDIR),
mapped by every process: it is gone when the last of them ends, however it ends, and
needs no room in /dev/shm, which containers keep small.
"""

import mmap
import os
import tempfile
from multiprocessing import reduction
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from aqa.cache.errors import AqaError


class SharedArray:
    """A writable array of zeros of the given shape and type, on a mapped file.

    Handed to a process by multiprocessing, it is the same memory there.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> None:
        """Take room for the array; `AqaError` where there is none."""
        bytes_needed = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        with tempfile.TemporaryFile() as file:
            try:
                # Room is taken now: a full disk is an error here, a crash later.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, bytes_needed)
                else:
                    file.truncate(bytes_needed)
            except OSError as error:
                raise AqaError(
                    f"no room for {bytes_needed / 2**20:.0f} MiB in "
                    f"{tempfile.gettempdir()} ({error.strerror}): "
                    "set TMPDIR to a folder with more"
                ) from error
            self._map(os.dup(file.fileno()), shape, np.dtype(dtype).str)

    def _map(self, file: int, shape: tuple[int, ...], dtype: str) -> None:
        self._file = file
        # The array keeps the mapping alive, and may outlive this object.
        memory = mmap.mmap(file, 0)
        count = int(np.prod(shape))
        self.array: NDArray[Any] = np.frombuffer(memory, dtype, count).reshape(shape)

    def __del__(self) -> None:
        """Let the file go; the array keeps its mapping."""
        if hasattr(self, "_file"):
            os.close(self._file)

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the open file, not the contents."""
        file = reduction.DupFd(self._file)
        return _opened, (file, self.array.shape, self.array.dtype.str)


def share(array: NDArray[Any]) -> SharedArray:
    """Copy an array to where other processes can see it."""
    shared = SharedArray(array.shape, array.dtype)
    shared.array[...] = array
    return shared


def _opened(file: Any, shape: tuple[int, ...], dtype: str) -> SharedArray:
    shared = SharedArray.__new__(SharedArray)
    shared._map(file.detach(), shape, dtype)
    return shared
