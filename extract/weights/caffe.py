"""The protobuf wire format, read and never trusted.

Conventions: a message is a `memoryview` of bytes, and so are its parts, so that
nothing is copied and a memory-mapped file stays on disk until its numbers are
taken. A field is its number, its wire type and its value: an int for `VARINT`, a
view for the three others (raw little-endian bytes for `FIXED64` and `FIXED32`).
Every length is checked against the bytes that are there before it is used.

Source: https://protobuf.dev/programming-guides/encoding (written from the format's
description; no schema compiler is needed for the few messages that Caffe stores).

What Caffe stores in `.caffemodel` and `.binaryproto` files, of both generations.

Conventions: a blob is a shape and its numbers, C order; a convolution's weight is
(out, in, time, height, width), which is torch's order too, and an inner product's
is (out, in): nothing is ever permuted. Blobs are views into the file's bytes until
`Blob.array` copies one out, so a memory-mapped file of 320 MB costs what is taken
from it and no more.

The two generations number the parts of a blob differently. C3D 1.0 (the "old" one)
has num, channels, length, height, width, data, diff = 1 .. 7; Caffe proper, C3D 1.1
and video-caffe have num, channels, height, width, data, diff, shape = 1 .. 7 and
double_data = 8. Field 5 tells: an integer (width) is old, bytes (data) is new. A
reader that does not ask misreads old files in silence.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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


#: A mean cube or a convolution's weight has five axes; no blob here has more.
MOST_AXES = 5
#: Parts of a blob (C3D's have 8), blobs of a layer (2), layers of a net (9): what is
#: kept of a file is bounded, however small the pieces that it is cut into.
MOST_PARTS, MOST_BLOBS, MOST_LAYERS = 32, 16, 1024

# Field numbers. V1: `layers` of both generations; V2: `layer` of later Caffe.
_NET_LAYERS_V1, _NET_LAYERS_V2 = 2, 100
_LAYER = {_NET_LAYERS_V1: (4, 6), _NET_LAYERS_V2: (1, 7)}  # (name, blobs)
_OLD_AXES = (1, 2, 3, 4, 5)  # num, channels, length, height, width
_OLD_DATA = 6
_NEW_AXES = (1, 2, 7777, 3, 4)  # the same five; video-caffe's length is 7777
_NEW_DATA, _NEW_SHAPE, _NEW_DOUBLES = 5, 7, 8
_KNOWN = {*range(1, 9), 7777}


@dataclass(frozen=True)
class Blob:
    """One array as it lies in the file: `chunks` hold little-endian `dtype`."""

    shape: tuple[int, ...]
    generation: str
    dtype: str
    chunks: tuple[memoryview, ...] = field(repr=False)

    def array(self) -> NDArray[np.float32]:
        """Return the numbers in `shape`: a copy of one's own, aligned."""
        whole = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        numbers = np.frombuffer(whole, dtype=self.dtype)
        return numbers.astype(np.float32).reshape(self.shape)


@dataclass(frozen=True)
class CaffeModel:
    """A network's trained layers by name, in file order, each a list of blobs."""

    generation: str
    layers: Mapping[str, tuple[Blob, ...]]


def read_model(message: memoryview) -> CaffeModel:
    """Read a NetParameter: the layers that have blobs, weights first, biases second.

    Raises:
        WireError: if it is no such message, lengths lie, or two layers share a name.
    """
    layers: dict[str, tuple[Blob, ...]] = {}
    for part in fields(message):
        if part.number not in _LAYER or part.wire != BYTES:
            continue
        name, blobs = _read_layer(part.message(), *_LAYER[part.number])
        if not blobs:
            continue
        if name in layers:
            raise WireError(f"two layers are named {name!r}")
        if len(layers) == MOST_LAYERS:
            raise WireError(f"more than {MOST_LAYERS} layers")
        layers[name] = blobs
    generations = {blob.generation for blobs in layers.values() for blob in blobs}
    if len(generations) != 1:
        raise WireError(
            "no layer with trained numbers"
            if not generations
            else "blobs of both generations of Caffe in one file"
        )
    return CaffeModel(generations.pop(), layers)


def _read_layer(
    message: memoryview, name_field: int, blobs_field: int
) -> tuple[str, tuple[Blob, ...]]:
    name, blobs = "", list[Blob]()
    for part in fields(message):
        if part.number == name_field and part.wire == BYTES:
            name = part.text()
        elif part.number == blobs_field and part.wire == BYTES:
            if len(blobs) == MOST_BLOBS:
                raise WireError(f"a layer with more than {MOST_BLOBS} blobs")
            blobs.append(read_blob(part.message()))
    return name, tuple(blobs)


def read_blob(message: memoryview) -> Blob:
    """Read a BlobProto, told apart by its field 5.

    Raises:
        WireError: if the shape does not agree with how many numbers there are.
    """
    known = (part for part in fields(message) if part.number in _KNOWN)
    parts = list(islice(known, MOST_PARTS))
    if next(known, None):
        raise WireError(f"a blob in more than {MOST_PARTS} parts")
    old = any(part.number == 5 and part.wire == VARINT for part in parts)
    if old:
        shape = _five_axes(parts, _OLD_AXES)
        dtype, chunks = "<f4", _data(parts, _OLD_DATA)
    else:
        shape = _stated_shape(parts) or _five_axes(parts, _NEW_AXES)
        dtype, chunks = "<f4", _data(parts, _NEW_DATA)
        if not chunks:
            dtype, chunks = "<f8", _data(parts, _NEW_DOUBLES)
    size = sum(map(len, chunks))
    if size != math.prod(shape) * np.dtype(dtype).itemsize:
        raise WireError(f"a blob of shape {shape} has {size} bytes of {dtype} numbers")
    return Blob(shape, "old" if old else "new", dtype, chunks)


def _data(parts: list[Field], number: int) -> tuple[memoryview, ...]:
    """Return the bytes of a packed field of numbers, in one part or several."""
    return tuple(part.view() for part in parts if part.number == number)


def _five_axes(parts: list[Field], numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes stored one by one; an absent or zero one counts as 1."""
    stored = {part.number: part.integer() for part in parts if part.number in numbers}
    return tuple(stored.get(number) or 1 for number in numbers)


def _stated_shape(parts: list[Field]) -> tuple[int, ...]:
    """Return BlobShape's axes, () where there is none."""
    shape: list[int] = []
    for part in parts:
        if part.number == _NEW_SHAPE:
            for dim in fields(part.message()):
                if dim.number == 1:
                    packed = dim.wire == BYTES
                    shape += (
                        packed_varints(dim.view(), MOST_AXES)
                        if packed
                        else [dim.integer()]
                    )
                    if len(shape) > MOST_AXES:
                        raise WireError(f"a blob with more than {MOST_AXES} axes")
    return tuple(shape)
