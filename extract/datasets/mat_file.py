"""The matrices of a MATLAB 5 file, read from its bytes and never beyond them.

Conventions: plain numeric matrices are read; of cells, structures, texts and the like
it is said what they are. Lengths and shapes are compared with what is there before
they are used, and a file unpacks to MOST_UNPACKED bytes at the most. SciPy's reader,
which knows every type, can be made to crash the process: hence this one.

Format: MathWorks, "MAT-File Format", level 5.
"""

import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_UNPACKED = 8 << 20

_MATRIX, _COMPRESSED = 14, 15
_INT8, _INT32, _UINT32 = 1, 5, 6
#: How values can be stored, whatever the type of the matrix: NumPy's codes.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_STORED |= {12: "i8", 13: "u8"}
_KINDS = (
    *("cell", "struct", "object", "char", "sparse", "double", "single"),
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
)
_COMPLEX, _LOGICAL = 0x800, 0x200


class MatError(ValueError):
    """What is not as the format has it, in one line."""


@dataclass(frozen=True)
class Matrix:
    """A variable as the file declares it; `kind` is MATLAB's name for its type."""

    name: str
    kind: str
    shape: tuple[int, ...]
    order: str
    stored: memoryview

    def numbers(self) -> NDArray[np.float64]:
        """Its values, of its shape. Raises MatError unless just those are there."""
        kind, values, _ = _element(self.stored, 0, self.order)
        if kind not in _STORED:
            raise MatError(f"{self.name} holds values of type {kind}")
        code = np.dtype(self.order + _STORED[kind])
        # In Python's numbers: NumPy's own product would wrap.
        if math.prod(self.shape) * code.itemsize != len(values):
            raise MatError(f"{self.name} is {self.shape}, but has {len(values)} bytes")
        numbers = np.frombuffer(values, code).astype(np.float64)
        return numbers.reshape(self.shape, order="F")


def read_matrices(data: bytes) -> dict[str, Matrix]:
    """All variables of a file by name. Raises MatError where it is not sound."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or struct.unpack_from(order + "H", data, 124)[0] != 0x100:
        raise MatError("no header of MATLAB 5")
    matrices = {}
    view, at, room = memoryview(data), 128, MOST_UNPACKED
    while at < len(view):
        kind, body, at = _element(view, at, order)
        if kind == _COMPRESSED:
            body = _unpacked(body, room)
            room -= len(body)
            kind, body, _ = _element(body, 0, order)
        if kind != _MATRIX:
            raise MatError(f"an element of type {kind} in the place of a variable")
        matrix = _matrix(body, order)
        matrices[matrix.name] = matrix
    return matrices


def _matrix(body: memoryview, order: str) -> Matrix:
    """Flags, sizes and name come first, each an element of its own."""
    flag_kind, flags, at = _element(body, 0, order)
    size_kind, sizes, at = _element(body, at, order)
    name_kind, name, at = _element(body, at, order)
    if (flag_kind, size_kind, name_kind) != (_UINT32, _INT32, _INT8) or len(flags) != 8:
        raise MatError("a variable without flags, sizes and name")
    if len(sizes) % 4 or not 8 <= len(sizes) <= 128:
        raise MatError(f"sizes of {len(sizes)} bytes")
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    if min(shape) < 0:
        raise MatError(f"a variable of shape {shape}")
    word = struct.unpack_from(order + "I", flags)[0]
    number = word & 0xFF
    kind = _KINDS[number - 1] if 1 <= number <= len(_KINDS) else f"class {number}"
    if word & _LOGICAL:
        kind = "logical"
    if word & _COMPLEX:
        kind = f"complex {kind}"
    return Matrix(bytes(name).decode("latin-1"), kind, shape, order, body[at:])


def _element(data: memoryview, at: int, order: str) -> tuple[int, memoryview, int]:
    """Type and content of the element at a place, and where the next one begins."""
    if at + 8 > len(data):
        raise MatError(f"it ends at {len(data)}, before an element")
    kind, size = struct.unpack_from(order + "II", data, at)
    if kind >> 16:  # up to four bytes lie in the tag itself
        kind, size = kind & 0xFFFF, kind >> 16
        start, following = at + 4, at + 8
        fits = size <= 4
    else:
        start = at + 8
        # All but what is compressed is filled up to a multiple of eight bytes.
        following = start + size + (0 if kind == _COMPRESSED else -size % 8)
        fits = start + size <= len(data)
    if not fits:
        raise MatError(f"an element of {size} bytes where fewer are left")
    return kind, data[start : start + size], following


def _unpacked(body: memoryview, room: int) -> memoryview:
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(body, max(room, 1))
    except zlib.error as error:
        raise MatError(f"a compressed variable is damaged ({error})") from error
    if not unpacker.eof:
        raise MatError(f"a variable is cut off, or all are over {MOST_UNPACKED} bytes")
    return memoryview(unpacked)
