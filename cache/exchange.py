"""A cache in other forms: imported from .npy, described, listed, exported to .npz.

Conventions: the list of an import is a CSV with the columns `key`, `action`, `score`
(judges' units) and `file`, and optionally `split`; further columns are kept. `file` is
a path relative to the list, inside its folder, of one .npy each: (D,), (clips, D) or
(offsets, clips, D), float16, float32 or float64, finite. D and the offsets must be the
same throughout; clips of zeros or NaN at the ends of a sequence are another program's
padding, and are cut off. Shorter sequences of clips are padded with zeros in front,
and the number of real clips is stored. Frames are 0 and `source_sha256` is of the .npy
file.
"""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError, counted, raise_any
from aqa.cache.files import keep_inputs, locked, make_folder, probe, replacing
from aqa.cache.labels import LABELS, OWN_COLUMNS, name_notes, parse_key, parse_label
from aqa.cache.parts import list_parts, open_part, parts_folder
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample, is_inside, path_problem
from aqa.cache.store import FeatureCache, Features, write_cache
from aqa.cache.tables import Table, parse_npy

#: Larger files are not the features of one video.
MAX_BYTES = 2**30
#: Most parts that `describe` opens; more are counted only.
MAX_PARTS = 10_000

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
        offsets, longest, width = sources[0].shape[0], max(clips), sources[0].shape[2]
        notes += _shape_notes(sources)
        if min(clips) < longest:
            sources = [
                replace(source, sample=replace(source.sample, clips=source.shape[1]))
                for source in sources
            ]

        def load() -> Iterator[Features]:
            for done, source in enumerate(sources):
                progress(done, len(sources), source.sample.key)
                features, digest, _ = read_features(source.path)
                if digest != source.sample.source_sha256:
                    raise AqaError(f"{source.path}: changed while it was imported")
                padding = longest - features.shape[1]
                yield np.pad(features, ((0, 0), (padding, 0), (0, 0)))
            progress(len(sources), len(sources), str(cache))

        samples = [source.sample for source in sources]
        provenance = Provenance({"features": name, "imported": True})
        write_cache(cache, samples, load(), provenance)
    return Imported(cache, len(samples), (offsets, longest, width), notes)


def _shape_notes(sources: Sequence[_Source]) -> tuple[str, ...]:
    """Say how shapes were understood: the other program may have meant otherwise."""
    offsets, _, width = sources[0].shape
    clips = [source.shape[1] for source in sources]
    fewest, longest = min(clips), max(clips)
    notes = []
    if padded := [source for source in sources if source.padding]:
        notes.append(
            f"{counted(len(padded), 'file')} padded with clips of zeros or NaN (first: "
            f"{padded[0].path.name}, {padded[0].padding}): cut off"
        )
    if fewest < longest:
        notes.append(
            f"clip counts differ ({fewest} to {longest}): shorter sequences are padded "
            "in front, and the padding is marked"
        )
    if offsets == 1 and fewest > width > 1:
        notes.append(
            f"read as {fewest} clips or more of {width} features: transpose the arrays "
            "if time is their last axis"
        )
    if offsets > 1:
        notes.append(
            f"read as {offsets} copies x {longest} clips x {width} features: average "
            "over crops or pixels before, if those are what was meant"
        )
    return tuple(notes)


def _check(labels_csv: Path) -> tuple[list[_Source], tuple[str, ...]]:
    """Read every row and file once; return the sources by key, and notes."""
    table = Table(labels_csv, ("key", *LABELS[:2], "file"), LABELS[2:], OWN_COLUMNS)
    folder = Path(os.path.realpath(labels_csv.parent))
    sources: dict[str, _Source] = {}
    problems, written = [], set()
    unnamed: list[int] = []
    first: tuple[int, ...] | None = None
    for line, row in table:
        try:
            key, label = parse_key(row["key"]), parse_label(row, table.extra)
            if key in sources:
                raise AqaError(f"key {key!r} is there twice")
            path = _inside(folder, row["file"])
            features, digest, padding = read_features(path)
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
            if not label.action and not math.isnan(label.score):
                unnamed.append(line)
        except AqaError as error:
            problems.append(f"{labels_csv}: line {line}: {error}")
    if unnamed and any(source.sample.action for source in sources.values()):
        lines = ", ".join(map(str, unnamed[:10])) + ", ..." * (len(unnamed) > 10)
        problems.append(
            f"{labels_csv}: scores without an action in line {lines}, where other rows "
            "have one: name the action of each, or leave all empty for one action"
        )
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


