"""Heads that `compare` needs the predictions of: how they are fitted and tried.

Conventions: a frozen task is the key of its outcome. Predictions are (copies, n) in
scaled labels for the task's test rows; they lie in the store of finished heads, with
what the head chose in the file's header. A kind of head whose heads train together
has the three functions `task_of`, `train_tasks` and `predict_rows` in its own module,
as `lstm` does; all others take those of this module, which fits each by itself.
"""

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.cache.processes import process_outcomes, usable_processors
from aqa.regress.config import FitConfig, TrainingConfig
from aqa.regress.data import FeatureSet, Floats, Rows
from aqa.regress.heads.base import Part, kind_of
from aqa.regress.heads.tasks import Arrays, HeadStore, Stored, identities

#: Training samples of all heads together from which on processes are worth their start.
WORTH_PROCESSES = 2_000


@dataclass(frozen=True)
class Trial:
    """A head to fit to `rows` with these scaled labels, and to try on `tests`."""

    #: For messages alone.
    name: str = field(compare=False)
    rows: tuple[int, ...]
    targets: tuple[float, ...]
    tests: tuple[int, ...]
    config: FitConfig
    #: About as many iterations of an LSTM take as long.
    cost: ClassVar[int] = 300

    @property
    def kind(self) -> str:
        """The kind of the head."""
        return self.config.head

    def digest(self, features: FeatureSet) -> str:
        """Return the SHA-256 over everything that makes the predictions."""
        config = replace(self.config, device="auto", workers=None)
        record = {
            "made by": inspect.getsource(kind_of(self.kind)),
            "config": asdict(config),
            "train": identities(features, self.rows),
            "targets": [target.hex() for target in self.targets],
            "test": identities(features, self.tests),
            "provenance": features.provenance.sha256,
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Tried:
    """What a head predicts (copies, n), what it chose and, as `notes`, warns of."""

    choice: dict[str, Any]
    predicted: Floats

    @classmethod
    def of(cls, arrays: Arrays, header: Mapping[str, str]) -> "Tried":
        """Make it of a file's arrays and header; KeyError where one is missing."""
        return cls(json.loads(header["choice"]), arrays["predicted"])


def trainer_of(head: str) -> Any:
    """Return the module with the three functions for a kind of head."""
    kind = kind_of(head)
    return kind if hasattr(kind, "train_tasks") else import_module(__name__)


def task_of(_: FeatureSet, part: Part, tests: Rows, config: FitConfig) -> Trial:
    """Return the task of a head that learns a part and is tried on `tests`, sorted."""
    return Trial(
        part.name,
        tuple(part.rows.tolist()),
        tuple(part.labels.tolist()),
        tuple(tests.tolist()),
        config,
    )


def train_tasks(
    features: FeatureSet,
    tasks: Sequence[Trial],
    config: TrainingConfig,
    store: Path,
    progress: Progress = silent,
) -> Mapping[Trial, Tried]:
    """Fit and try each task's head, or take what it predicted from the store.

    `config.workers` processes fit (None: one per usable processor) where that is worth
    their start.
    """
    heads, workers = HeadStore(store), config.workers
    digests = {task: task.digest(features) for task in tasks}
    missing = [task for task in digests if digests[task] not in heads]
    large = sum(len(task.rows) for task in missing) > WORTH_PROCESSES
    outcomes: Iterator[Tried | AqaError] = (
        process_outcomes(
            _try, missing, workers, prepare=_hold, arguments=(features, store)
        )
        if large and (workers or usable_processors()) > 1
        else map(_try, missing)
    )
    _hold(features, store)
    for done, task in enumerate(missing):
        progress(done, len(missing), f"{done} of {len(missing)} heads fitted")
        tried = next(outcomes)
        if isinstance(tried, AqaError):
            raise AqaError(f"{task.name}: {tried}")
        header = {"choice": json.dumps(tried.choice)}
        heads.write(digests[task], {"predicted": tried.predicted}, header)
    progress(1, 1, f"{len(missing)} of {len(missing)} heads fitted" if missing else "")
    return Stored(digests, partial(heads.read, make=Tried.of))


def predict_rows(
    _: FeatureSet, task: Trial, tried: Tried, rows: Rows, copies: int = 1
) -> Floats:
    """Return scaled predictions (n,) for some of the tests, the mean of copies."""
    places = np.searchsorted(task.tests, rows)
    return np.asarray(tried.predicted[:copies, places].mean(0))


#: The features and the store of this process; workers get shared memory.
_held: tuple[FeatureSet, Path]


def _hold(features: FeatureSet, store: Path) -> None:
    global _held
    _held = features, store


def _try(task: Trial) -> Tried:
    """Fit a head and predict the task's test rows."""
    features, store = _held
    part = Part(task.name, np.array(task.rows), np.array(task.targets))
    (head,) = kind_of(task.kind).fit_heads(features, [part], task.config, store, silent)
    tests = np.array(task.tests)
    x, clips = features.x[tests], features.clips_of(tests)
    copies = [head.predict(x[:, copy], clips) for copy in range(x.shape[1])]
    choice, notes = head.choices(), head.warnings()
    if choice or notes:
        choice = {**choice, "notes": notes}
    return Tried(choice, np.stack(copies))
