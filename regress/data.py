"""Features and labels in memory, label scaling, folds.

Conventions: `x` is float32 (N, offsets, clips, D), one row per sample, copies by start
offset; `score` is in judges' units, NaN where unlabelled; `rows` are indices into N.
Features lie on a mapped file in the temporary folder ($TMPDIR), so that training
processes share them; it has no name, is gone with the last process, and needs no room
in /dev/shm, which containers keep small.
"""

import hashlib
import math
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from aqa.cache.actions import paper_omits
from aqa.cache.errors import AqaError
from aqa.cache.messages import OpenFile
from aqa.cache.provenance import Provenance
from aqa.cache.samples import SampleTable
from aqa.cache.store import FeatureCache
from aqa.regress.config import LABEL_SCALES

#: A rank correlation of fewer test samples is not reported: of two it is 1 or -1.
LEAST_TEST = 3

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


class SharedArray:
    """A writable array of zeros that processes share.

    Passed to a child process, it is the same memory there. Raises `AqaError` where the
    disk has no room.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> None:
        """Allocate the array."""
        bytes_needed = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        with tempfile.TemporaryFile() as file:
            try:
                # Allocate now: a full disk is an error here, but a crash on access.
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
        # The array keeps the mapping alive and may outlive this object.
        memory = mmap.mmap(file, 0)
        count = int(np.prod(shape))
        self.array: NDArray[Any] = np.frombuffer(memory, dtype, count).reshape(shape)

    def __del__(self) -> None:
        """Close the file; the array keeps its mapping."""
        if hasattr(self, "_file"):
            os.close(self._file)

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the open file, not the contents."""
        file = OpenFile(self._file)
        return _opened, (file, self.array.shape, self.array.dtype.str)


def _opened(file: OpenFile, shape: tuple[int, ...], dtype: str) -> SharedArray:
    shared = SharedArray.__new__(SharedArray)
    shared._map(file.descriptor, shape, dtype)
    return shared


def share(array: NDArray[Any]) -> SharedArray:
    """Copy an array into shared memory."""
    shared = SharedArray(array.shape, array.dtype)
    shared.array[...] = array
    return shared


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features of N samples, their labels, and what the features were made with.

    `shared` is the memory behind `x` where training processes can map it (without it
    they get a copy); `feature_sha256` (N,) saves hashing rows again; `frames` (N,) are
    video lengths before padding and `rate` (N,) frames per second, 0 where unknown;
    `clips` (N,) counts the real clips of
    each row, the last ones, where some rows begin with padding that is to be ignored;
    `extra` holds further label columns (N,) of text by name. Raises `AqaError` for
    other shapes and types.
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
    rate: Floats | None = None
    clips: NDArray[np.int32] | None = None
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check shapes and types."""
        if self.x.ndim != 4 or self.x.dtype != np.float32 or 0 in self.x.shape[1:]:
            raise AqaError(
                "features must be float32 (videos, offsets, clips, D); "
                f"found {self.x.dtype} {self.x.shape}"
            )
        for name in ("key", "action", "split", "score"):
            values = getattr(self, name)
            if values.shape != (len(self.x),):
                raise AqaError(
                    f"{name}: expected {len(self.x)} values, one per video; "
                    f"found shape {values.shape}"
                )
        if self.clips is not None:
            _check_clips(self.clips, len(self.x), self.x.shape[2])

    def __getstate__(self) -> dict[str, Any]:
        """Leave shared features out: a process that gets `shared` has them."""
        return vars(self) | ({} if self.shared is None else {"x": None})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take shared features from their memory."""
        x = state["shared"].array if state["x"] is None else state["x"]
        vars(self).update(state | {"x": x})

    @property
    def kind(self) -> str:
        """The name of the features in their provenance, such as "c3d"."""
        return str(self.provenance.record.get("features", "unnamed"))

    def rows(
        self, actions: str | Sequence[str] | None = None, split: str | None = None
    ) -> Rows:
        """Return the labelled rows of these actions (None: all) and split (None: any).

        Sorted.
        """
        wanted = np.isfinite(self.score)
        if actions is not None:
            names = [actions] if isinstance(actions, str) else list(actions)
            wanted &= np.isin(self.action, names)
        if split is not None:
            wanted &= self.split == split
        return np.flatnonzero(wanted)

    def unasked_actions(self, split: str | None = None) -> tuple[list[str], list[str]]:
        """Return the labelled actions where none is asked for, and what is left out."""
        actions, left_out = [], []
        for name in np.unique(self.action[self.rows(split=split)]).tolist():
            if paper_omits(name, self.key[self.action == name].tolist()):
                left_out.append(
                    f"left out: AQA-7's {name}, as in the paper; --actions with "
                    f"{name} among the names includes it"
                )
            else:
                actions.append(name)
        return actions, left_out

    def clip_means(self, rows: Sequence[int] | Rows, copies: int = 1) -> Floats:
        """Return the mean over real clips of the rows' first copies (n * copies, D)."""
        means = []
        for row in rows:  # one by one: features are held once
            real = self.x.shape[2] if self.clips is None else self.clips[row]
            means.append(self.x[row, :copies, -real:].mean(-2, dtype=np.float64))
        return np.array(means).reshape(-1, self.x.shape[-1])

    def clips_of(self, rows: Rows) -> NDArray[np.int32] | None:
        """Return the real clips of rows (n,), None where all are real."""
        return None if self.clips is None else self.clips[rows]

    @cached_property
    def digests(self) -> list[str]:
        """SHA-256 of each row's float32 bytes, in hexadecimal digits."""
        if self.feature_sha256 is not None:
            return [str(digest) for digest in self.feature_sha256]
        return [hashlib.sha256(row.tobytes()).hexdigest() for row in self.x]


