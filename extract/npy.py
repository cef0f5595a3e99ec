"""Arrays in .npy files from strangers: numbers only, never more than is there.

Conventions: what a header promises is compared with the size of the file, and with
what the caller takes, before anything is allocated. Objects, which would have to be
unpickled, are refused. NumPy's own readers let any kind of exception through.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa.cache.errors import AqaError

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(path: Path, most: int) -> NDArray[Any]:
    """Read at most `most` whole or floating-point numbers, of any shape without a 0.

    Raises:
        AqaError: the file holds something else, or not what its header says.
    """
    with path.open("rb") as file:
        try:
            shape, fortran, kind = _HEADERS[np.lib.format.read_magic(file)](file)
        # The header is a Python literal, and literals fail in many ways.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise AqaError(f"{path}: not a sound .npy file ({reason})") from None
        if kind.kind not in "fiu":
            raise AqaError(f"{path}: expected numbers, found {kind}")
        count = math.prod(shape)
        left = path.stat().st_size - file.tell()
        if min(shape, default=1) < 1 or count * kind.itemsize != left:
            raise AqaError(f"{path}: says {shape} of {kind}, has {left} bytes")
        if count > most:
            raise AqaError(f"{path}: expected at most {most} numbers, found {shape}")
        numbers = np.fromfile(file, kind, count)
    return numbers.reshape(shape, order="F" if fortran else "C")
