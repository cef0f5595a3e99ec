"""CSV files from strangers, read strictly.

Conventions: UTF-8 (a byte order mark is skipped), a header naming just the columns
asked for, in any order, then one row each; blank lines are skipped. A place is
`FILE: line N`, the line on which the row ends. Scores are in judges' units; an empty
score is NaN.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from aqa.cache.errors import AqaError

#: Larger files are no lists of videos.
MAX_BYTES = 256 * 2**20


def read_rows(
    path: Path | str, columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place and the fields of each row, one at a time.

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
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if sorted(header) != sorted(columns):
                raise AqaError(
                    f"{path}: header {','.join(header)[:200]!r}; "
                    f"expected {','.join(columns)!r}"
                )
            for fields in reader:
                place = f"{path}: line {reader.line_num}"
                if len(fields) not in (0, len(header)):
                    raise AqaError(
                        f"{place}: {len(fields)} fields; expected {len(header)}"
                    )
                if fields:
                    yield place, dict(zip(header, fields, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AqaError(f"{path}: cannot be read as CSV: {error}") from error


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
