"""Arrays that training processes share: held once, however many read them.

Conventions: the memory is a file without a name in the temporary folder ($TMPDIR),
mapped by every process: it is gone when the last of them ends, however it ends, and
needs no room in /dev/shm, which containers keep small.

Videos dealt into folds, for what is learnt inside the training rows.

Conventions: a fold is a set of whole videos, all copies together; folds are numbered
from 0 and as even as can be, within each action and in all.

Cached features as the heads take them, and the scaling of labels.

Conventions: `x` is float32 (N, offsets, clips, D), one row a video, copies by start
offset; `score` is in judges' units, NaN where unlabelled; a row's scaled label is its
score divided by its action's deviation: the standard deviation (ddof 1) of the scores
of TRAINING rows, nothing subtracted (paper, section 5). `rows` are indices into N.
"""

import hashlib
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance
from aqa.cache.store import FeatureCache


class SharedArray:
    """A writable array of zeros of the given shape and type, on a mapped file.

    Handed to a process by multiprocessing, it is the same memory there.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> None:
        """Take room for the array; `AqaError` where there is none."""
        bytes_needed = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        with tempfile.TemporaryFile() as file:
            try:
                # Room is taken now: a full disk is an error here, a crash later.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, bytes_needed)
                else:
                    file.truncate(bytes_needed)
            except OSError as error:
                raise AqaError(
                    f"no room for {bytes_needed / 2**20:.0f} MiB in "
                    f"{tempfile.gettempdir()} ({error.strerror}): "
                    "set TMPDIR to a folder with more"
                ) from error
            self._map(os.dup(file.fileno()), shape, np.dtype(dtype).str)

    def _map(self, file: int, shape: tuple[int, ...], dtype: str) -> None:
        self._file = file
        # The array keeps the mapping alive, and may outlive this object.
        memory = mmap.mmap(file, 0)
        count = int(np.prod(shape))
        self.array: NDArray[Any] = np.frombuffer(memory, dtype, count).reshape(shape)

    def __del__(self) -> None:
        """Let the file go; the array keeps its mapping."""
        if hasattr(self, "_file"):
            os.close(self._file)

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the open file, not the contents."""
        file = reduction.DupFd(self._file)
        return _opened, (file, self.array.shape, self.array.dtype.str)


def share(array: NDArray[Any]) -> SharedArray:
    """Copy an array to where other processes can see it."""
    shared = SharedArray(array.shape, array.dtype)
    shared.array[...] = array
    return shared


def _opened(file: Any, shape: tuple[int, ...], dtype: str) -> SharedArray:
    shared = SharedArray.__new__(SharedArray)
    shared._map(file.detach(), shape, dtype)
    return shared


