"""Texts of varying length in an HDF5 file, read without HDF5.

Conventions: such a text lies in a heap; in its place stands a reference of 16 bytes:
its size, the heap's address, its number there. HDF5 2.0 believes all three: a damaged
size makes it fill gigabytes with zeros, a damaged heap sends it into an endless loop.
Here both are bounded first. Layouts are those of the HDF5 file format specification,
version 1 of object headers and heaps with 8-byte addresses: what default libver writes.
Errors are AqaErrors that do not name the file.
"""

import os
import struct
from collections.abc import Iterator
from functools import lru_cache

from aqa.cache.errors import AqaError

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
