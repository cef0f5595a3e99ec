"""Features that another program made, brought into a cache.

Conventions: the CSV has the header `key,action,score,split,file`; `file` is a path
relative to the CSV, inside its folder, of one .npy each: (clips, D) or (offsets,
clips, D), float16, float32 or float64, finite; all of one shape. Frames are 0 and
`source_sha256` is of the .npy file.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from aqa.cache.csv_table import read_rows
from aqa.cache.errors import AqaError
from aqa.cache.labels import COLUMNS, parse_label
from aqa.cache.npy import parse_npy
from aqa.cache.parts import parts_folder
from aqa.cache.problems import raise_any
from aqa.cache.progress import Progress, silent
from aqa.cache.provenance import Provenance
from aqa.cache.replacement import locked, make_folder
from aqa.cache.samples import Sample, path_problem
from aqa.cache.store import Features
from aqa.cache.writing import write_cache

#: Larger files are not the features of one video.
MAX_BYTES = 2**30

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
        if (size := path.stat().st_size) > MAX_BYTES:
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
