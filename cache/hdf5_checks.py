"""Read an HDF5 file of unknown origin: follow nothing, trust no declared size.

Conventions: a dataset is accepted only when it lies in this very file (hard link, no
external storage, not virtual), has the type and rank asked for and no filter but
fletcher32, and when as many bytes are stored as its shape declares. HDF5 believes
whatever a file says about text of varying length (a damaged size makes it fill
gigabytes, a damaged heap sends it into an endless loop), so that is read by
`aqa.cache.processes.call` only. Errors are AqaErrors that do not name the file;
`reading(path)` around them does. What the system itself refuses (permission, a device,
memory) says nothing about the file: that is an UnreadableFile.
"""

import errno
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product, repeat
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from aqa.cache.errors import AqaError, UnreadableFile, brief

#: Longest text of a dataset, and of an attribute of fixed length, in bytes.
MAX_TEXT, MAX_ATTRIBUTE = 4096, 65536

FLOAT32 = h5py.h5t.IEEE_F32LE
FLOAT64 = h5py.h5t.IEEE_F64LE
INT32 = h5py.h5t.STD_I32LE

#: Bytes that refer to one text of varying length.
REFERENCE = 16

# What h5py and NumPy raise over bytes that make no sense.
_BROKEN = (OSError, RuntimeError, LookupError, ValueError, TypeError, OverflowError)
# What the system says of a place or a size that no file has: damage, like those.
_NOWHERE = (None, errno.EINVAL, errno.EOVERFLOW)


class VaryingText(Exception):
    """Text of varying length was found, which only a sandboxed process may read."""


@contextmanager
def reading(path: Path | None = None) -> Iterator[None]:
    """Turn every error over a file into one AqaError that begins with its name."""
    prefix = "" if path is None else f"{path}: "
    try:
        yield
    except AqaError as error:
        if str(error).startswith(prefix):
            raise
        raise type(error)(f"{prefix}{error}") from error
    except FileNotFoundError as error:
        raise AqaError(
            f"{prefix}no such file; `aqa extract` or `aqa cache import` makes a cache"
        ) from error
    except MemoryError as error:
        raise UnreadableFile(f"{prefix}cannot be read: no memory left") from error
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno not in _NOWHERE:
            reason = os.strerror(error.errno)
            raise UnreadableFile(f"{prefix}cannot be read: {reason}") from error
        reason = brief(error, 200)
        raise AqaError(f"{prefix}damaged, or not a cache: {reason}") from error


