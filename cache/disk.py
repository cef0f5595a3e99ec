"""The file as HDF5 sees it while it writes: one that never fails.

HDF5 2.0 crashes the whole process when a write fails while it closes a file, which a
full disk makes happen. So writing goes through Python: the first error is kept, what
comes after it goes nowhere, and the error is raised once HDF5 is out of the way.
"""

import io
import os
from typing import Any


class Disk(io.FileIO):
    """A file for `h5py.File` to write, over a descriptor that stays the caller's.

    `check` raises the error that was kept, and so does the end of the `with` block,
    in place of whatever else went wrong after it.
    """

    def __init__(self, descriptor: int) -> None:
        """Write through `descriptor`, from where it stands."""
        super().__init__(descriptor, "r+b", closefd=False)
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise the first error that a write met."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any, /) -> int:
        """Write all of `data` where the file stands, or keep the error."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self._error is None and len(rest):
                rest = rest[os.write(self.fileno(), rest) :]
        except BaseException as error:  # a KeyboardInterrupt has to wait, too
            self._error = error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        """Make the file `size` bytes long, or keep the error."""
        size = self.tell() if size is None else size
        try:
            if self._error is None:
                os.ftruncate(self.fileno(), size)
        except BaseException as error:
            self._error = error
        return size

    def __exit__(self, *_: object) -> None:
        """Let go of the descriptor and raise the error that was kept."""
        self.close()
        self.check()
