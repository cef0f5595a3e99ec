"""Texts of varying length in an HDF5 file, read without HDF5.

Conventions: such a text lies in a heap; in its place stands a reference of 16 bytes:
its size, the heap's address, its number there. HDF5 2.0 believes all three: a damaged
size makes it fill gigabytes with zeros, a damaged heap sends it into an endless loop.
Here both are bounded first. Layouts are those of the HDF5 file format specification,
version 1 of object headers and heaps with 8-byte addresses: what default libver writes.
Errors are AqaErrors that do not name the file.

Reading an HDF5 file of unknown origin: follow nothing, believe no declared size.

Conventions: a dataset is taken only when it lies in this very file (hard link, no
external storage, not virtual), has the type and rank asked for and no filter but
fletcher32, and when as many bytes are stored as its shape declares: then reading it
allocates no more than the file's size. Errors are AqaErrors that say what was found
but do not name the file; `reading(path)` around them does, and turns whatever h5py
raises over a damaged file into one line as well. What the system itself refuses
(permission, a device, memory) says nothing about the file: that is an UnreadableFile.
"""

import errno
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import product, repeat
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from aqa.cache.errors import AqaError, UnreadableFile

#: Size of a reference to a text, and of the largest heap that is read, in bytes.
REFERENCE = 16
MAX_HEAP = 2**17

_REFERENCE = struct.Struct("<IQI")  # size, heap, number
_HEAP = struct.Struct("<4sB3xQ")  # signature, version, size
_OBJECT = struct.Struct("<HH4xQ")  # number (0: the free space), references, size
_HEADER = struct.Struct("<BxHII4x")  # version, messages, references, size
_MESSAGE = struct.Struct("<HHB3x")  # type, size, flags
_CONTINUATION, _ATTRIBUTE = 0x10, 0x0C


class Heap:
    """The texts of the file that is open as `descriptor`."""

    def __init__(self, descriptor: int) -> None:
        """Read nothing yet."""
        self._descriptor = descriptor
        self._objects = lru_cache(maxsize=64)(self._read_objects)

    def texts(self, references: bytes, limit: int) -> list[str]:
        """Return the text of each reference; none may be longer than `limit` bytes."""
        return [
            self._text(size, heap, number, limit)
            for size, heap, number in _REFERENCE.iter_unpack(references)
        ]

    def attribute(self, header: int, name: str, limit: int) -> str:
        """Return one text: an attribute of the object whose header lies at `header`."""
        for kind, message in self._messages(header):
            if kind == _ATTRIBUTE and (value := _value(message, name.encode())):
                size, heap, number = _REFERENCE.unpack_from(value)
                return self._text(size, heap, number, limit)
        raise AqaError(f"attribute {name} is not where default libver puts it")

    def _text(self, size: int, heap: int, number: int, limit: int) -> str:
        if size > limit:
            raise AqaError(f"text of {size} bytes; at most {limit} are read")
        content = self._objects(heap).get(number, b"") if size else b""
        if len(content) < size:
            raise AqaError(f"text {number} of the heap at {heap} is damaged")
        return content[:size].split(b"\0", 1)[0].decode()

    def _read_objects(self, start: int) -> dict[int, bytes]:
        data = self._read(start, MAX_HEAP)
        signature, version, size = _HEAP.unpack_from(data)
        if (signature, version) != (b"GCOL", 1) or size > len(data):
            raise AqaError(f"heap at {start} is damaged or above {MAX_HEAP} bytes")
        objects = {}
        at = _HEAP.size
        while at + _OBJECT.size <= size:
            number, _, length = _OBJECT.unpack_from(data, at)
            if number == 0:
                break
            at += _OBJECT.size
            objects[number] = data[at : at + length]
            at += (length + 7) // 8 * 8
        return objects

    def _messages(self, header: int) -> Iterator[tuple[int, bytes]]:
        version, count, _, size = _HEADER.unpack(self._read(header, _HEADER.size))
        if version != 1:
            raise AqaError(
                "texts vary in length, but headers are not those of default libver "
                "(libver='latest' or track_order=True make others)"
            )
        blocks = [(header + _HEADER.size, size)]
        for start, length in blocks:
            data = self._read(start, min(length, MAX_HEAP))
            at = 0
            while count and at + _MESSAGE.size <= len(data):
                kind, size, _ = _MESSAGE.unpack_from(data, at)
                at += _MESSAGE.size
                message = data[at : at + size]
                at += size
                count -= 1
                if kind == _CONTINUATION:
                    blocks.append(struct.unpack_from("<QQ", message))
                yield kind, message

    def _read(self, start: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, start)


