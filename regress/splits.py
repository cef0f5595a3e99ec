"""Which samples train and which test, and what is doubtful about them.

Conventions: a fold is a `FeatureSet` whose `split` column says "train" or "test" (empty
for samples of neither list); all folds share the arrays of the set they are made of.
Over the folds of a cross-validation each labelled sample is tested exactly once. Doubts
about the samples of a study are sentences for the user; nothing is refused or left out.

The heads of a cross-validation are judged together, on predictions that are aligned:
see `join_folds`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa.cache.errors import AqaError, counted
from aqa.cache.samples import similar_names
from aqa.regress.config import SplitConfig
from aqa.regress.data import LEAST_TEST, FeatureSet, Floats, LabelScale, Rows, deal

#: Fewest scores of an action that tell what is usual.
LEAST_SCORES = 5
#: A score is far away if nothing is nearer than the range of the others, times this.
FAR = 1.0


@dataclass(frozen=True, eq=False)
class Fold:
    """One division into training and test samples; `name` is "" for a fixed split."""

    name: str
    features: FeatureSet

    def train_rows(self, actions: str | Sequence[str]) -> Rows:
        """Return labelled training rows of these actions, in the cache's order."""
        return self.features.rows(actions, "train")

    def test_rows(self, actions: str | Sequence[str]) -> Rows:
        """Return labelled test rows of these actions, in the cache's order."""
        return self.features.rows(actions, "test")


@dataclass(frozen=True, eq=False)
class Split:
    """The folds of a study.

    `groups` (N,) names the group of each sample where whole groups are left out (else
    None): such samples are not independent, and intervals resample groups. `words`
    describe the split in a report.
    """

    folds: tuple[Fold, ...]
    groups: NDArray[Any] | None
    words: str

    @property
    def fixed(self) -> bool:
        """Whether this is one fixed split."""
        return not self.folds[0].name


def split_features(features: FeatureSet, config: SplitConfig) -> Split:
    """Divide the samples as `config` asks.

    Raises `AqaError` for a column that does not exist, is empty for a labelled sample
    or has one value only, and for a number of folds below 2 or above the samples.
    """
    if config.folds is not None and config.leave_one_out is not None:
        raise AqaError("folds and leave-one-out are two splits: ask for one of them")
    if config.leave_one_out is not None:
        name = config.leave_one_out
        values = _column(features, name)
        folds = _folds(features, values, f"{name} ")
        words = f"leave one {name} out: {len(folds)} folds, each tests one {name}"
        return Split(folds, values, words)
    if config.folds is None:
        return Split((Fold("", features),), None, "the fixed split of the cache")
    if isinstance(config.folds, str):
        values = _column(features, config.folds)
        folds = _folds(features, values, f"{config.folds} ")
        words = f"{len(folds)} folds given by the column {config.folds}"
        return Split(folds, None, words)
    folds = _folds(features, _dealt(features, config.folds, config.seed), "fold ")
    words = f"{len(folds)} folds, stratified by action, dealt with seed {config.seed}"
    return Split(folds, None, words)


def _dealt(features: FeatureSet, folds: int, seed: int) -> NDArray[Any]:
    """Return the fold (N,) of each labelled sample, as text from "1"."""
    rows = features.rows()
    if not 2 <= folds <= len(rows):
        raise AqaError(
            f"folds: expected 2 to {len(rows)}, the labelled samples; found {folds}"
        )
    values = np.full(len(features.key), "", dtype="U20")
    values[rows] = deal(features.action[rows], folds, seed) + 1
    return values


def _column(features: FeatureSet, name: str) -> NDArray[Any]:
    """Return an extra label column (N,) that divides the labelled samples."""
    if name not in features.extra:
        raise AqaError(
            f"no label column {name}; this cache has "
            f"{', '.join(sorted(features.extra)) or 'no extra columns'}. Import or "
            "relabel with a CSV that has it"
        )
    values = np.asarray(features.extra[name])
    rows = features.rows()
    empty = [str(features.key[row]) for row in rows if not values[row]]
    if empty:
        raise AqaError(
            f"column {name}: {len(empty)} labelled samples have no value "
            f"(first {empty[0]})"
        )
    if len(np.unique(values[rows])) < 2:
        raise AqaError(f"column {name}: one value only, so nothing is left to train on")
    for same in similar_names(np.unique(values[rows]).tolist(), ignored=" "):
        raise AqaError(
            f"column {name}: {' and '.join(map(repr, same))} differ in case or blanks "
            "only: if they are one, it would train and test; spell each value in one "
            "way (`aqa cache relabel`)"
        )
    return values


def _folds(features: FeatureSet, values: NDArray[Any], prefix: str) -> tuple[Fold, ...]:
    """Make one fold per value: samples that have it test, all others train."""
    labelled = np.isfinite(features.score)
    folds = []
    for value in in_order(np.unique(values[labelled]).tolist()):
        lists = np.where(values == value, "test", "train")
        split = np.where(labelled, lists, "")
        folds.append(Fold(prefix + value, replace(features, split=split)))
    return tuple(folds)


