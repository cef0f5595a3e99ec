"""The train and test lists of AQA-7: MATLAB files, which may come from anywhere.

Conventions: a list is float64 (n, 3): action id 1-7, sample number from 1, score.
The authors' own lists hold scores times 100, other copies plain ones; Table 1's
ranges tell them apart, since no range meets itself times 100.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from aqa.cache.actions import ACTIONS
from aqa.cache.errors import AqaError, printable
from aqa.extract.datasets.mat_file import MatError, read_matrices

#: The released files are 3 kB; more cannot be a list, and may be a trap.
MOST_BYTES = 1 << 20
MOST_ROWS = 100_000
NUMERIC = {"double", "single"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
#: Judges' scores have at most four decimals; times 100 and back must not show.
DECIMALS = 6


def read_split_list(path: Path, variable: str) -> npt.NDArray[np.float64]:
    """Rows (action id, sample number, score as written) of one list, (n, 3).

    Only `variable` is loaded, and only after its declared type and shape were
    found to be a list's.

    Raises:
        AqaError: the file is no such list; says what it is.
    """
    if (size := path.stat().st_size) > MOST_BYTES:
        raise AqaError(f"{path.name}: expected a list of some kB, found {size} bytes")
    try:
        matrices = read_matrices(path.read_bytes())
    except MatError as error:
        raise AqaError(f"{path.name}: not a MATLAB file ({error})") from error
    if variable not in matrices:
        found = ", ".join(map(printable, sorted(matrices))) or "nothing"
        raise AqaError(f"{path.name}: expected a variable {variable}, found {found}")
    matrix = matrices[variable]
    shape, kind = matrix.shape, matrix.kind
    good = len(shape) == 2 and 0 < shape[0] <= MOST_ROWS and shape[1] == 3
    if kind not in NUMERIC or not good:
        raise AqaError(
            f"{path.name}: expected {variable} to be numbers (n, 3) with at most "
            f"{MOST_ROWS} rows, found {kind} {shape}"
        )
    try:
        rows = matrix.numbers()
    except MatError as error:
        raise AqaError(f"{path.name}: cannot be read ({error})") from error
    if not np.isfinite(rows).all():
        raise AqaError(f"{path.name}: expected {variable} to hold finite real numbers")
    return rows


def in_judges_units(
    scores: npt.NDArray[np.float64], ids: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Scores in judges' units; which were times 100; which fit neither form.

    `ids` are action ids 1-7, one for each score. A score that fits neither form is
    handed back as it was written.
    """
    low, high = np.array([action.score_range for action in ACTIONS])[ids - 1].T
    hundredth = np.round(scores / 100, DECIMALS)
    plain = np.round(scores, DECIMALS)
    is_hundredfold = (low <= hundredth) & (hundredth <= high)
    is_plain = (low <= plain) & (plain <= high)
    units = np.where(is_hundredfold, hundredth, plain)
    return units, is_hundredfold, ~is_hundredfold & ~is_plain
