"""CSV files from strangers, read strictly.

Conventions: UTF-8 (a byte order mark is skipped), a header naming just the columns
asked for, in any order, then one row a line, whose number goes with it (the header is
on line 1); blank lines are skipped. Scores are in judges' units; an empty score is NaN.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

from aqa.cache.errors import AqaError

#: Larger files are no lists of videos: bytes, lines (a million below the header),
#: characters of a line.
MAX_BYTES, MAX_LINES, MAX_LINE = 256 * 2**20, 1_000_001, 2**16


def read_rows(
    path: Path | str, columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line and the fields of each row, one at a time.

    Raises AqaError over a file that is missing, no regular file, too large or not
    UTF-8, over another header, and over a row with too many or too few fields.
    """
    path = Path(path)
    if not path.is_file():
        raise AqaError(f"{path}: no such file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise AqaError(f"{path}: {size} bytes; a CSV of at most {MAX_BYTES} is read")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = _split(path, file)
            header = [name.strip() for name in next(rows, (1, []))[1]]
            if sorted(header) != sorted(columns):
                raise AqaError(
                    f"{path}: header {','.join(header)[:200]!r}; "
                    f"expected {','.join(columns)!r}"
                )
            for line, fields in rows:
                if len(fields) not in (0, len(header)):
                    raise AqaError(
                        f"{path}: line {line}: {len(fields)} fields; "
                        f"expected {len(header)}"
                    )
                if fields:
                    yield line, dict(zip(header, fields, strict=True))
    except (OSError, UnicodeDecodeError) as error:
        raise AqaError(f"{path}: cannot be read as CSV: {error}") from error


def _split(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of each line: no field goes over its end."""
    lines = iter(partial(file.readline, MAX_LINE + 1), "")
    for number, line in enumerate(lines, start=1):
        place = f"{path}: line {number}"
        if len(line) > MAX_LINE or number > MAX_LINES:
            raise AqaError(
                f"{place}: a CSV of at most {MAX_LINES} lines, each of at most "
                f"{MAX_LINE} characters, is read"
            )
        try:
            fields = next(csv.reader([line], strict=True), [])
        except csv.Error as error:
            raise AqaError(f"{place}: cannot be read as CSV: {error}") from error
        yield number, fields


def parse_score(text: str) -> float:
    """Read a score, NaN where `text` is empty; AqaError when it is no finite number."""
    if not text:
        return math.nan
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score) or "_" in text:
        raise AqaError(
            f"score {text[:80]!r} is not a number; leave it empty if unknown"
        )
    return score