def read_features(path: Path) -> tuple[Features, str, int]:
    """Read a .npy file: float32 (offsets, clips, D), the SHA-256 of the file, padding.

    The padding is the number of clips of zeros or NaN at the ends, which are left out.
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
    if array.ndim not in (1, 2, 3):
        raise AqaError(
            f"{path}: {array.shape}; expected (D,), (clips, D) or (offsets, clips, D)"
        )
    with np.errstate(over="ignore"):  # what is too large is infinite, and refused
        features = np.ascontiguousarray(array, np.float32)
    # (D,) or (clips, D) -> (offsets, clips, D)
    features = features.reshape((1, 1, *array.shape)[-3:])
    # NaN is the padding of `aqa.open_cache`.
    padded = ~features.any(axis=(0, 2)) | np.isnan(features).all(axis=(0, 2))
    real = np.flatnonzero(~padded)
    if len(real):
        features = features[:, real[0] : real[-1] + 1]
    if not np.isfinite(features).all():
        raise AqaError(f"{path}: holds values that are not finite float32")
    padding = padded.size - features.shape[1]
    return features, hashlib.sha256(data).hexdigest(), padding


def describe(cache: Path | str) -> dict[str, Any]:
    """Describe a cache and its parts as JSON values.

    `samples` counts by action and split, parts included; `notes` say what is missing or
    left to do. `shape` and `version` are None where only parts exist. Raises AqaError
    where there is neither a cache nor a part.
    """
    cache = Path(cache)
    paths = list_parts(parts_folder(cache))
    samples: dict[str, Sample] = {}
    merged, damaged, longest = 0, 0, 0
    provenance: Provenance | None = None
    result: dict[str, Any] = {"cache": str(cache), "version": None, "shape": None}
    if cache.exists() or not paths:
        with FeatureCache.open(cache) as opened:
            samples = {sample.key: sample for sample in opened.samples}
            merged, provenance = len(samples), opened.provenance
            longest = opened.shape[2]
            result.update(version=opened.version, shape=list(opened.shape))
    for path in paths[:MAX_PARTS]:
        try:
            with open_part(path) as part:
                samples[part.samples.key[0]] = part.samples[0]
                provenance = provenance or part.provenance
        except AqaError:
            damaged += 1
    counts: dict[str, Counter[str]] = {}
    for _, sample in sorted(samples.items()):
        of_action = counts.setdefault(sample.action or "(none)", Counter())
        of_action[sample.split or "(none)"] += 1
    parts = {"count": len(paths), "damaged": damaged, "new": len(samples) - merged}
    return {
        **result,
        "samples": {action: dict(splits) for action, splits in counts.items()},
        "extra": sorted({name for sample in samples.values() for name in sample.extra}),
        "parts": parts,
        "notes": _notes(cache, list(samples.values()), longest, parts),
        "provenance": provenance.record if provenance else None,
        "provenance_sha256": provenance.sha256 if provenance else None,
    }


def _notes(
    cache: Path, samples: list[Sample], longest: int, parts: dict[str, int]
) -> list[str]:
    notes = []
    if parts["count"]:
        notes.append(
            f"{parts['count']} parts beside the cache ({parts['new']} new videos): the "
            "extraction is under way, or was stopped; the same `aqa extract` goes on, "
            "`aqa cache merge` merges what there is"
        )
    if parts["damaged"]:
        notes.append(
            f"{parts['damaged']} parts are damaged: extract again to make them anew"
        )
    if failed := len(list(parts_folder(cache).glob("*.failed"))):
        notes.append(f"{failed} videos failed: see {cache.with_name('failures.json')}")
    counts = {
        "no action": sum(not sample.action for sample in samples),
        "no score": sum(math.isnan(sample.score) for sample in samples),
        "no split": sum(not sample.split for sample in samples),
        "damage that was accepted": sum(sample.damage != "" for sample in samples),
        "fewer clips, padded in front": sum(
            0 < sample.clips < longest for sample in samples
        ),
    }
    notes += [
        f"{count} of {len(samples)} samples have {what}"
        for what, count in counts.items()
        if count
    ]
    if names := {name for sample in samples for name in sample.extra}:
        notes.append(f"further columns: {', '.join(sorted(names))}")
    return notes


def list_samples(cache: Path | str) -> list[dict[str, Any]]:
    """Return one dictionary per sample, None for an unknown score; extra columns last.

    Names of extra columns that are taken get `extra_` in front.
    """
    with FeatureCache.open(cache) as opened:
        table, clips = opened.samples, opened.real_clips
    rows = []
    for row, sample in enumerate(table):
        values: dict[str, Any] = {
            "key": sample.key,
            "action": sample.action,
            "score": None if math.isnan(sample.score) else sample.score,
            "split": sample.split,
            "frames": sample.frames,
            "clips": int(clips[row]),
            "damage": sample.damage,
        }
        for name, texts in table.extra_beside(values).items():
            values[name] = texts[row]
        rows.append(values)
    return rows


def export(cache: Path | str, out: Path | str) -> dict[str, list[int]]:
    """Write a cache as .npz without pickles; return the shape of each array.

    `features` float32 (N, offsets, clips, D); `key`, `action`, `split` and `extra_*`
    text (N,); `score` float64 (N,); `frames` and `clips` int32 (N,), the latter the
    number of clips at the end that are no padding; `provenance` JSON text. Raises
    AqaError for an `out` of another kind, or over the cache itself.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise AqaError(f"{out}: expected a name that ends in .npz")
    keep_inputs(out, Path(cache))
    with FeatureCache.open(cache) as opened:
        table = opened.samples
        arrays: dict[str, Any] = {
            "features": opened.read(),
            "key": np.array(table.key),
            "action": np.array(table.action),
            "split": np.array(table.split),
            "score": table.score,
            "frames": table.frames,
            "clips": opened.real_clips,
            "provenance": np.array(opened.provenance.json),
        }
        for name, texts in table.extra.items():
            arrays[f"extra_{name}"] = np.array(texts)
    with replacing(out) as file:
        np.savez(file, **arrays)
    return {name: list(array.shape) for name, array in arrays.items()}