def load(cache: Path, actions: Sequence[str] | None = None) -> FeatureSet:
    """Read a cache, or these actions of it, into memory that processes can share."""
    with FeatureCache.open(cache) as store:
        table = store.samples
        action = _named(cache, table, actions is None)
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
            rate=table.rate[rows],
            clips=store.real_clips[rows] if table.clips[rows].any() else None,
            extra={
                name: np.array(values, dtype=str)[rows]
                for name, values in table.extra.items()
            },
        )


#: The action of all samples where none has a name.
ALL = "all"


def _named(cache: Path, table: SampleTable, needed: bool) -> NDArray[Any]:
    """Return the action of each sample (N,), raise where a score needs one."""
    action = np.array(table.action, dtype=str)
    unnamed = (action == "") & np.isfinite(table.score)
    if not action.any():
        action = np.full(len(action), ALL)
    elif needed and unnamed.any():
        raise AqaError(
            f"{cache}: {unnamed.sum()} samples have a score and no action (first: "
            f"{table.key[int(unnamed.argmax())]}), where others have one: name it with "
            "`aqa cache relabel`"
        )
    return action


def split_padding(
    x: NDArray[np.float32], clips: ArrayLike | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int32] | None]:
    """Return finite features, and the real clips (n,), None where no row is padded.

    x: (n, copies, clips, D), each row padded in front: with clips of NaN, or with
    anything before the last `clips` (n,). Raises `AqaError` for other numbers that are
    not finite, and for `clips` that cannot be.
    """
    length = x.shape[2]
    if clips is None:
        real = np.maximum(1, length - np.isnan(x).all(axis=(1, 3)).sum(1))
    else:
        real = np.asarray(clips)
        if real.dtype.kind not in "iu":
            raise AqaError(f"clips: expected whole numbers, found {real.dtype}")
    _check_clips(real, len(x), length)
    padding = np.arange(length) < length - real[:, None]  # (n, clips)
    if padding.any():
        x = np.where(padding[:, None, :, None], np.float32(0), x)
    if not np.isfinite(x).all():
        raise AqaError(
            "features: expected finite float32 numbers, or whole clips of NaN in front "
            "of the others as padding; found others"
        )
    return x, real.astype(np.int32) if padding.any() else None


def _check_clips(clips: NDArray[Any], rows: int, length: int) -> None:
    if clips.shape != (rows,):
        raise AqaError(
            f"clips: expected {rows} values, one per video; found shape {clips.shape}"
        )
    if (outside := (clips < 1) | (clips > length)).any():
        raise AqaError(f"clips: expected 1 to {length}; found {clips[outside][0]}")


