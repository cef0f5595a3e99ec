"""CSV files from strangers, read strictly.

Conventions: UTF-8 (a byte order mark is skipped), a header that names the columns in
any order and case, then one row per line, whose number goes with it (the header is on
line 1); blank lines are skipped. Commas, semicolons or tabs separate fields. Scores
are in judges' units; an empty score is NaN.

Arrays in .npy files from strangers: numbers only, never more than is there.

Conventions: what a header promises is compared with the bytes that follow it, and with
what the caller takes. Objects, which would have to be unpickled, are refused. NumPy's
own readers let any kind of exception through.

New labels for a cache, without extracting again.

Conventions: a label file is a CSV with the header `key,action,score,split`; `score`
(judges' units) and `split` (`train`, `test`) may be empty. A score that an action of
AQA-7 cannot have is refused, here and in every other file of labels.

Features that another program made, brought into a cache.

Conventions: the CSV has the header `key,action,score,split,file`; `file` is a path
relative to the CSV, inside its folder, of one .npy each: (clips, D) or (offsets,
clips, D), float16, float32 or float64, finite; all of one shape. Frames are 0 and
`source_sha256` is of the .npy file.
"""

import csv
import hashlib
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from aqa.cache.actions import score_problem
from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError, brief, raise_any
from aqa.cache.files import locked, make_folder, remove_orphans
from aqa.cache.parts import merge, parts_folder
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample, label_problem, normal_text, path_problem
from aqa.cache.store import FeatureCache, Features, write_cache

#: Larger files are no lists of videos: bytes, lines (a million below the header),
#: characters of a line.
MAX_BYTES, MAX_LINES, MAX_LINE = 256 * 2**20, 1_000_001, 2**16


