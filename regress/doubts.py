"""What is doubtful about the samples of a study before anything is trained on them.

Conventions: doubts are sentences for the user; nothing is refused or left out. `folds`
are as in `aqa.regress.splits`; scores are in judges' units.
"""

from collections.abc import Iterator, Sequence

from aqa.cache.errors import counted
from aqa.regress.data import LEAST_TEST, FeatureSet, Floats
from aqa.regress.splits import Fold

#: Fewest scores of an action that tell what is usual.
LEAST_SCORES = 5
#: A score is far away if nothing is nearer than the range of the others, times this.
FAR = 1.0


def doubts(
    features: FeatureSet, folds: Sequence[Fold], actions: Sequence[str]
) -> list[str]:
    """Return what is doubtful about the labelled samples of these actions."""
    found = [*_shared(folds, actions)]
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
        train, test = (features.rows(actions, name) for name in ("train", "test"))
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