@dataclass(frozen=True)
class LabelScale:
    """Affine map between judges' units and the scaled labels that heads learn.

    scaled = (score - offset) / scale, with offset and scale per action. `kind` is one
    of `LABEL_SCALES`, or "rank" for the outputs of a ranking head.
    """

    kind: str
    offset: Mapping[str, float]
    scale: Mapping[str, float]

    def __post_init__(self) -> None:
        """Check kind and numbers; raises `AqaError`."""
        if self.kind not in (*LABEL_SCALES, "rank"):
            raise AqaError(f"label scale {str(self.kind)[:60]!r} is not known")
        if self.offset.keys() != self.scale.keys():
            raise AqaError("label scale: offset and scale are of different actions")
        for action, scale in self.scale.items():
            if not (math.isfinite(scale) and scale > 0):
                raise AqaError(f"{action}: a label scale is above 0, not {scale}")
            if not math.isfinite(self.offset[action]):
                raise AqaError(f"{action}: the offset of its labels is not finite")

    @classmethod
    def learn(
        cls, features: FeatureSet, rows: Sequence[int] | Rows, kind: str = "std"
    ) -> "LabelScale":
        """Learn the scale of each action from the scores of these rows only.

        The scale is the standard deviation (ddof 1); the offset is 0 for "std" and the
        mean for "zscore". Raises `AqaError` for an unlabelled row and for an action
        with fewer than two rows or with one score throughout.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        unlabelled = chosen[~np.isfinite(features.score[chosen])]
        if len(unlabelled):
            raise AqaError(
                f"{features.key[unlabelled[0]]}: no score, so it cannot train "
                f"({len(unlabelled)} such rows)"
            )
        offset, scale = {}, {}
        for action in np.unique(features.action[chosen]):
            name = str(action)
            scores = features.score[chosen[features.action[chosen] == action]]
            if len(scores) < 2:
                raise AqaError(
                    f"{name}: one training sample has no standard deviation to scale "
                    "by; at least two are needed, or --actions without it"
                )
            with np.errstate(over="ignore", invalid="ignore"):
                std, spread = float(np.std(scores, ddof=1)), np.ptp(scores)
            # Equal scores may leave a standard deviation of rounding.
            if spread == 0:
                raise AqaError(
                    f"{name}: all {len(scores)} training scores are {scores[0]:g}; "
                    "scores that differ are needed"
                )
            if not (math.isfinite(std) and std > 0):
                raise AqaError(
                    f"{name}: training scores from {scores.min():g} to "
                    f"{scores.max():g} have no standard deviation in double "
                    "precision; write them in another unit"
                )
            scale[name] = std
            offset[name] = float(scores.mean()) if kind == "zscore" else 0.0
        return cls(kind, offset, scale)

    def to_scaled(self, scores: ArrayLike, action: str | NDArray[Any]) -> Floats:
        """Scale scores of one action, or of an action per score.

        NaN for unlabelled samples and for actions without a scale.
        """
        offset, scale = self._of(action)
        return np.asarray((np.asarray(scores, np.float64) - offset) / scale)

    def to_units(self, scaled: ArrayLike, action: str | NDArray[Any]) -> Floats:
        """Return predictions of one action, or of an action each, in judges' units."""
        offset, scale = self._of(action)
        return np.asarray(np.asarray(scaled, np.float64) * scale + offset)

    def _of(self, action: str | NDArray[Any]) -> tuple[Floats, Floats]:
        names = np.asarray(action)
        offset, scale = np.full(names.shape, np.nan), np.full(names.shape, np.nan)
        for name in self.scale:
            offset[names == name] = self.offset[name]
            scale[names == name] = self.scale[name]
        return offset, scale


def scaling_std(mean: Floats, variance: Floats, count: int) -> Floats:
    """Return the standard deviations (D,) to divide by; 1 for constant columns.

    A column is constant if its variance over `count` samples is no more than rounding:
    by the bound of scikit-learn's StandardScaler for float64 arithmetic, or within a
    few units in the last place of its mean in float32, in which features are stored.
    """
    double, single = np.finfo(np.float64).eps, np.finfo(np.float32).eps
    rounding = count * double * variance + (count * mean * double) ** 2
    constant = (variance <= rounding) | (variance <= (2 * single * mean) ** 2)
    return np.where(constant, 1.0, np.sqrt(variance))


def deal(actions: NDArray[Any], folds: int, seed: int) -> NDArray[np.int64]:
    """Return a fold number (n,) from 0 for samples with these actions (n,).

    Folds are stratified by action, of sizes that differ by at most one, in all and
    within each action; `seed` shuffles.
    """
    order = np.random.default_rng([seed, 2]).permutation(len(actions))
    order = order[np.argsort(actions[order], kind="stable")]
    numbers = np.empty(len(actions), np.int64)
    numbers[order] = np.arange(len(actions)) % min(folds, len(actions))
    return numbers