def read_rows(
    path: Path | str,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    *,
    extra: bool = False,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line and the fields of each row, one at a time.

    The file must have `columns` and may have `optional` ones, whose fields are empty
    where they are missing; further columns are an error unless `extra` is set. Fields
    are separated by commas, semicolons or tabs, as the header is.

    Raises AqaError over a file that is missing, no regular file, too large or not
    UTF-8, over another header, and over a row with too many or too few fields.
    """
    path = Path(path)
    if not path.is_file():
        raise AqaError(f"{path}: no such file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise AqaError(f"{path}: {size} bytes; a CSV of at most {MAX_BYTES} is read")
    known = (*columns, *optional)
    absent = dict.fromkeys(optional, "")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = _lines(path, file)
            first = next(lines, (1, ""))[1]
            separator = max(",;\t", key=first.count)
            header = [normal_text(name) for name in _split(path, 1, first, separator)]
            header = [
                name.lower() if name.lower() in known else name for name in header
            ]
            if len(set(header)) < len(header):
                raise AqaError(
                    f"{path}: header {first.strip()[:200]!r}; expected each name once"
                )
            if (
                not set(columns) <= set(header)
                or set(header) - set(known)
                and not extra
            ):
                may = f", optionally {','.join(optional)!r}" * bool(optional)
                raise AqaError(
                    f"{path}: header {first.strip()[:200]!r}; expected "
                    f"{','.join(columns)!r}{may}"
                )
            for number, line in lines:
                fields = _split(path, number, line, separator)
                if len(fields) not in (0, len(header)):
                    raise AqaError(
                        f"{path}: line {number}: {len(fields)} fields; "
                        f"expected {len(header)}"
                    )
                if fields:
                    yield number, absent | dict(zip(header, fields, strict=True))
    except (OSError, UnicodeDecodeError) as error:
        raise AqaError(f"{path}: cannot be read as CSV: {error}") from error


def _lines(path: Path, file: TextIO) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, within the limits."""
    lines = iter(partial(file.readline, MAX_LINE + 1), "")
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LINE or number > MAX_LINES:
            raise AqaError(
                f"{path}: line {number}: a CSV of at most {MAX_LINES} lines, each of "
                f"at most {MAX_LINE} characters, is read"
            )
        yield number, line


def _split(path: Path, number: int, line: str, separator: str) -> list[str]:
    """Return the fields of one line: no field goes over its end."""
    try:
        return next(csv.reader([line], strict=True, delimiter=separator), [])
    except csv.Error as error:
        raise AqaError(
            f"{path}: line {number}: cannot be read as CSV: {error}"
        ) from error


def parse_score(text: str) -> float:
    """Read a score, NaN where `text` is empty; AqaError when it is no finite number.

    A decimal comma is read as a point unless it may separate thousands (1,234).
    """
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


COLUMNS = ("key", "action", "score", "split")


@dataclass(frozen=True)
class Label:
    """What is to be learnt of one video; `score` is NaN where it is unknown.

    Raises AqaError over an action or a split that no cache can hold.
    """

    action: str
    score: float
    split: str

    def __post_init__(self) -> None:
        """Check every field."""
        if problem := label_problem(self.action, self.split, self.score):
            raise AqaError(problem)


def read_labels(path: Path | str) -> dict[str, Label]:
    """Read a label file: key -> label. Raises AqaError listing every bad row."""
    labels: dict[str, Label] = {}
    problems = []
    for line, row in read_rows(path, COLUMNS):
        place = f"{path}: line {line}"
        try:
            key, label = parse_label(row)
        except AqaError as error:
            problems.append(f"{place}: {error}")
            continue
        if key in labels:
            problems.append(f"{place}: key {key!r} is there twice")
        labels[key] = label
    raise_any(problems)
    return labels


def parse_label(row: Mapping[str, str]) -> tuple[str, Label]:
    """Take key and label out of one row of a CSV; AqaError says what is wrong."""
    if problem := path_problem(row["key"]):
        raise AqaError(f"key {row['key'][:80]!r} {problem}")
    label = Label(row["action"], parse_score(row["score"]), row["split"])
    if problem := score_problem(label.action, label.score):
        raise AqaError(problem)
    return row["key"], label


def relabel(cache: Path | str, labels: Mapping[str, Label]) -> int:
    """Give the samples in `labels` new labels; return how many of them changed.

    The cache is replaced whole, with the same features, as though it had been
    extracted with these labels; samples that `labels` does not name keep theirs. Parts
    are merged first: a killed merge may have left some, with the old labels. Raises
    AqaError listing keys that the cache does not have, and over damaged features.
    """
    cache = Path(cache)
    if parts_folder(cache).exists():
        merge(cache)
    with locked(cache), FeatureCache.open(cache) as old:
        remove_orphans(cache.parent, cache.name)
        unknown = sorted(labels.keys() - set(old.samples.key))
        raise_any([f"{cache}: no sample {key!r} to relabel" for key in unknown])
        before = [old.samples[row] for row in range(len(old.samples))]
        after = [
            replace(sample, **vars(labels[sample.key]))
            if sample.key in labels
            else sample
            for sample in before
        ]
        changed = sum(
            bool(new.differences(was)) for new, was in zip(after, before, strict=True)
        )
        if changed:
            features = (old.read_sound(row) for row in range(len(before)))
            write_cache(cache, after, features, old.provenance)
    return changed


#: Larger files are not the features of one video.
MAX_BYTES_IMPORTS = 2**30

_TYPES = ("float16", "float32", "float64")


def import_features(
    labels_csv: Path | str, name: str, cache: Path | str, progress: Progress = silent
) -> Path:
    """Write a new cache from .npy files; its provenance says that `name` made them.

    All files are read and checked before anything is written, then read once more,
    one at a time. Raises AqaError listing every bad row, or when `cache` exists.
    """
    labels_csv, cache = Path(labels_csv), Path(cache)
    if not name.strip() or not name.isprintable():
        raise AqaError(f"{name[:80]!r} does not name features; say what made them")
    make_folder(cache.parent)
    with locked(cache):
        if cache.exists() or parts_folder(cache).exists():
            raise AqaError(f"{cache}: exists; an import makes a cache of its own")
        sources = sorted(_check(labels_csv), key=lambda source: source[0].key)

        def load() -> Iterator[Features]:
            for done, (sample, path) in enumerate(sources):
                progress(done, len(sources), sample.key)
                features, digest = _load(path)
                if digest != sample.source_sha256:
                    raise AqaError(f"{path}: changed while it was imported")
                yield features
            progress(len(sources), len(sources), str(cache))

        samples = [sample for sample, _ in sources]
        provenance = Provenance({"features": name, "imported": True})
        return write_cache(cache, samples, load(), provenance)


def _check(labels_csv: Path) -> list[tuple[Sample, Path]]:
    """Read every row and file once: each sample with its file."""
    folder = os.path.realpath(labels_csv.parent)
    sources: list[tuple[Sample, Path]] = []
    keys: set[str] = set()
    problems = []
    shape: tuple[int, ...] | None = None
    for line, row in read_rows(labels_csv, (*COLUMNS, "file")):
        try:
            key, label = parse_label(row)
            if key in keys:
                raise AqaError(f"key {key!r} is there twice")
            keys.add(key)
            path = _inside(folder, row["file"])
            features, digest = _load(path)
            shape = shape or features.shape
            if features.shape != shape:
                raise AqaError(f"{path}: {features.shape}; files before have {shape}")
            sample = Sample(key, **vars(label), frames=0, source_sha256=digest)
            sources.append((sample, path))
        except AqaError as error:
            problems.append(f"{labels_csv}: line {line}: {error}")
    raise_any(problems)
    if not sources:
        raise AqaError(f"{labels_csv}: no rows to import")
    return sources


def _inside(folder: str, name: str) -> Path:
    """Find the file `name` in `folder`; AqaError when it or its target is outside."""
    if problem := path_problem(name):
        raise AqaError(f"file {name[:80]!r} {problem}")
    path = Path(os.path.realpath(os.path.join(folder, name)))
    if not path.is_relative_to(folder):
        raise AqaError(f"file {name!r} leads out of {folder}")
    try:
        there = path.is_file()
    except OSError:  # a name that is too long is nobody's
        there = False
    if not there:
        raise AqaError(f"file {name[:80]!r} is not in {folder}")
    return path


def _load(path: Path) -> tuple[Features, str]:
    """Read a .npy file: float32 (offsets, clips, D), and the SHA-256 of the file.

    AqaError names the file.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES_IMPORTS:
            raise AqaError(f"{size} bytes; at most {MAX_BYTES} are read")
        data = path.read_bytes()
        array = parse_npy(data)
    except (AqaError, OSError) as error:
        raise AqaError(f"{path}: {error}") from error
    if array.dtype.name not in _TYPES:
        raise AqaError(f"{path}: {array.dtype}; expected one of {', '.join(_TYPES)}")
    if array.ndim not in (2, 3):
        raise AqaError(
            f"{path}: {array.shape}; expected (clips, D) or (offsets, clips, D)"
        )
    with np.errstate(over="ignore"):  # what is too large is infinite, and refused
        features = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(features).all():
        raise AqaError(f"{path}: holds values that are not finite float32")
    # (clips, D) -> (offsets, clips, D)
    return features.reshape((-1, *array.shape[-2:])), hashlib.sha256(data).hexdigest()
