"""Keys, labels and origin of each video: what the cache holds beside the features.

Conventions: `key` is a normalised relative POSIX path (`diving/001`) and orders the
samples, by code point; `split` is `train`, `test` or empty; `score` is in judges'
units, NaN where unlabelled; `frames` counts decoded frames before padding; digests
are SHA-256 in lower-case hexadecimal. Texts are one line of UTF-8 without control
characters; texts that enter from lists or file names pass `normal_text` first.
"""

import hashlib
import json
import math
import os
import posixpath
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.errors import AqaError

SPLITS = ("train", "test", "")

#: Longest text of each kind, in bytes of UTF-8. Files are named after actions, with
#: prefixes and suffixes; file systems take 255 bytes.
MAX_KEY, MAX_ACTION, MAX_DAMAGE, MAX_EXTRA, MAX_EXTRA_NAME = 1024, 200, 1024, 1024, 64

# C0, DEL and C1, the line separators, and what UTF-8 cannot hold.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DIGEST = re.compile("[0-9a-f]{64}")

#: Frame rates within this factor of each other are the same for an action's speed:
#: 24, 25 and 30 frames per second are mixed in every collection.
SIMILAR_RATES = 1.26


@dataclass(frozen=True)
class Sample:
    """One video: its place in the data set, its labels and where it came from.

    `source_sha256` and `source_probe` (see `aqa.cache.files.probe`) are digests of the
    video file, empty where unknown. `damage` says what was wrong with a video that was
    used nevertheless. `clips` is the number of real clips of a sequence that was padded
    in front, 0 where nothing was. `extra` holds further label columns, name to text;
    empty values count as absent. `rate` is in frames per second, 0 where unknown.
    Raises AqaError when a field breaks the module's conventions.
    """

    key: str
    action: str
    split: str
    score: float
    frames: int
    source_sha256: str
    damage: str = ""
    source_probe: str = ""
    clips: int = 0
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)
    rate: float = 0.0

    def __post_init__(self) -> None:
        """Check every field; make numbers plain and every NaN alike; sort `extra`."""
        if problem := path_problem(self.key):
            raise AqaError(f"key {self.key[:80]!r} {problem}")
        if problem := self._problem():
            raise AqaError(f"sample {self.key!r}: {problem}")
        score = math.nan if math.isnan(self.score) else float(self.score)
        object.__setattr__(self, "score", score)
        object.__setattr__(self, "rate", float(self.rate))
        for name in ("frames", "clips"):
            object.__setattr__(self, name, int(getattr(self, name)))
        extra = {name: text for name, text in sorted(self.extra.items()) if text}
        object.__setattr__(self, "extra", extra)

    def _problem(self) -> str | None:
        if problem := label_problem(self.action, self.split, self.score, self.extra):
            return problem
        if problem := _text_problem(self.damage, MAX_DAMAGE):
            return f"damage {problem}"
        for name in ("frames", "clips"):
            if not 0 <= (count := getattr(self, name)) < 2**31:
                return f"{count} {name}; expected 0 to {2**31 - 1}"
        if not 0 <= self.rate < math.inf:
            return f"a rate of {self.rate} frames per second"
        for name in ("source_sha256", "source_probe"):
            digest = getattr(self, name)
            if digest and not _DIGEST.fullmatch(digest):
                return f"{name} {digest[:80]!r} is no SHA-256"
        return None

    def differences(self, other: "Sample") -> list[str]:
        """Name the fields in which two samples differ; NaN equals NaN.

        `source_probe` and `rate` do not count: `source_sha256` identifies the source,
        and earlier caches have neither.
        """
        mine, others = vars(self), vars(other)
        names = [name for name in mine if name not in ("source_probe", "rate")]
        return [name for name in names if repr(mine[name]) != repr(others[name])]


