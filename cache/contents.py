"""What a cache and its parts hold, as plain values: described, listed, exported."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.errors import AqaError
from aqa.cache.files import keep_inputs, replacing
from aqa.cache.parts import list_parts, open_part, parts_folder
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache

#: Most parts that `describe` opens; more are counted only.
MAX_PARTS = 10_000


def describe(cache: Path | str) -> dict[str, Any]:
    """Describe a cache and its parts as JSON values.

    `samples` counts by action and split, parts included; `notes` say what is missing or
    left to do. `shape` and `version` are None where only parts exist. Raises AqaError
    where there is neither a cache nor a part.
    """
    cache = Path(cache)
    paths = list_parts(parts_folder(cache))
    samples: dict[str, Sample] = {}
    merged = 0
    provenance: Provenance | None = None
    result: dict[str, Any] = {"cache": str(cache), "version": None, "shape": None}
    if cache.exists() or not paths:
        with FeatureCache.open(cache) as opened:
            samples = {sample.key: sample for sample in opened.samples}
            merged, provenance = len(samples), opened.provenance
            result.update(version=opened.version, shape=list(opened.shape))
    damaged = 0
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
        "notes": _notes(cache, list(samples.values()), parts),
        "provenance": provenance.record if provenance else None,
        "provenance_sha256": provenance.sha256 if provenance else None,
    }


def _notes(cache: Path, samples: list[Sample], parts: dict[str, int]) -> list[str]:
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
        "fewer clips, padded in front": sum(sample.clips > 0 for sample in samples),
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
        table, clips = opened.samples, opened.shape[2]
    rows = []
    for row, sample in enumerate(table):
        values: dict[str, Any] = {
            "key": sample.key,
            "action": sample.action,
            "score": None if math.isnan(sample.score) else sample.score,
            "split": sample.split,
            "frames": sample.frames,
            "clips": sample.clips or clips,
            "damage": sample.damage,
        }
        for name, texts in table.extra.items():
            values[f"extra_{name}" if name in values else name] = texts[row]
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
            "clips": np.where(table.clips == 0, opened.shape[2], table.clips),
            "provenance": np.array(opened.provenance.json),
        }
        for name, texts in table.extra.items():
            arrays[f"extra_{name}"] = np.array(texts)
    with replacing(out) as descriptor, open(descriptor, "wb", closefd=False) as file:
        np.savez(file, **arrays)
    return {name: list(array.shape) for name, array in arrays.items()}