def shortage(split: Split, action: str) -> str:
    """Say why an action cannot be judged; empty where it can.

    It needs `LEAST_TEST` labelled test samples and, in every fold that tests it or
    others, training scores that differ.
    """
    tests = sum(len(fold.test_rows(action)) for fold in split.folds)
    if tests < LEAST_TEST:
        return (
            f"{action}: {counted(tests, 'labelled test sample')}; at least "
            f"{LEAST_TEST} are needed"
        )
    for fold in split.folds:
        train = fold.train_rows(action)
        if len(train) == 0:
            within = f" in {fold.name}" if fold.name else ""
            return f"{action}: no labelled training sample{within}"
        try:
            LabelScale.learn(fold.features, train)
        except AqaError as error:
            return str(error)
    return ""


def join_folds(
    predicted: Sequence[Floats], tested: Sequence[NDArray[np.bool_]]
) -> tuple[Floats, Floats]:
    """Join the held-out predictions of the folds' heads: as they are, and aligned.

    Each head predicts all n samples of an action (..., n) and tests those of its mask
    (n,). Aligned predictions, the ones to rank, are shifted so that all heads have one
    mean over the n samples, that of the first sample's head. A head that knows nothing
    predicts about the mean of its training scores, which is low where the scores that
    it tests are high: ranked as they are, such predictions agree with the judges far
    less often than by chance (rho of -0.3 for 33 samples in 6 groups;
    benchmarks/interval_coverage.py). One fold is not shifted at all.
    """
    joined = np.empty(predicted[0].shape)
    shift = np.empty(predicted[0].shape)
    for found, own in zip(predicted, tested, strict=True):
        joined[..., own] = found[..., own]
        shift[..., own] = -found.mean(-1, keepdims=True)
    return joined, joined + (shift - shift[..., :1])


def in_order(values: Sequence[str]) -> list[str]:
    """Sort values as numbers where all are whole numbers, else as text."""
    if all(value.isdecimal() for value in values):
        return sorted(values, key=int)
    return sorted(values)


def doubts(
    features: FeatureSet, folds: Sequence[Fold], actions: Sequence[str]
) -> list[str]:
    """Return what is doubtful about the labelled samples of these actions."""
    found = [*_shared(folds, actions)]
    found += [
        f"{' and '.join(map(repr, same))} differ in blanks, - or _ only, and are "
        f"{len(same)} folds"
        for same in similar_names([fold.name for fold in folds])
    ]
    for action in actions:
        scores = features.score[features.rows(action)]
        found += [f"{action}: {line}" for line in _codes(scores)]
        if len(folds) == 1:
            both = (features.rows(action, name) for name in ("train", "test"))
            found += [
                f"{action}: {line}"
                for line in _units(*(features.score[rows] for rows in both))
            ]
    return found


def _shared(folds: Sequence[Fold], actions: Sequence[str]) -> Iterator[str]:
    """Name test samples whose features are those of a sample that trains."""
    twins: dict[str, str] = {}
    tests = 0
    for fold in folds:
        features = fold.features
        train, test = fold.train_rows(actions), fold.test_rows(actions)
        known = {features.digests[row]: str(features.key[row]) for row in train}
        tests += len(test)
        for row in test:
            if (digest := features.digests[row]) in known:
                twins[str(features.key[row])] = known[digest]
    if twins:
        key = min(twins)
        yield (
            f"{len(twins)} of {counted(tests, 'test sample')} have the very features "
            f"of a training sample (first: {key} is {twins[key]}): if they are the "
            "same video, what is measured there is memory"
        )


def _codes(scores: Floats) -> Iterator[str]:
    """Name scores that may stand for "missing": -1 among positive ones, 999, ..."""
    for value in {scores.min(), scores.max()} if len(scores) else ():
        others = scores[scores != value]
        if len(others) < LEAST_SCORES or 2 * len(others) < len(scores):
            continue
        low, high = float(others.min()), float(others.max())
        distance = max(low - value, value - high)
        alone = value < 0 <= low and float(value).is_integer()
        if alone or (high > low and distance > FAR * (high - low)):
            yield (
                f"the score {value:g} ({counted(len(scores) - len(others), 'sample')}) "
                f"is far from all others ({low:g} to {high:g}): if it stands for a "
                "missing one, leave the cell empty"
            )


def _units(train: Floats, test: Floats) -> Iterator[str]:
    """Say where no test score lies among the training scores."""
    if min(len(train), len(test)) < LEAST_TEST:
        return
    if test.min() > train.max() or test.max() < train.min():
        yield (
            f"test scores ({test.min():g} to {test.max():g}) lie outside the training "
            f"scores ({train.min():g} to {train.max():g}): are they in other units?"
        )
