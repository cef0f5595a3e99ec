"""SVRs of an experiment: what each is fitted to, chose, and predicts.

Conventions: a frozen task is the key of its outcome, as with LSTM heads. Predictions
are (copies, n) in scaled units for the task's test rows; they lie in the same store as
the heads, with the choice in the file's header. The seed deals the folds of the
cross-validation that chooses; all else about an SVR is determined.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.cache.processes import process_outcomes, usable_processors
from aqa.regress.config import SvrConfig
from aqa.regress.data import FeatureSet, Floats
from aqa.regress.heads.svr import fit_svr
from aqa.regress.heads.tasks import Arrays, HeadStore, Stored

#: Training samples of all SVRs together from which on processes are worth their start.
WORTH_PROCESSES = 2_000
#: Raised by one when the same task would now predict otherwise.
VERSION = 3


@dataclass(frozen=True)
class SvrTask:
    """An SVR to fit to `rows` with these scaled labels, and to try on `tests`.

    `cache` labels the cache that the features are from.
    """

    #: For messages alone.
    name: str = field(compare=False)
    cache: str
    rows: tuple[int, ...]
    targets: tuple[float, ...]
    tests: tuple[int, ...]
    config: SvrConfig
    seed: int

    def digest(self, features: FeatureSet) -> str:
        """Return the SHA-256 over everything that makes the predictions."""
        train, test = (
            [(str(features.key[row]), features.digests[row]) for row in rows]
            for rows in (self.rows, self.tests)
        )
        record = {
            "version": VERSION,
            "config": asdict(self.config),
            "seed": self.seed,
            "train": train,
            "targets": [target.hex() for target in self.targets],
            "test": test,
            "provenance": features.provenance.sha256,
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class TriedSvr:
    """What an SVR chose (kernel, cost, epsilon, nu) and predicts (copies, n).

    `choice` also says whether it `converged`, and `notes` on it.
    """

    choice: dict[str, Any]
    predicted: Floats

    @classmethod
    def of(cls, arrays: Arrays, header: Mapping[str, str]) -> "TriedSvr":
        """Make it of a file's arrays and header; KeyError where one is missing."""
        return cls(json.loads(header["choice"]), arrays["predicted"])


def fit_svrs(
    tasks: Sequence[SvrTask],
    features: Mapping[str, FeatureSet],
    store: HeadStore,
    workers: int | None = None,
    progress: Progress = silent,
) -> Mapping[SvrTask, TriedSvr]:
    """Fit each task's SVR, or take it from the store.

    `features` holds each cache by its label; `workers` processes fit (None: one per
    usable processor) where that is worth their start.
    """
    digests = {task: task.digest(features[task.cache]) for task in tasks}
    missing = [task for task in digests if digests[task] not in store]
    large = sum(len(task.rows) for task in missing) > WORTH_PROCESSES
    outcomes: Iterator[TriedSvr | AqaError] = (
        process_outcomes(_try, missing, workers, prepare=_hold, arguments=(features,))
        if large and (workers or usable_processors()) > 1
        else map(_try, missing)
    )
    _hold(features)
    for done, task in enumerate(missing):
        progress(done, len(missing), f"{done} of {len(missing)} SVRs fitted")
        tried = next(outcomes)
        if isinstance(tried, AqaError):
            raise AqaError(f"{task.name}: {tried}")
        header = {"choice": json.dumps(tried.choice)}
        store.write(digests[task], {"predicted": tried.predicted}, header)
    progress(1, 1, f"{len(missing)} of {len(missing)} SVRs fitted" if missing else "")
    return Stored(digests, partial(store.read, make=TriedSvr.of))


#: The features of each cache in this process; workers get them as shared memory.
_features: Mapping[str, FeatureSet] = {}


def _hold(features: Mapping[str, FeatureSet]) -> None:
    global _features
    _features = features


def _try(task: SvrTask) -> TriedSvr:
    """Fit an SVR and predict the task's test rows."""
    features = _features[task.cache]
    targets = np.full(len(features.key), np.nan)
    targets[list(task.rows)] = task.targets
    head = fit_svr(features, targets, task.rows, task.config, task.seed)
    tests = list(task.tests)
    x = features.x[tests]
    clips = None if features.clips is None else features.clips[tests]
    copies = [head.predict(x[:, copy], clips) for copy in range(x.shape[1])]
    choice = asdict(head.choice) | {"converged": head.converged, "notes": head.notes}
    return TriedSvr(choice, np.stack(copies))