class CheckedFile:
    """An HDF5 file, open for reading until it is closed.

    With `varying`, text of varying length is read; otherwise it raises VaryingText.
    """

    def __init__(self, path: Path, *, varying: bool = False) -> None:
        """Open the file at `path`, which must be a regular one."""
        if path.exists() and not path.is_file():
            raise AqaError("not a file")
        self._file = h5py.File(path, "r", locking=False)
        self._varying = varying
        self._groups = {"": self._file}

    def close(self) -> None:
        """Close the file; nothing can be read from it after that."""
        self._file.close()

    @property
    def identity(self) -> tuple[int, int, int]:
        """Device, number and time of change of the open file."""
        found = os.fstat(self._file.id.get_vfd_handle())
        return found.st_dev, found.st_ino, found.st_mtime_ns

    def attribute(self, name: str, group: str = "") -> str | int | None:
        """Return an attribute: one text, one whole number, None where it is missing."""
        owner = self._group(group)
        if not h5py.h5a.exists(owner.id, name.encode()):
            return None
        attribute = h5py.h5a.open(owner.id, name.encode())
        kind = attribute.get_type()
        text = isinstance(kind, h5py.h5t.TypeStringID)
        plain = text or isinstance(kind, h5py.h5t.TypeIntegerID)
        if attribute.shape != () or not plain or kind.get_size() > MAX_ATTRIBUTE:
            raise AqaError(f"attribute {name} is neither one text nor one whole number")
        if text and kind.is_variable_str() and not self._varying:
            raise VaryingText
        value = owner.attrs[name]
        if isinstance(value, bytes):
            value = value.decode()
        if text and len(value) > MAX_ATTRIBUTE:
            raise AqaError(f"attribute {name} has more than {MAX_ATTRIBUTE} bytes")
        return str(value) if text else int(value)

    def members(self, group: str, known: set[str] | None, most: int = 64) -> list[str]:
        """Return the sorted names in a group; none must be unknown, or above `most`."""
        opened = self._group(group)
        if known is not None:
            most = len(known)
        if len(opened) > most or (known is not None and not known.issuperset(opened)):
            beside = f", beside {', '.join(sorted(known))}" if known else ""
            raise AqaError(
                f"{group or 'the file'} has members that no cache has{beside}"
            )
        return sorted(opened)

    def dataset(self, name: str, kind: Any, rank: int) -> Any:
        """Return a dataset of FLOAT32, FLOAT64 or INT32 that is safe to read."""
        dataset = self._find(name, h5py.Dataset, rank)
        if not dataset.id.get_type().equal(kind):
            raise AqaError(f"{name} is {dataset.dtype}, not {kind.dtype}")
        self._require_whole(dataset, kind.get_size())
        return dataset

    def texts(self, name: str) -> list[str]:
        """Read a column of UTF-8 texts."""
        column = self._find(name, h5py.Dataset, rank=1)
        kind = column.id.get_type()
        if not isinstance(kind, h5py.h5t.TypeStringID):
            raise AqaError(f"{name} is {column.dtype}, not text")
        varying = kind.is_variable_str()
        size = REFERENCE if varying else kind.get_size()
        if size > MAX_TEXT:
            raise AqaError(f"{name} has texts of {size} bytes, above {MAX_TEXT}")
        self._require_whole(column, size)
        if varying and not self._varying:
            raise VaryingText
        texts: list[bytes] = column[:].tolist()
        if (longest := max(map(len, texts), default=0)) > MAX_TEXT:
            raise AqaError(f"{name} has texts of {longest} bytes, above {MAX_TEXT}")
        return [text.decode() for text in texts]

    def _group(self, name: str) -> Any:
        if name not in self._groups:
            self._groups[name] = self._find(name, h5py.Group)
        return self._groups[name]

    def _find(self, name: str, kind: type, rank: int | None = None) -> Any:
        folder, _, own = name.rpartition("/")
        parent = self._group(folder)
        link = parent.get(own, getlink=True)
        if link is None:
            raise AqaError(f"{name} is missing")
        if not isinstance(link, h5py.HardLink):
            target = f"{getattr(link, 'filename', '')} {link.path}"
            raise AqaError(f"{name} is a {type(link).__name__} to {target!r}")
        member = parent[own]
        if not isinstance(member, kind):
            raise AqaError(f"{name} is no {kind.__name__.lower()}")
        if rank is not None:
            _require_plain(member, name, rank)
        return member

    def _require_whole(self, dataset: Any, size: int) -> None:
        """Raise AqaError unless all values, of `size` bytes each, are in the file.

        HDF5 fills in zeros for a missing chunk, reads beyond one that is too short,
        and allocates what a shape declares.
        """
        shape, end = dataset.shape, self._file.id.get_filesize()
        declared = math.prod(shape) * size
        if declared > end:
            raise AqaError(
                f"{dataset.name} declares {shape}, {declared} bytes; the file has {end}"
            )
        stored: dict[tuple[int, ...], int | None] = {}
        starts = [range(1)]
        length = declared
        if dataset.chunks:
            checksums = 4 * dataset.id.get_create_plist().get_nfilters()
            length = math.prod(dataset.chunks) * size + checksums
            starts = list(map(range, repeat(0), shape, dataset.chunks))

            def note(chunk: Any) -> None:
                if chunk.filter_mask == 0 and chunk.size == length:
                    stored[chunk.chunk_offset] = chunk.byte_offset

            dataset.id.chunk_iter(note)
        elif dataset.id.get_storage_size() == length:
            stored[(0,)] = dataset.id.get_offset()
        # Counted before any is listed: a shape may promise a million times the file.
        if len(stored) >= math.prod(map(len, starts)):
            places = (stored.get(start, end) or end for start in product(*starts))
            if all(place + length <= end for place in places):
                return
        raise AqaError(f"{dataset.name} is not stored whole: {shape}")


def _require_plain(dataset: Any, name: str, rank: int) -> None:
    layout = dataset.id.get_create_plist()
    # The layout comes before the shape: asking for that of a virtual dataset may
    # already open the files it draws on.
    if layout.get_layout() == h5py.h5d.VIRTUAL:
        raise AqaError(f"{name} is virtual: its values lie in other files")
    if layout.get_external_count():
        raise AqaError(f"{name} is stored outside, in {layout.get_external(0)[0]!r}")
    for index in range(layout.get_nfilters()):
        if (code := layout.get_filter(index)[0]) != h5py.h5z.FILTER_FLETCHER32:
            raise AqaError(f"{name} uses filter {code}; only fletcher32 is read")
    if dataset.shape is None or len(dataset.shape) != rank:
        raise AqaError(f"{name} has shape {dataset.shape}; expected {rank} dimensions")
    if dataset.chunks and any(np.greater(dataset.chunks, dataset.shape)):
        raise AqaError(f"{name} has chunks {dataset.chunks} beyond {dataset.shape}")
