"""CSV tables, .npy arrays and MATLAB matrices that users bring, read within limits.

Conventions: a table is UTF-8 or UTF-16 (a byte order mark decides), separated by comma,
semicolon or tab (whichever splits the header into the names asked for), with a header
in any order and case, then one row per line; the header is on line 1. Empty rows are
skipped. Cells are returned as they are written: whoever knows that a cell is no path
applies `normal_text`. Arrays hold numbers only; objects, which would be unpickled, are
refused. MATLAB files are read in a child process: versions 4 and 5 by SciPy, version
7.3, which is HDF5 and holds matrices transposed, by h5py.
"""

import codecs
import csv
import difflib
import io
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import h5py
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from aqa.cache.errors import AqaError, brief
from aqa.cache.processes import call
from aqa.cache.samples import label_problem, normal_text

#: Larger files are no lists of videos: bytes, lines (a million below the header),
#: characters of a line.
MAX_BYTES, MAX_LINES, MAX_LINE = 256 * 2**20, 1_000_001, 2**16
#: Columns beyond those asked for that a list may have.
MAX_EXTRA = 64

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


class Table:
    """A CSV file: iterate over it for the line number and the fields of each row.

    `columns` are the names found of those asked for, `extra` the further ones, and
    `notes` say in one line each what was decided about the file.
    """

    def __init__(
        self,
        path: Path | str,
        required: Sequence[str],
        optional: Sequence[str] = (),
        ignored: Sequence[str] = (),
    ) -> None:
        """Read the header; columns in `ignored` are skipped where they are there.

        Raises AqaError for no regular file, one that is too large or of another
        encoding, and for a header that lacks a `required` column, has one twice, or has
        one that looks like a misspelt missing one.
        """
        self.path = Path(path)
        self._known, self._ignored = [*required, *optional], ignored
        self._encoding = self._find_encoding()
        self._separator, self._header, self._first = self._find_header(required)
        columns = [name for name in self._header if name]
        for name in columns:
            if columns.count(name) > 1:
                raise AqaError(f"{self.path}: column {name[:80]!r} is there twice")
        known = (*self._known, *ignored)
        self.columns = tuple(name for name in self._known if name in columns)
        self.extra = tuple(name for name in columns if name not in known)
        self._check_extra()
        skipped = [name for name in columns if name in ignored]
        if "" in self._header:
            skipped.append("(unnamed)")
        decided = {
            f"separated by {_SEPARATORS[self._separator]}": self._separator != ",",
            "encoded as UTF-16": self._encoding == "utf-16",
            f"further columns: {', '.join(self.extra)}": self.extra,
            f"ignored columns: {', '.join(skipped)}": skipped,
        }
        self.notes = tuple(f"{self.path}: {what}" for what in decided if decided[what])

    def __iter__(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the line and the named fields of each row; AqaError over a bad row."""
        with self._open() as file:
            for line, fields in self._split(file):
                if line <= self._first or not any(map(str.strip, fields)):
                    continue
                if len(fields) != len(self._header):
                    raise AqaError(
                        f"{self.path}: line {line}: {len(fields)} fields; "
                        f"expected {len(self._header)}"
                    )
                row = dict(zip(self._header, fields, strict=True))
                row.pop("", None)
                yield line, row

    def _find_encoding(self) -> str:
        path = self.path
        if not path.is_file():
            raise AqaError(f"{path}: no such file")
        try:
            with path.open("rb") as file:
                size, start = os.fstat(file.fileno()).st_size, file.read(64)
        except OSError as error:
            raise AqaError(f"{path}: cannot be read: {error.strerror}") from error
        if size > MAX_BYTES:
            raise AqaError(
                f"{path}: {size} bytes; a CSV of at most {MAX_BYTES} is read"
            )
        if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
            raise AqaError(f"{path}: encoded as UTF-32; save it as UTF-8")
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if min(start[:16:2].strip(b"\0"), start[1:16:2].strip(b"\0")) == b"" != start:
            raise AqaError(
                f"{path}: no text, or UTF-16 without a byte order mark; "
                "save it as CSV in UTF-8"
            )
        return "utf-8-sig"

    def _find_header(self, required: Sequence[str]) -> tuple[str, list[str], int]:
        """Return the separator, the columns' names, and the line of the header."""
        best: list[str] = []
        with self._open() as file:
            try:
                first = file.readline(MAX_LINE + 1)
                second = file.readline(MAX_LINE + 1)
            except UnicodeError as error:
                raise self._not_text(0, error) from error
        number, separators = 1, tuple(_SEPARATORS)
        if first.startswith("sep=") and first[4:5] in _SEPARATORS:  # written by Excel
            number, separators, first = 2, (first[4],), second
        for self._separator in separators:
            [(_, fields)] = self._split(io.StringIO(first)) if first else [(1, [])]
            names = [self._column(field) for field in fields]
            if set(required).issubset(names):
                return self._separator, names, number
            best = max(best, names, key=lambda names: len({*names} & {*self._known}))
        missing = [name for name in required if name not in best]
        raise AqaError(
            f"{self.path}: header {first.strip()[:200]!r} lacks "
            f"{', '.join(missing)}; expected {','.join(self._known)!r}: rename its "
            "columns, or add those that lack"
        )

    def _column(self, field: str) -> str:
        """Return the name of a column; those asked for are recognised in any case."""
        name = normal_text(field)
        if re.fullmatch(r"Unnamed: \d+", name):  # an index that pandas wrote
            return ""
        folded = name.casefold()
        return folded if folded in (*self._known, *self._ignored) else name

    def _check_extra(self) -> None:
        if len(self.extra) > MAX_EXTRA:
            raise AqaError(
                f"{self.path}: {len(self.extra)} further columns; at most {MAX_EXTRA}"
            )
        absent = [name for name in self._known if name not in self.columns]
        for name in self.extra:
            if problem := label_problem("", "", math.nan, {name: ""}):
                raise AqaError(f"{self.path}: {problem}")
            if like := difflib.get_close_matches(name.casefold(), absent, 1, 0.75):
                raise AqaError(
                    f"{self.path}: column {name!r}; is it {like[0]!r}? Rename it"
                )

    def _open(self) -> TextIO:
        return open(self.path, encoding=self._encoding, newline="")

    def _split(self, file: TextIO) -> Iterator[tuple[int, list[str]]]:
        """Yield the number and the fields of each line; no field spans two lines."""
        lines = enumerate(iter(partial(file.readline, MAX_LINE + 1), ""), start=1)
        number = 0
        try:
            for number, line in lines:
                if len(line) > MAX_LINE or number > MAX_LINES:
                    raise AqaError(
                        f"{self.path}: line {number}: a CSV of at most {MAX_LINES} "
                        f"lines, each of at most {MAX_LINE} characters, is read"
                    )
                reader = csv.reader([line], delimiter=self._separator, strict=True)
                yield number, next(reader, [])
        except csv.Error as error:
            place = f"{self.path}: line {number}"
            raise AqaError(
                f"{place}: cannot be read as CSV (fields end with their line): {error}"
            ) from error
        except UnicodeError as error:
            raise self._not_text(number, error) from error

    def _not_text(self, number: int, error: UnicodeError) -> AqaError:
        expected = "UTF-16" if self._encoding == "utf-16" else "UTF-8"
        found = ""
        if isinstance(error, UnicodeDecodeError):
            found = f" (byte 0x{error.object[error.start]:02x})"
        return AqaError(
            f"{self.path}: not {expected} after line {number}{found}; "
            "save it as CSV in UTF-8"
        )


def parse_score(text: str) -> float:
    """Read a score, NaN where `text` is empty; AqaError when it is no finite number.

    A decimal comma is read as a point unless it may separate thousands (1,234).
    """
    text = text.strip()
    if not text:
        return math.nan
    try:
        comma = re.fullmatch("[-+]?[0-9]+,([0-9]{1,2}|[0-9]{4,})", text)
        score = float(text.replace(",", ".") if comma else text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score) or "_" in text:
        raise AqaError(
            f"score {text[:80]!r} is not a number; leave it empty if unknown"
        )
    return score


#: Bytes of the longest header, and of the widest number.
_HEADER, _WIDEST = 2**16, 16


def read_npy(path: Path, most: int) -> NDArray[Any]:
    """Read at most `most` whole or floating-point numbers, of any shape without a 0.

    AqaError where the file holds something else, or not what its header says.
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
    """Return the numbers in the bytes of a .npy file, as a view of them.

    NumPy reads the header; the sizes it states are compared with the bytes that follow
    before anything is allocated. Raises AqaErrors that do not name the file.
    """
    file = io.BytesIO(data)
    try:
        major, _ = npy.read_magic(file)
        read = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
        shape, fortran, kind = read(file)
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


#: Larger files are no lists of videos, whose released ones have 3 kB.
_MATLAB_BYTES = 1 << 20
_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_matrix(path: Path, variable: str) -> NDArray[np.float64]:
    """Return the matrix `variable` of a file as float64.

    AqaError for no MATLAB file, no such variable, or not finite real numbers.
    """
    from scipy.io import loadmat  # bound, so that the children's server loads it

    if (size := path.stat().st_size) > _MATLAB_BYTES:
        raise AqaError(f"{path.name}: expected a list of some kB, found {size} bytes")
    try:
        load = partial(_load_matrix, loadmat)
        matrix = call(load, path, variable, seconds=20, memory=1 << 28)
    except AqaError as error:
        raise type(error)(f"{path.name}: {error}") from error
    if not np.isfinite(matrix).all():
        raise AqaError(f"{path.name}: expected {variable} to hold finite real numbers")
    return matrix


def _load_matrix(
    loadmat: Callable[..., dict[str, Any]], path: Path, variable: str
) -> NDArray[np.float64]:
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
    kind = getattr(matrix, "dtype", type(matrix).__name__)
    if not isinstance(matrix, np.ndarray) or matrix.dtype.kind not in "iuf":
        raise AqaError(f"expected {variable} to be a matrix of numbers, found {kind}")
    return matrix.astype(np.float64)