class SampleTable:
    """Samples in the order of their keys, which are given as columns, too.

    Columns of text are tuples, `score` and `rate` are float64 (N,), `frames` and
    `clips` int32 (N,). `extra` has one column per name, with empty texts where a sample
    has none.
    """

    def __init__(
        self, samples: Sequence[Sample], feature_sha256: Sequence[str]
    ) -> None:
        """Take the samples; AqaError unless keys are sorted and each there once."""
        for before, after in pairwise(sample.key for sample in samples):
            if before == after:
                raise AqaError(f"key {after!r} is there twice")
            if before > after:
                raise AqaError(f"keys are not sorted: {after!r} after {before!r}")
        for sample, digest in zip(samples, feature_sha256, strict=True):
            if not _DIGEST.fullmatch(digest):
                raise AqaError(f"sample {sample.key!r}: feature_sha256 is no SHA-256")
        self._samples = tuple(samples)
        self.feature_sha256 = tuple(feature_sha256)
        self.key = self.column("key")
        self.action, self.split = self.column("action"), self.column("split")
        self.damage = self.column("damage")
        self.score = np.array(self.column("score"), np.float64)
        self.rate = np.array(self.column("rate"), np.float64)
        self.frames = np.array(self.column("frames"), np.int32)
        self.clips = np.array(self.column("clips"), np.int32)
        names = sorted({name for sample in samples for name in sample.extra})
        self.extra = {
            name: tuple(sample.extra.get(name, "") for sample in samples)
            for name in names
        }

    def extra_beside(self, taken: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Return `extra`, with "extra_" in front of names that are taken."""
        return {
            f"extra_{name}" if name in taken else name: texts
            for name, texts in self.extra.items()
        }

    def column(self, name: str) -> tuple[Any, ...]:
        """Return the values of a field of Sample, or `feature_sha256`."""
        if name == "feature_sha256":
            return self.feature_sha256
        return tuple(getattr(sample, name) for sample in self._samples)

    def sha256(self, version: int) -> str:
        """Digest of the table as files of a format version record it.

        Of one JSON list per sample and line: the fields of a Sample in their order
        (`extra` as an object, `rate` only if known), then `feature_sha256`. Version 1
        has neither of `source_probe`, `clips` and `extra`, and `damage` at the end.
        """
        digest = hashlib.sha256()
        for sample, feature_sha256 in zip(self, self.feature_sha256, strict=True):
            *values, rate = vars(sample).values()
            if version == 1:
                values = [*values[:6], feature_sha256, values[6]]
            else:
                values += [rate, feature_sha256] if rate else [feature_sha256]
            digest.update(json.dumps(values).encode() + b"\n")
        return digest.hexdigest()

    def __len__(self) -> int:
        """Count the samples."""
        return len(self._samples)

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples in order."""
        return iter(self._samples)

    def __getitem__(self, row: int) -> Sample:
        """Return the sample of one row; IndexError past the end."""
        return self._samples[row]


def normal_text(text: str) -> str:
    """Return text in Unicode's composed form (NFC) without blanks around it.

    Every key and label that comes from a list or a file name passes through here, so
    that texts that look alike are alike.

    >>> normal_text(" u\\u0308ben ") == "üben"
    True
    """
    return unicodedata.normalize("NFC", text).strip()


def similar_names(names: Sequence[str], ignored: str = "-_ ") -> list[tuple[str, ...]]:
    """Group names that differ only in case, `ignored` and invisible characters.

    >>> similar_names(["diving", "Diving", "gym vault", "gym_vault", "luge"])
    [('Diving', 'diving'), ('gym vault', 'gym_vault')]
    """
    groups: dict[str, set[str]] = {}
    for name in names:
        folded = unicodedata.normalize("NFKC", name).casefold()
        bare = "".join(
            letter
            for letter in folded
            if letter not in ignored and unicodedata.category(letter) != "Cf"
        )
        groups.setdefault(bare, set()).add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def path_problem(path: str) -> str | None:
    """Say why `path` is not a normalised relative path; None when it is one.

    >>> path_problem("diving/../001")
    'is not normalised or leads outside'
    """
    if not path:
        return "is empty"
    if problem := _text_problem(path, MAX_KEY):
        return problem
    if "\\" in path:
        return "holds a backslash; write /"
    if path.startswith("/"):
        return "is absolute"
    if posixpath.normpath(path) != path or path.split("/")[0] in (".", ".."):
        return "is not normalised or leads outside"
    return None


def is_inside(path: Path | str, folder: Path | str) -> bool:
    """Tell whether `path`, all links followed, is `folder` or lies in it."""
    real = os.path.realpath(folder)
    return os.path.commonpath([real, os.path.realpath(path)]) == real


def label_problem(
    action: str, split: str, score: float, extra: Mapping[str, str] | None = None
) -> str | None:
    """Say what is wrong with a label; None when nothing is."""
    if problem := _text_problem(action, MAX_ACTION):
        return f"action {problem}"
    if "/" in action or "\\" in action or action.startswith("."):
        # Files are named after actions.
        return f"action {action!r} cannot be part of a file's name"
    if split not in SPLITS:
        return f"split is {split[:80]!r}, not train, test or empty"
    if math.isinf(score):
        return "score is infinite"
    for name, text in (extra or {}).items():
        if not name or "/" in name or name in (".", ".."):
            return f"column {name[:80]!r} needs another name"
        if problem := _text_problem(name, MAX_EXTRA_NAME):
            return f"the name of column {name[:80]!r} {problem}"
        if problem := _text_problem(text, MAX_EXTRA):
            return f"{name} {problem}"
    return None


def _text_problem(text: str, limit: int) -> str | None:
    if found := _CONTROL.search(text):
        return f"holds the control character {found.group()!r}"
    size = len(text) if text.isascii() else len(text.encode())
    return (
        f"is {size} bytes long, at most {limit} are allowed" if size > limit else None
    )