def _value(message: bytes, name: bytes) -> bytes:
    """Return the value in an attribute's message; nothing if it is another's."""
    version, *sizes = struct.unpack_from("<BxHHH", message)  # of name, type and space
    at = 9 if version == 3 else 8
    if message[at : at + sizes[0]].rstrip(b"\0") != name:
        return b""
    for size in sizes:
        at += (size + 7) // 8 * 8 if version == 1 else size
    return message[at:]


#: Longest text of a dataset, and of an attribute of fixed length, in bytes.
MAX_TEXT, MAX_ATTRIBUTE = 4096, 65536

FLOAT32 = h5py.h5t.IEEE_F32LE
FLOAT64 = h5py.h5t.IEEE_F64LE
INT32 = h5py.h5t.STD_I32LE

# What h5py and NumPy raise over bytes that make no sense.
_BROKEN: tuple[type[Exception], ...] = (OSError, RuntimeError, LookupError, ValueError)
_BROKEN += (TypeError, OverflowError, struct.error)
# What the system says of a place or a size that no file has: damage, like those.
_NOWHERE = (None, errno.EINVAL, errno.EOVERFLOW)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make every error over the file at `path` one line that begins with its name."""
    try:
        yield
    except UnreadableFile:
        raise
    except AqaError as error:
        raise AqaError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise AqaError(
            f"{path}: no such file; `aqa extract` or `aqa cache import` makes a cache"
        ) from error
    except MemoryError as error:
        raise UnreadableFile(f"{path}: cannot be read: no memory left") from error
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno not in _NOWHERE:
            reason = os.strerror(error.errno)
            raise UnreadableFile(f"{path}: cannot be read: {reason}") from error
        reason = " ".join(str(error).split())[:200]
        raise AqaError(f"{path}: damaged, or not a cache: {reason}") from error


class GuardedFile:
    """An HDF5 file, open for reading."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, which must be a regular one."""
        if path.exists() and not path.is_file():
            raise AqaError("not a file")
        self._file = h5py.File(path, "r", locking=False)
        self._heap = Heap(self._file.id.get_vfd_handle())
        self._groups = {"": self._file}

    def close(self) -> None:
        """Close the file; nothing can be read from it after that."""
        self._file.close()

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
        if text and kind.is_variable_str():
            header = h5py.h5o.get_info(owner.id).addr
            return self._heap.attribute(header, name, MAX_ATTRIBUTE)
        value = owner.attrs[name]
        return value.decode() if text else int(value)

    def members(self, group: str, known: set[str]) -> set[str]:
        """Return the names in a group; AqaError when there is one that is not known."""
        opened = self._group(group)
        if len(opened) > len(known) or not known.issuperset(opened):
            raise AqaError(
                f"{group or 'the file'} has members that no cache has, beside "
                f"{', '.join(sorted(known))}"
            )
        return set(opened)

    def dataset(self, name: str, kind: Any, rank: int) -> Any:
        """Return a dataset of FLOAT32, FLOAT64 or INT32 that is safe to read."""
        dataset = self._find(name, h5py.Dataset, rank)
        if not dataset.id.get_type().equal(kind):
            raise AqaError(f"{name} is {dataset.dtype}, not {kind.dtype}")
        self._blocks(dataset, kind.get_size())
        return dataset

    def numbers(self, name: str, kind: Any) -> list[Any]:
        """Read a column of FLOAT64 or INT32."""
        values: list[Any] = self.dataset(name, kind, rank=1)[:].tolist()
        return values

    def texts(self, name: str) -> list[str]:
        """Read a column of UTF-8 texts, of fixed or varying length."""
        column = self._find(name, h5py.Dataset, rank=1)
        kind = column.id.get_type()
        if not isinstance(kind, h5py.h5t.TypeStringID):
            raise AqaError(f"{name} is {column.dtype}, not text")
        varying = kind.is_variable_str()
        size = REFERENCE if varying else kind.get_size()
        if size > MAX_TEXT:
            raise AqaError(f"{name} has texts of {size} bytes, above {MAX_TEXT}")
        blocks = self._blocks(column, size)
        if varying:
            descriptor = self._file.id.get_vfd_handle()
            raw = b"".join(os.pread(descriptor, n, place) for place, n in blocks)
            return self._heap.texts(raw[: len(column) * size], MAX_TEXT)
        return [text.decode() for text in column[:].tolist()]

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

    def _blocks(self, dataset: Any, size: int) -> list[tuple[int, int]]:
        """Return place and length of each block that holds values of `size` bytes.

        HDF5 fills in zeros for a chunk that is missing, reads beyond one that is too
        short, and allocates what a shape declares: so all must be there, and right.
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
            places = [stored.get(start, end) or end for start in product(*starts)]
            if all(place + length <= end for place in places):
                return [(place, length) for place in places]
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