def deal(actions: NDArray[Any], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold number (n,) of videos with these actions (n,), shuffled by `seed`."""
    order = np.random.default_rng([seed, 2]).permutation(len(actions))
    order = order[np.argsort(actions[order], kind="stable")]
    numbers = np.empty(len(actions), np.int64)
    numbers[order] = np.arange(len(actions)) % min(folds, len(actions))
    return numbers


Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features of N videos, their labels, and what the features were made with.

    `shared` is the memory behind `x` where training processes can map it themselves;
    without it they get a copy. `feature_sha256` (N,) spares hashing rows again;
    `frames` (N,) are the videos' lengths before padding, where they are known; `extra`
    holds further label columns (N,) of text by name.
    """

    x: NDArray[np.float32]
    key: NDArray[Any]
    action: NDArray[Any]
    split: NDArray[Any]
    score: Floats
    provenance: Provenance
    shared: SharedArray | None = None
    feature_sha256: NDArray[Any] | None = None
    frames: NDArray[np.int32] | None = None
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check shapes and types."""
        if self.x.ndim != 4 or self.x.dtype != np.float32 or 0 in self.x.shape[1:]:
            raise AqaError(
                "features must be float32 (videos, offsets, clips, D); "
                f"found {self.x.dtype} {self.x.shape}"
            )
        for name in ("key", "action", "split", "score"):
            if getattr(self, name).shape != (len(self.x),):
                raise AqaError(
                    f"{name}: expected {len(self.x)} values, one a video; "
                    f"found shape {getattr(self, name).shape}"
                )

    def rows(
        self, actions: str | Sequence[str] | None = None, split: str | None = None
    ) -> Rows:
        """Labelled rows of these actions (None: all) and split (None: any), sorted."""
        wanted = np.isfinite(self.score)
        if actions is not None:
            names = [actions] if isinstance(actions, str) else list(actions)
            wanted &= np.isin(self.action, names)
        if split is not None:
            wanted &= self.split == split
        return np.flatnonzero(wanted)

    @cached_property
    def digests(self) -> list[str]:
        """SHA-256 of each row's float32 bytes, in hexadecimal digits."""
        if self.feature_sha256 is not None:
            return [str(digest) for digest in self.feature_sha256]
        return [hashlib.sha256(row.tobytes()).hexdigest() for row in self.x]


def load(cache: Path, actions: Sequence[str] | None = None) -> FeatureSet:
    """Read a cache (of these actions only) into memory that processes can share."""
    with FeatureCache.open(cache) as store:
        table = store.samples
        action = np.array(table.action, dtype=str)
        present = np.unique(action)
        wanted = present if actions is None else np.array(actions, dtype=str)
        missing = np.setdiff1d(wanted, present)
        if len(missing):
            raise AqaError(
                f"{cache}: no sample of {', '.join(missing)}; "
                f"it holds {', '.join(present) or 'nothing'}"
            )
        rows = np.flatnonzero(np.isin(action, wanted))
        shared = SharedArray((len(rows), *store.shape[1:]))
        store.read([int(row) for row in rows], out=shared.array)
        return FeatureSet(
            x=shared.array,
            key=np.array(table.key, dtype=str)[rows],
            action=action[rows],
            split=np.array(table.split, dtype=str)[rows],
            score=np.array(table.score, dtype=np.float64)[rows],
            provenance=store.provenance,
            shared=shared,
            feature_sha256=np.array(table.feature_sha256, dtype=str)[rows],
            frames=table.frames[rows],
        )


def deviations(features: FeatureSet, rows: Sequence[int] | Rows) -> dict[str, float]:
    """Each action's standard deviation (ddof 1) of the scores of these rows only.

    Raises `AqaError` for an unlabelled row, and for an action with fewer than two
    rows or with one score throughout: its labels cannot be scaled.
    """
    chosen = np.asarray(rows, dtype=np.int64)
    unlabelled = chosen[~np.isfinite(features.score[chosen])]
    if len(unlabelled):
        raise AqaError(
            f"{features.key[unlabelled[0]]}: no score, so it cannot train "
            f"({len(unlabelled)} such rows)"
        )
    result = {}
    for action in np.unique(features.action[chosen]):
        scores = features.score[chosen[features.action[chosen] == action]]
        if len(scores) < 2:
            raise AqaError(
                f"{action}: one training sample, no deviation to scale by; "
                "at least two are needed"
            )
        deviation = float(np.std(scores, ddof=1))
        # Rounding leaves a trace of a deviation where all scores are the same.
        if np.ptp(scores) == 0 or deviation == 0:
            raise AqaError(
                f"{action}: all {len(scores)} training scores are {scores[0]:g}; "
                "scores that differ are needed"
            )
        result[str(action)] = deviation
    return result


def scaled_labels(features: FeatureSet, scale: Mapping[str, float]) -> Floats:
    """Score over its action's deviation (N,); NaN unlabelled or without deviation."""
    divisor = [scale.get(str(action), np.nan) for action in features.action]
    return np.asarray(features.score / np.array(divisor, dtype=np.float64))
