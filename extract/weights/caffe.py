"""What Caffe stores in `.caffemodel` and `.binaryproto` files, of both generations.

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
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from aqa.extract.weights.protobuf import (
    BYTES,
    VARINT,
    Field,
    WireError,
    fields,
    packed_varints,
)

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
