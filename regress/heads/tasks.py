"""One LSTM head to train, its result, and the store of finished heads.

Conventions: `rows` index the samples of a `FeatureSet`; all copies of a training
sample are training sequences; watched predictions are made from the copy at offset 0,
in scaled labels. A task is its own key: two that differ only in name are one head.

The store has one safetensors file per head, `<digest>.safetensors`, named by the
SHA-256 of everything that determines it: the head's parameters (see `lstm.Arrays`;
none where the task keeps none), `iterations`, `watched` and `loss`. Files are written
under a temporary name and renamed, so a file that exists is complete.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from aqa.cache.errors import AqaError, brief
from aqa.cache.files import write_file
from aqa.regress.config import LstmConfig, Schedule
from aqa.regress.data import FeatureSet, Rows

#: Incremented when the same task would now train another head.
VERSION = 2
#: Libraries whose arithmetic trains a head; their versions are part of its digest.
LIBRARIES = ("torch", "numpy")

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class HeadTask:
    """A head to train on `rows`, all of its randomness from `seed`.

    `targets` are the scaled labels of the rows; `groups`, for the rank loss, number
    their actions (see `action_groups`). `init` is the task whose trained head is the
    start (None: Gaussian weights); 0 iterations give the untrained head. With
    `standardise` inputs are standardised by mean and standard deviation over the
    training rows; a head that starts from another keeps those of its start. The rows of
    `watch` are predicted before training, every `watch_every` iterations, and at the
    end. `keep_parameters` False saves room in the store where only watched predictions
    are needed.
    """

    #: For messages alone.
    name: str = field(compare=False)
    rows: tuple[int, ...]
    targets: tuple[float, ...]
    seed: int
    schedule: Schedule = Schedule()
    init: "HeadTask | None" = None
    watch: tuple[int, ...] = ()
    watch_every: int = 100
    labels: str = "final"
    loss: str = "squared"
    standardise: bool = False
    groups: tuple[int, ...] | None = None
    keep_parameters: bool = True
    kind: ClassVar[str] = "lstm"

    @property
    def cost(self) -> int:
        """The iterations."""
        return self.schedule.iterations

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.rows:
            raise AqaError(f"{self.name}: no training rows")
        labelled = all(map(math.isfinite, self.targets))
        if len(self.targets) != len(self.rows) or not labelled:
            raise AqaError(f"{self.name}: expected a label for each training row")
        if self.groups is not None and len(self.groups) != len(self.rows):
            raise AqaError(f"{self.name}: expected a group for each training row")
        if self.init is not None and not self.init.keep_parameters:
            raise AqaError(f"{self.name}: starts from a head that is not kept")


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head after training.

    `parameters` as in `lstm.Arrays`, empty where the task keeps none; `watched`
    (evaluations, watched rows) with the `iterations` after which it was predicted;
    `loss` is the mean training loss of every hundred iterations (the last stretch may
    be shorter).
    """

    parameters: dict[str, NDArray[np.float32]]
    iterations: tuple[int, ...]
    watched: NDArray[np.float32]
    loss: NDArray[np.float32]

    @classmethod
    def of(cls, arrays: Arrays, _: Mapping[str, str]) -> "TrainedHead":
        """Make a head of the arrays of its file; KeyError where one is missing."""
        parameters = dict(arrays)
        iterations = tuple(parameters.pop("iterations").tolist())
        watched, loss = parameters.pop("watched"), parameters.pop("loss")
        return cls(parameters, iterations, watched, loss)

    def arrays(self) -> Arrays:
        """Return the arrays of its file."""
        iterations = np.array(self.iterations, np.int64)
        notes: Arrays = {"watched": self.watched, "loss": self.loss}
        return {**self.parameters, "iterations": iterations, **notes}


def action_groups(
    features: FeatureSet, rows: Rows, loss: str
) -> tuple[int, ...] | None:
    """Number the actions of rows, within which the rank loss compares; else None."""
    if loss != "rank":
        return None
    _, numbers = np.unique(features.action[rows], return_inverse=True)
    return tuple(numbers.tolist())


def identities(features: FeatureSet, rows: tuple[int, ...]) -> list[tuple[Any, ...]]:
    """Return key, digest and real clips of each row, which determine what is learnt."""
    clips = features.clips
    return [
        (
            str(features.key[row]),
            features.digests[row],
            None if clips is None else int(clips[row]),
        )
        for row in rows
    ]


def task_digest(
    task: HeadTask, features: FeatureSet, lstm: LstmConfig, device: str
) -> str:
    """Return the SHA-256 over everything that determines a head."""
    record = asdict(task) | {
        "version": VERSION,
        "libraries": {name: version(name) for name in LIBRARIES},
        "name": "",
        "rows": identities(features, task.rows),
        "watch": identities(features, task.watch),
        "init": task.init and task_digest(task.init, features, lstm, device),
        "lstm": asdict(lstm),
        "device": device,
        "shape": features.x.shape[1:],
        "provenance": features.provenance.sha256,
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class HeadStore:
    """A folder of finished heads; it need not exist yet."""

    folder: Path

    def path(self, digest: str) -> Path:
        """Return the file of the head with this digest."""
        return self.folder / f"{digest}.safetensors"

    def checkpoint(self, digests: Sequence[str]) -> Path:
        """Return the checkpoint file of heads that train side by side."""
        name = hashlib.sha256(" ".join(digests).encode()).hexdigest()
        return self.folder / f"{name}.checkpoint"

    def __contains__(self, digest: str) -> bool:
        """Tell whether the head with this digest is finished."""
        return self.path(digest).is_file()

    def write(
        self, digest: str, arrays: Arrays, header: Mapping[str, str] | None = None
    ) -> None:
        """Store arrays, and texts in the header of their file."""
        write_safetensors(self.path(digest), arrays, header)

    def read(
        self, digest: str, make: Callable[[Arrays, Mapping[str, str]], Outcome]
    ) -> Outcome:
        """Return what `make` makes of a file's arrays and header.

        Raises `AqaError` where the file is damaged or `make` misses a name (KeyError).
        """
        path = self.path(digest)
        try:
            with safe_open(path, "numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}
                return make(arrays, file.metadata() or {})
        except (SafetensorError, KeyError) as error:
            raise AqaError(
                f"{path}: not a finished head ({brief(error)}); remove it, and it is "
                "trained again"
            ) from error


def write_safetensors(
    path: Path, arrays: Arrays, header: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file; one at `path` is replaced whole or not at all."""
    write_file(path, save(arrays, dict(header) if header else None))


class Stored(Mapping[Task, Outcome], Generic[Task, Outcome]):
    """Outcomes by task, read at each look-up: together they need not fit into memory.

    `digests` of tasks are those that `read` takes; all of them are in the store.
    """

    def __init__(
        self, digests: Mapping[Task, str], read: Callable[[str], Outcome]
    ) -> None:
        """Keep both."""
        self._digests, self._read = digests, read

    def __getitem__(self, task: Task) -> Outcome:
        """Read the outcome of a task."""
        return self._read(self._digests[task])

    def __iter__(self) -> Iterator[Task]:
        """Iterate over the tasks."""
        return iter(self._digests)

    def __len__(self) -> int:
        """Return the number of distinct tasks."""
        return len(self._digests)
