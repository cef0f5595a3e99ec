"""The file as HDF5 sees it while it writes: one that never fails.

HDF5 2.0 crashes the whole process when a write fails while it closes a file, which a
full disk makes happen. So writing goes through Python: the first error is kept, what
comes after it goes nowhere, and the error is raised once HDF5 is out of the way.

A file that appears whole or not at all, and the lock that orders who replaces it.

Conventions: a file is written under a temporary name in its own folder (`.NAME.*.tmp`),
fsynced, renamed over the old one, and the folder fsynced: after a crash at any instant
the name holds the old bytes or the new ones. Locks are advisory (flock on `NAME.lock`
beside the file) and fall with their process; a file that a killed process left goes
with the next exclusive lock.
"""

import errno
import fcntl
import glob
import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aqa.cache.errors import AqaError


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


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def replacing(
    path: Path, check: Callable[[Path], object] | None = None
) -> Iterator[int]:
    """Yield the descriptor of a new file that takes the place of `path` at the end.

    `check` may read it back before that, under its temporary name. Missing folders are
    made. When the body or any step fails, `path` stays as it was and the temporary
    file goes; an OSError comes out as AqaError. Durable on return.
    """
    with _named(path, "cannot be written"):
        make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            try:
                yield descriptor
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if check is not None:
                check(temporary)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there; AqaError where the system refuses."""
    with _named(path, "cannot be removed"):
        path.unlink(missing_ok=True)


def remove_orphans(folder: Path, name: str | None = None) -> None:
    """Remove what killed writers of the file `name` (of any) have left in `folder`.

    Call it only while no writer can be at work there.
    """
    pattern = "*" if name is None else glob.escape(name)
    for orphan in folder.glob(f".{pattern}.{'[0-9a-f]' * 16}.tmp"):
        remove(orphan)


@contextmanager
def locked(path: Path, *, shared: bool = False, needed: bool = True) -> Iterator[None]:
    """Hold the lock of `path`, waiting for it: many may share it, or one have it alone.

    On a file system without locks a shared hold goes on without, since it protects
    nothing but others' exclusive ones, and so does one that is not `needed`; any other
    is refused with AqaError. The folder has to be there.
    """
    lock = lock_of(path)
    descriptor = None
    with _named(lock, "cannot be locked"):
        try:
            descriptor = _acquire(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if needed and not shared:
                raise AqaError(
                    f"{path}: this file system has no locks; "
                    "merge into a cache on one that has them"
                ) from error
    try:
        yield
    finally:
        if descriptor is not None:
            # Whatever fails here, the work is done.
            with suppress(OSError):
                if not shared:
                    lock.unlink()
            with suppress(OSError):
                # Said aloud: a forked child may have the descriptor open for longer.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)


def lock_of(path: Path) -> Path:
    """The file that `locked` holds; one that is there may be a killed process's."""
    return path.with_name(path.name + ".lock")


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents, so that they outlast a crash; AqaError if not."""
    with _named(folder, "cannot be made"):
        if not folder.is_dir():
            make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            _sync_folder(folder.parent)


def _acquire(lock: Path, operation: int) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, operation)
            # Whoever held it alone removed the file: then this lock keeps nobody out.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise AqaError(f"{path}: {what}: {reason}") from error
