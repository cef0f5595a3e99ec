"""Read one numeric matrix of a MATLAB file of any version.

Conventions: files are untrusted and are read in a child process with limits
(`aqa.cache.sandbox`): versions 4 and 5 by SciPy, version 7.3, which is HDF5 and holds
matrices transposed, by h5py. Both are imported at the top, so that children share
what their server has loaded. Only plain real numbers are accepted.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from aqa.cache.errors import AqaError, brief
from aqa.cache.sandbox import Limits, call

#: Larger files are no lists of videos, whose released ones have 3 kB.
MAX_BYTES = 1 << 20
_LIMITS = Limits(seconds=20, memory=1 << 28)
_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_matrix(path: Path, variable: str) -> NDArray[np.float64]:
    """Return the matrix `variable` of a file as float64.

    Raises:
        AqaError: no MATLAB file, no such variable, or not finite real numbers; names
            the file.
    """
    if (size := path.stat().st_size) > MAX_BYTES:
        raise AqaError(f"{path.name}: expected a list of some kB, found {size} bytes")
    try:
        matrix = call(_load, path, variable, limits=_LIMITS)
    except AqaError as error:
        raise type(error)(f"{path.name}: {error}") from error
    if not np.isfinite(matrix).all():
        raise AqaError(f"{path.name}: expected {variable} to hold finite real numbers")
    return matrix


def _load(path: Path, variable: str) -> NDArray[np.float64]:
    """Read the matrix; AqaErrors do not name the file."""
    with path.open("rb") as file:
        head = file.read(520)
    if _HDF5 in (head[:8], head[512:]):
        try:
            with h5py.File(path) as opened:
                # Links and external storage would read other files.
                links = {name: opened.get(name, getlink=True) for name in opened}
                found: dict[str, Any] = dict.fromkeys(links)
                hard = isinstance(links.get(variable), h5py.HardLink)
                stored = opened[variable] if hard else None
                if isinstance(stored, h5py.Dataset) and not stored.external:
                    found[variable] = np.asarray(stored[()]).T
        except (OSError, RuntimeError) as error:
            raise AqaError(f"not a sound MATLAB 7.3 file ({brief(error)})") from None
    else:
        try:
            found = loadmat(path, variable_names=[variable])
            if variable not in found:
                found = loadmat(path)
        # Damaged files raise exceptions of many kinds.
        except Exception as error:
            reason = brief(f"{type(error).__name__}: {error}")
            raise AqaError(
                f"not a MATLAB file of version 4, 5 or 7.3 ({reason})"
            ) from None
    if variable not in found:
        names = ", ".join(brief(name) for name in sorted(found) if name[:2] != "__")
        raise AqaError(f"expected a variable {variable}, found {names or 'nothing'}")
    matrix = found[variable]
    if not isinstance(matrix, np.ndarray) or matrix.dtype.kind not in "iuf":
        kind = matrix.dtype if isinstance(matrix, np.ndarray) else type(matrix).__name__
        raise AqaError(f"expected {variable} to be a matrix of numbers, found {kind}")
    return matrix.astype(np.float64)
