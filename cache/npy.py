"""Arrays in .npy files from strangers: numbers only, never more than is there.

Conventions: what a header promises is compared with the bytes that follow it, and with
what the caller takes. Objects, which would have to be unpickled, are refused. NumPy's
own readers let any kind of exception through.
"""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from aqa.cache.errors import AqaError, brief

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
#: Bytes of the longest header, and of the widest number.
_HEADER, _WIDEST = 2**16, 16


def read_npy(path: Path, most: int) -> NDArray[Any]:
    """Read at most `most` whole or floating-point numbers, of any shape without a 0.

    Raises:
        AqaError: the file holds something else, or not what its header says.
    """
    if (size := path.stat().st_size) > most * _WIDEST + _HEADER:
        raise AqaError(f"{path}: expected at most {most} numbers, found {size} bytes")
    try:
        numbers = parse_npy(path.read_bytes())
    except AqaError as error:
        raise AqaError(f"{path}: {error}") from error
    if numbers.size > most:
        raise AqaError(
            f"{path}: expected at most {most} numbers, found {numbers.shape}"
        )
    return numbers


def parse_npy(data: bytes) -> NDArray[Any]:
    """View the numbers in the bytes of a file; AqaErrors do not name it."""
    file = io.BytesIO(data)
    try:
        shape, fortran, kind = _HEADERS[npy.read_magic(file)](file)
    # The header is a Python literal, and literals fail in many ways.
    except Exception as error:
        reason = brief(f"{type(error).__name__}: {error}", 200)
        raise AqaError(f"not a sound .npy file ({reason})") from None
    if kind.kind not in "fiu":
        raise AqaError(f"expected numbers, found {kind}")
    values = memoryview(data)[file.tell() :]
    if min(shape, default=1) < 1 or math.prod(shape) * kind.itemsize != len(values):
        raise AqaError(f"says {shape} of {kind}, has {len(values)} bytes")
    return np.frombuffer(values, kind).reshape(shape, order="F" if fortran else "C")
