"""The protobuf wire format, read and never trusted.

Conventions: a message is a `memoryview` of bytes, and so are its parts, so that
nothing is copied and a memory-mapped file stays on disk until its numbers are
taken. A field is its number, its wire type and its value: an int for `VARINT`, a
view for the three others (raw little-endian bytes for `FIXED64` and `FIXED32`).
Every length is checked against the bytes that are there before it is used.

Source: https://protobuf.dev/programming-guides/encoding (written from the format's
description; no schema compiler is needed for the few messages that Caffe stores).
"""

from collections.abc import Iterator
from typing import NamedTuple

from aqa.cache.errors import AqaError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10


class WireError(AqaError):
    """Bytes that are not a protobuf message."""


class Field(NamedTuple):
    """One field as it lies in a message."""

    number: int
    wire: int
    value: int | memoryview

    def integer(self) -> int:
        """Return the value of a varint field."""
        if not isinstance(self.value, int):
            raise WireError(f"field {self.number}: expected an integer, found bytes")
        return self.value

    def view(self) -> memoryview:
        """Return the bytes of a field that is not a varint."""
        if isinstance(self.value, int):
            raise WireError(f"field {self.number}: expected bytes, found an integer")
        return self.value

    def message(self) -> memoryview:
        """Return the bytes of a length-delimited field."""
        if self.wire != BYTES:
            raise WireError(
                f"field {self.number}: expected a message, found wire type {self.wire}"
            )
        return self.view()

    def text(self) -> str:
        """Return a string field; bytes that are not UTF-8 are replaced."""
        return bytes(self.message()).decode("utf-8", "replace")


def fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a message in their order.

    Raises:
        WireError: at the first byte that cannot be part of a message.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise WireError(f"byte {at}: field number 0 does not exist")
        if wire == VARINT:
            value, at = _varint(message, at)
            yield Field(number, wire, value)
            continue
        if wire == BYTES:
            size, at = _varint(message, at)
        elif wire in _FIXED:
            size = _FIXED[wire]
        else:
            raise WireError(f"byte {at}: wire type {wire} is not in use")
        if size > len(message) - at:
            raise WireError(
                f"field {number} says {size} bytes, {len(message) - at} are left"
            )
        yield Field(number, wire, message[at : at + size])
        at += size


def packed_varints(view: memoryview, at_most: int) -> list[int]:
    """Return the integers of a packed repeated field, refusing more than `at_most`."""
    values: list[int] = []
    at = 0
    while at < len(view):
        if len(values) == at_most:
            raise WireError(f"more than {at_most} integers where so many are the most")
        value, at = _varint(view, at)
        values.append(value)
    return values


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the unsigned integer that starts at `at`, and where it ends."""
    value = 0
    for index, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >> 64:
                break
            return value, at + index + 1
    raise WireError(f"byte {at}: an integer that does not end, or is over 64 bits")
