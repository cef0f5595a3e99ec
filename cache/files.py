"""Files that appear whole or not at all, locks, and what HDF5 writes through.

Conventions: a file is written under a temporary name in its own folder (`.NAME.*.tmp`),
fsynced, renamed over the old one, and the folder fsynced: after a crash at any instant
the name holds the old bytes or the new ones. Locks are advisory (flock on `NAME.lock`
beside the file) and end with their process; the temporary file of a killed process is
removed under the next exclusive lock.
"""

import errno
import fcntl
import glob
import hashlib
import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from aqa.cache.errors import AqaError


class Disk(io.FileIO):
    """A file for `h5py.File` to write, over a descriptor that stays the caller's.

    HDF5 2.0 crashes the process when a write fails while it closes a file, as on a full
    disk. So to HDF5 no write fails: the first error is kept, nothing is written after
    it, and `check` and the end of the `with` block raise it.
    """

    def __init__(self, descriptor: int) -> None:
        """Write through `descriptor`, from its current position."""
        super().__init__(descriptor, "r+b", closefd=False)
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise the first error that a write met."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any, /) -> int:
        """Write all of `data` at the current position, or keep the error."""
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
        """Release the descriptor and raise the error that was kept."""
        self.close()
        self.check()


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def replacing(
    path: Path, check: Callable[[Path], object] | None = None
) -> Iterator[BinaryIO]:
    """Yield a new file, open for writing, that replaces `path` at the end.

    `check` may read it back before that, under its temporary name. Missing folders are
    created. When the body or any step fails, `path` stays as it was and the temporary
    file is removed; an OSError becomes an AqaError. Durable on return.
    """
    with _named(path, "cannot be written"):
        make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            try:
                with open(descriptor, "wb", closefd=False) as file:
                    yield file
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


def write_file(path: Path, data: bytes | str) -> None:
    """Replace `path` by a file of `data` (text as UTF-8); AqaError when that fails."""
    encoded = data.encode() if isinstance(data, str) else data
    with replacing(path) as file:
        file.write(encoded)


def keep_inputs(out: Path, *inputs: Path) -> None:
    """Refuse to write `out` over a file that it is made from; raises AqaError."""
    for each in inputs:
        with suppress(OSError):  # one that is missing is said where it is read
            if out.samefile(each):
                raise AqaError(
                    f"{out}: is an input, and would be replaced; name another output"
                )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def user_folder() -> Path:
    """Return this package's folder in the user's cache folder; it may not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "aqa"


def remove(path: Path) -> None:
    """Remove a file, if it is there; AqaError where the system refuses."""
    with _named(path, "cannot be removed"):
        path.unlink(missing_ok=True)


def remove_orphans(folder: Path, name: str | None = None) -> None:
    """Remove temporary files that killed writers of `name` (None: any) left behind.

    Call it only while nobody can be writing in `folder`.
    """
    pattern = "*" if name is None else glob.escape(name)
    for orphan in folder.glob(f".{pattern}.{'[0-9a-f]' * 16}.tmp"):
        remove(orphan)


@contextmanager
def locked(path: Path, *, shared: bool = False, needed: bool = True) -> Iterator[None]:
    """Hold the shared or exclusive lock of `path`, waiting for it.

    On a file system without locks an exclusive lock that is `needed` is refused with
    AqaError; any other is skipped. The folder must exist.
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
            # Failures are ignored: the work is done.
            with suppress(OSError):
                if not shared:
                    lock.unlink()
            with suppress(OSError):
                # Explicitly: a forked child may hold the descriptor open for longer.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)


def lock_of(path: Path) -> Path:
    """Return the file that `locked` locks; a killed process may have left it."""
    return path.with_name(path.name + ".lock")


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents durably; AqaError when that fails."""
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
            # An exclusive holder removed the file: this lock would exclude nobody.
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


#: Bytes of each block that `probe` reads, and the number of blocks or files.
_BLOCK, _BLOCKS = 4096, 16


def probe(path: Path) -> str:
    """Return a cheap digest of a file, or of a folder's files (not of its folders).

    Of the size and of some blocks spread over the file; of a folder, of all names and
    sizes and of some files' probes. Different files of different content practically
    never share it; a file that was edited in place may keep it. Raises OSError.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if entry.is_file())
        for entry in found:
            digest.update(os.fsencode(f"{entry.name}/{entry.stat().st_size}/"))
        for entry in found[:: max(1, len(found) // _BLOCKS)]:
            digest.update(probe(entry).encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(f"{size}/".encode())
        for number in range(_BLOCKS):
            file.seek(number * max(0, size - _BLOCK) // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise AqaError(f"{path}: {what}: {reason}") from error
