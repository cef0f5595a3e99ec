"""Features that another program made, brought into a cache.

Conventions: the list is a CSV with the columns `key`, `action`, `score` (judges' units)
and `file`, and optionally `split`; further columns are kept. `file` is a path relative
to the list, inside its folder, of one .npy each: (D,), (clips, D) or (offsets, clips,
D), float16, float32 or float64, finite. D and the offsets must be the same throughout;
clips of zeros at the ends of a sequence are another program's padding, and are cut off.
Shorter sequences of clips are padded with zeros in front, and the number of real clips
is stored. Frames are 0 and `source_sha256` is of the .npy file.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError, counted, raise_any
from aqa.cache.files import locked, make_folder, probe
from aqa.cache.labels import LABELS, name_notes, parse_key, parse_label
from aqa.cache.parts import parts_folder
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample, is_inside, path_problem
from aqa.cache.store import Features, write_cache
from aqa.cache.tables import Table, parse_npy

#: Larger files are not the features of one video.
MAX_BYTES = 2**30

_TYPES = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Imported:
    """A new cache, and what the user should know about it."""

    cache: Path
    samples: int
    shape: tuple[int, int, int]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    sample: Sample
    path: Path
    shape: tuple[int, ...]  # (offsets, clips, D)
    padding: int  # clips of zeros that were cut off


def import_features(
    labels_csv: Path | str, name: str, cache: Path | str, progress: Progress = silent
) -> Imported:
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
        sources, notes = _check(labels_csv)
        clips = [source.shape[1] for source in sources]
        if padded := [source for source in sources if source.padding]:
            notes += (
                f"{counted(len(padded), 'file')} padded with clips of zeros (first: "
                f"{padded[0].path.name}, {padded[0].padding}): cut off",
            )
        longest = max(clips)
        if min(clips) < longest:
            notes += (
                f"clip counts differ ({min(clips)} to {longest}): shorter sequences "
                "are padded in front, and the padding is marked",
            )
            sources = [
                replace(source, sample=replace(source.sample, clips=source.shape[1]))
                for source in sources
            ]
        offsets, _, width = sources[0].shape
        if offsets == 1 and min(clips) > width > 1:
            notes += (
                f"read as {min(clips)} clips or more of {width} features: transpose "
                "the arrays if time is their last axis",
            )
        if offsets > 1:
            notes += (
                f"read as {offsets} copies x {longest} clips x {width} features: "
                "average over crops or pixels before, if those are what was meant",
            )

        def load() -> Iterator[Features]:
            for done, source in enumerate(sources):
                progress(done, len(sources), source.sample.key)
                features, digest, _ = _read(source.path)
                if digest != source.sample.source_sha256:
                    raise AqaError(f"{source.path}: changed while it was imported")
                padding = longest - features.shape[1]
                yield np.pad(features, ((0, 0), (padding, 0), (0, 0)))
            progress(len(sources), len(sources), str(cache))

        samples = [source.sample for source in sources]
        provenance = Provenance({"features": name, "imported": True})
        write_cache(cache, samples, load(), provenance)
    return Imported(cache, len(samples), (offsets, longest, width), notes)


def _check(labels_csv: Path) -> tuple[list[_Source], tuple[str, ...]]:
    """Read every row and file once; return the sources by key, and notes."""
    table = Table(labels_csv, ("key", *LABELS[:2], "file"), LABELS[2:])
    folder = Path(os.path.realpath(labels_csv.parent))
    sources: dict[str, _Source] = {}
    problems, written = [], set()
    first: tuple[int, ...] | None = None
    for line, row in table:
        try:
            key, label = parse_key(row["key"]), parse_label(row, table.extra)
            if key in sources:
                raise AqaError(f"key {key!r} is there twice")
            path = _inside(folder, row["file"])
            features, digest, padding = _read(path)
            shape = features.shape
            first = first or shape
            if (shape[0], shape[2]) != (first[0], first[2]):
                raise AqaError(
                    f"{path}: {shape}; files before have {first}: offsets and D must "
                    "be the same"
                )
            sample = Sample(
                key,
                **vars(label),
                frames=0,
                source_sha256=digest,
                source_probe=probe(path),
            )
            sources[key] = _Source(sample, path, shape, padding)
            written.add(row["action"])
        except AqaError as error:
            problems.append(f"{labels_csv}: line {line}: {error}")
    raise_any(problems)
    if not sources:
        raise AqaError(f"{labels_csv}: no rows to import")
    notes = (*table.notes, *name_notes(written))
    if "split" not in table.columns:
        notes += (
            f"no column `split`: all {len(sources)} samples are unassigned, so "
            "`fit` and `compare` need --folds or --leave-one-out",
        )
    return [sources[key] for key in sorted(sources)], notes


def _inside(folder: Path, name: str) -> Path:
    """Find the file `name` in `folder`; AqaError when it or its target is outside."""
    name = name.strip()
    if problem := path_problem(name):
        raise AqaError(f"file {name[:80]!r} {problem}")
    path = folder / name
    if not is_inside(path, folder):
        raise AqaError(f"file {name!r} leads out of {folder}")
    try:
        there = path.is_file()
    except OSError:  # a name longer than any on this file system
        there = False
    if not there:
        raise AqaError(f"file {name[:80]!r} is not in {folder}")
    return path


def read_features(path: Path) -> tuple[Features, str]:
    """Read a .npy file: float32 (offsets, clips, D), and the SHA-256 of the file.

    Clips of zeros at the ends are left out. AqaError names the file.
    """
    return _read(path)[:2]


def _read(path: Path) -> tuple[Features, str, int]:
    """Return what `read_features` does, and the number of clips left out."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise AqaError(f"{size} bytes; at most {MAX_BYTES} are read")
        data = path.read_bytes()
        array = parse_npy(data)
    except (AqaError, OSError) as error:
        raise AqaError(f"{path}: {error}") from error
    if array.dtype.name not in _TYPES:
        raise AqaError(f"{path}: {array.dtype}; expected one of {', '.join(_TYPES)}")
    if array.ndim not in (1, 2, 3):
        raise AqaError(
            f"{path}: {array.shape}; expected (D,), (clips, D) or (offsets, clips, D)"
        )
    with np.errstate(over="ignore"):  # what is too large is infinite, and refused
        features = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(features).all():
        raise AqaError(f"{path}: holds values that are not finite float32")
    # (D,) or (clips, D) -> (offsets, clips, D)
    features = features.reshape((1, 1, *array.shape)[-3:])
    real = np.flatnonzero(features.any(axis=(0, 2)))
    if len(real):
        features = features[:, real[0] : real[-1] + 1]
    padding = array.size // (features.shape[0] * features.shape[2]) - features.shape[1]
    return features, hashlib.sha256(data).hexdigest(), padding
