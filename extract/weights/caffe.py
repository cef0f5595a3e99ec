"""Caffe's `.caffemodel` and `.binaryproto` files, of both generations.

Conventions: a message is a memoryview; a field is (number, value), an int for varints
and a memoryview for everything else. Arrays are in C order: convolution weights (out,
in, time, row, column) and FC weights (out, in), both as in torch. Blobs are views into
the file until `Blob.array` copies. Lengths and shapes are checked against the bytes
that are present; memory is bounded by the child process that runs this.

C3D 1.0 (the "old" generation) numbers the fields of a blob num, channels, length,
height, width, data, diff = 1 .. 7. Caffe, C3D 1.1 and video-caffe (the "new" one) have
num, channels, height, width, data, diff, shape = 1 .. 7 and double_data = 8. Field 5
distinguishes them: a varint (width) is old, bytes (data) are new.

Sources: https://protobuf.dev/programming-guides/encoding; `caffe.proto` of
facebookarchive/C3D, BVLC/caffe and chuckcho/video-caffe.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aqa.cache.errors import AqaError

#: Fields (name, blobs) of a layer: 2 is `layers` of both generations (V1), 100 is
#: `layer` of later Caffe (V2).
_LAYERS = {2: (4, 6), 100: (1, 7)}
_OLD_AXES = (1, 2, 3, 4, 5)  # num, channels, length, height, width
_OLD_DATA = 6
_NEW_AXES = (1, 2, 7777, 3, 4)  # the same five; 7777 is video-caffe's length
_NEW_DATA, _NEW_SHAPE, _NEW_DOUBLES = 5, 7, 8
_MOST_AXES = 5

Value = int | memoryview


class WireError(AqaError):
    """Bytes that are not the expected protobuf message."""


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield the fields of a message in order.

    Raises:
        WireError: at the first byte that cannot be part of a message.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0 and number:
            value, at = _varint(message, at)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, at = _varint(message, at)
        if not number or size is None or size > len(message) - at:
            raise WireError(f"byte {at}: no field of a message, or one cut short")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the unsigned integer that starts at `at`, and where it ends."""
    value = 0
    for index, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >> 64:
                break
            return value, at + index + 1
    raise WireError(f"byte {at}: an integer that does not end, or is over 64 bits")


@dataclass(frozen=True)
class Blob:
    """One array in the file; `chunks` hold little-endian numbers of `dtype`."""

    shape: tuple[int, ...]
    generation: str
    dtype: str
    chunks: list[memoryview] = field(repr=False)

    def array(self) -> NDArray[np.float32]:
        """Return the numbers in `shape`, as a copy.

        Raises:
            WireError: a number of double precision is too large for single.
        """
        whole = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        numbers = np.frombuffer(whole, dtype=self.dtype).reshape(self.shape)
        with np.errstate(over="ignore"):
            single = numbers.astype(np.float32)
        if np.any(np.isinf(single) & np.isfinite(numbers)):
            raise WireError("numbers too large for single precision")
        return single


def read_model(message: memoryview) -> tuple[str, dict[str, list[Blob]]]:
    """Return the generation of a NetParameter, and its layers' blobs by layer name.

    Layers without blobs are skipped; a layer's blobs are weights, then biases.

    Raises:
        WireError: not such a message, or two layers have the same name.
    """
    layers: dict[str, list[Blob]] = {}
    for number, value in fields(message):
        if number not in _LAYERS or isinstance(value, int):
            continue
        name, blobs = _read_layer(value, *_LAYERS[number])
        if not blobs:
            continue
        if name in layers:
            raise WireError(f"two layers are named {name!r}")
        layers[name] = blobs
    generations = {blob.generation for blobs in layers.values() for blob in blobs}
    if not generations:
        raise WireError("no layer with trained numbers")
    if len(generations) > 1:
        raise WireError("blobs of both generations of Caffe in one file")
    return generations.pop(), layers


def _read_layer(
    message: memoryview, name_field: int, blobs_field: int
) -> tuple[str, list[Blob]]:
    name, blobs = "", []
    for number, value in fields(message):
        if isinstance(value, int):
            continue
        if number == name_field:
            name = bytes(value).decode("utf-8", "replace")
        elif number == blobs_field:
            blobs.append(read_blob(value))
    return name, blobs


def read_blob(message: memoryview) -> Blob:
    """Read a BlobProto of either generation.

    Raises:
        WireError: the shape does not agree with the number of values.
    """
    parts = list(fields(message))
    old = any(number == 5 and isinstance(value, int) for number, value in parts)
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


def _data(parts: list[tuple[int, Value]], field_number: int) -> list[memoryview]:
    """Return the bytes of a packed field, which may come in several pieces."""
    chunks = []
    for number, value in parts:
        if number == field_number:
            if isinstance(value, int):
                raise WireError(f"field {number}: expected bytes, found an integer")
            chunks.append(value)
    return chunks


def _five_axes(
    parts: list[tuple[int, Value]], numbers: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the axes stored one per field; an absent or zero one counts as 1."""
    stored = dict(part for part in parts if part[0] in numbers)
    axes = []
    for number in numbers:
        axis = stored.get(number, 1)
        if not isinstance(axis, int):
            raise WireError(f"field {number}: expected an integer, found bytes")
        axes.append(axis or 1)
    return tuple(axes)


def _stated_shape(parts: list[tuple[int, Value]]) -> tuple[int, ...]:
    """Return the axes of BlobShape, () where there is none."""
    shape: list[int] = []
    for number, value in parts:
        if number != _NEW_SHAPE or isinstance(value, int):
            continue
        for axis, size in fields(value):
            if axis != 1:
                continue
            if isinstance(size, int):
                shape.append(size)
                continue
            at = 0
            while at < len(size):
                dim, at = _varint(size, at)
                shape.append(dim)
    if len(shape) > _MOST_AXES:
        raise WireError(f"a blob with more than {_MOST_AXES} axes")
    return tuple(shape)
