"""What the cache knows of each video beside its features: labels and origin.

Conventions: `key` is a normalised relative POSIX path (`diving/001`) and orders the
samples, by code point; `split` is `train`, `test` or empty; `score` is in judges'
units, NaN where unlabelled; `frames` counts decoded frames before padding; digests
are SHA-256 in lower-case hexadecimal. Texts are one line of UTF-8 without control
characters.
"""

import hashlib
import json
import math
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aqa.cache.errors import AqaError

SPLITS = ("train", "test", "")

#: Longest text of each kind, in bytes of UTF-8.
MAX_KEY, MAX_ACTION, MAX_DAMAGE = 1024, 255, 1024

# C0, DEL and C1, the line separators, and what UTF-8 cannot hold.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Sample:
    """One video: its place in the data set, its labels and where it came from.

    `source_sha256` is of the video file, empty where unknown; `damage` says in words
    what was wrong with a video that was taken all the same. Raises AqaError when a
    field breaks the module's conventions.
    """

    key: str
    action: str
    split: str
    score: float
    frames: int
    source_sha256: str
    damage: str = ""

    def __post_init__(self) -> None:
        """Check every field, and bring every NaN to the same bits."""
        if problem := path_problem(self.key):
            raise AqaError(f"key {self.key[:80]!r} {problem}")
        problem = label_problem(self.action, self.split, self.score)
        if problem is None and (ill := _text_problem(self.damage, MAX_DAMAGE)):
            problem = f"damage {ill}"
        if problem is None and not 0 <= self.frames < 2**31:
            problem = f"{self.frames} frames; expected 0 to {2**31 - 1}"
        if problem is None and self.source_sha256 and not is_digest(self.source_sha256):
            problem = f"source_sha256 {self.source_sha256[:80]!r} is no SHA-256"
        if problem:
            raise AqaError(f"sample {self.key!r}: {problem}")
        if math.isnan(self.score):
            object.__setattr__(self, "score", math.nan)

    def differences(self, other: "Sample") -> list[str]:
        """Name the fields in which two samples differ; NaN equals NaN."""
        mine, others = vars(self), vars(other)
        return [name for name in mine if repr(mine[name]) != repr(others[name])]


@dataclass(frozen=True, eq=False)
class SampleTable:
    """Samples as columns, in the order of their keys; `table[row]` is a Sample.

    Strings are tuples of str, `score` is float64 (N,), `frames` int32 (N,).
    """

    key: tuple[str, ...]
    action: tuple[str, ...]
    split: tuple[str, ...]
    score: NDArray[np.float64]
    frames: NDArray[np.int32]
    source_sha256: tuple[str, ...]
    feature_sha256: tuple[str, ...]
    damage: tuple[str, ...]

    @classmethod
    def of(
        cls, samples: Sequence[Sample], feature_sha256: Sequence[str]
    ) -> "SampleTable":
        """Make the table; AqaError unless keys are sorted and each there once."""
        for before, after in zip(samples, samples[1:], strict=False):
            if before.key == after.key:
                raise AqaError(f"key {after.key!r} is there twice")
            if before.key > after.key:
                raise AqaError(
                    f"keys are not sorted: {after.key!r} after {before.key!r}"
                )
        for sample, digest in zip(samples, feature_sha256, strict=True):
            if not is_digest(digest):
                raise AqaError(f"sample {sample.key!r}: feature_sha256 is no SHA-256")
        return cls(
            key=tuple(sample.key for sample in samples),
            action=tuple(sample.action for sample in samples),
            split=tuple(sample.split for sample in samples),
            score=np.array([sample.score for sample in samples], np.float64),
            frames=np.array([sample.frames for sample in samples], np.int32),
            source_sha256=tuple(sample.source_sha256 for sample in samples),
            feature_sha256=tuple(feature_sha256),
            damage=tuple(sample.damage for sample in samples),
        )

    @property
    def sha256(self) -> str:
        """Digest of the whole table: one JSON list a line, in the order of fields."""
        columns = (
            self.key,
            self.action,
            self.split,
            self.score.tolist(),
            self.frames.tolist(),
            self.source_sha256,
            self.feature_sha256,
            self.damage,
        )
        lines = "".join(json.dumps(row) + "\n" for row in zip(*columns, strict=True))
        return hashlib.sha256(lines.encode()).hexdigest()

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.key)

    def __getitem__(self, row: int) -> Sample:
        """Return the sample of one row; IndexError past the end."""
        return Sample(
            key=self.key[row],
            action=self.action[row],
            split=self.split[row],
            score=float(self.score[row]),
            frames=int(self.frames[row]),
            source_sha256=self.source_sha256[row],
            damage=self.damage[row],
        )


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
        return "holds a backslash"
    if path.startswith("/"):
        return "is absolute"
    if posixpath.normpath(path) != path or path.split("/")[0] in (".", ".."):
        return "is not normalised or leads outside"
    return None


def label_problem(action: str, split: str, score: float) -> str | None:
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
    return None


def is_digest(text: str) -> bool:
    """Tell whether `text` is a SHA-256 in lower-case hexadecimal."""
    return _DIGEST.fullmatch(text) is not None


def _text_problem(text: str, limit: int) -> str | None:
    if found := _CONTROL.search(text):
        return f"holds the control character {found.group()!r}"
    size = len(text) if text.isascii() else len(text.encode())
    return (
        f"is {size} bytes long, at most {limit} are allowed" if size > limit else None
    )
