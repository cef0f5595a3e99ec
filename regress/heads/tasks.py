"""One head to train, and what comes of it.

Conventions: `rows` index the videos of a `FeatureSet`; all copies of a training video
are training sequences; watched predictions are made from the copy at offset 0, in
scaled units. A task is its own key: two that differ only in name are one head.

Finished heads on disk, each under the digest of everything that made it.

Conventions: one safetensors file a head, `<digest>.safetensors`: its parameters as
`w_x`, `w_h`, `b`, `v`, `c` (none where the task keeps none), `iterations`, `watched`
and `loss`. A file is written under a temporary name and renamed, so a name that
exists is a head that is complete.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from aqa.cache.errors import AqaError, brief
from aqa.cache.files import replacing
from aqa.regress.config import LstmConfig, Schedule
from aqa.regress.data import FeatureSet, Floats

#: Raised by one when the same task would now train another head.
VERSION = 1

#: What a step is labelled with: "final" has the loss see the last step only;
#: "incremental" labels step k of K with k / K of the score (LTSOE's second form).
LABELS = ("final", "incremental")


@dataclass(frozen=True)
class HeadTask:
    """A head to train on `rows`, all of its randomness from `seed`.

    `targets` are the scaled labels of the rows (None: those given to `train_heads`).
    `init` is the task whose trained head is the start (None: Gaussian weights); 0
    iterations give the untrained head. The rows of `watch` are predicted before
    training, every `watch_every` iterations, and at the end. `keep_parameters` False
    spares room in the store where only watched predictions are wanted.
    """

    #: For messages alone.
    name: str = field(compare=False)
    rows: tuple[int, ...]
    seed: int
    schedule: Schedule = Schedule()
    init: "HeadTask | None" = None
    watch: tuple[int, ...] = ()
    watch_every: int = 100
    labels: str = "final"
    targets: tuple[float, ...] | None = None
    keep_parameters: bool = True

    def __post_init__(self) -> None:
        """Refuse what no training could be made of."""
        if not self.rows:
            raise AqaError(f"{self.name}: no training rows")
        if self.labels not in LABELS:
            raise AqaError(
                f"{self.name}: labels must be {' or '.join(LABELS)}, not {self.labels}"
            )
        if self.targets is not None and len(self.targets) != len(self.rows):
            raise AqaError(
                f"{self.name}: {len(self.targets)} labels for {len(self.rows)} rows"
            )
        if self.watch_every < 1 or self.schedule.batch < 1:
            raise AqaError(f"{self.name}: watch_every and batch must be at least 1")
        if self.schedule.iterations < 0 or self.schedule.step < 1:
            raise AqaError(f"{self.name}: negative iterations or a step below 1")
        if self.init is not None and not self.init.keep_parameters:
            raise AqaError(
                f"{self.name}: starts from {self.init.name}, which is not kept"
            )


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head after training.

    `parameters` as in `lstm.Arrays`, empty where the task keeps none; `watched`
    (evaluations, watched rows) beside the `iterations` it was made at; `loss` holds
    the mean training loss of every hundred iterations, the last stretch may be short.
    """

    parameters: dict[str, NDArray[np.float32]]
    iterations: tuple[int, ...]
    watched: NDArray[np.float32]
    loss: NDArray[np.float32]


def labelled(task: HeadTask, features: FeatureSet, targets: Floats) -> HeadTask:
    """The same with labels of its own, here and in what it starts from.

    targets: (N,) scaled labels. Raises `AqaError` for a row without one.
    """
    init = task.init and labelled(task.init, features, targets)
    own = task.targets or tuple(targets[list(task.rows)].tolist())
    for row, label in zip(task.rows, own, strict=True):
        if not math.isfinite(label):
            raise AqaError(f"{task.name}: {features.key[row]} has no label to train on")
    return replace(task, init=init, targets=own)


def task_digest(
    task: HeadTask, features: FeatureSet, lstm: LstmConfig, device: str
) -> str:
    """SHA-256 over everything that makes a head: the name of its file in a store."""
    record = asdict(task) | {
        "version": VERSION,
        "name": "",
        "rows": [(str(features.key[row]), features.digests[row]) for row in task.rows],
        "watch": [
            (str(features.key[row]), features.digests[row]) for row in task.watch
        ],
        "init": task.init and task_digest(task.init, features, lstm, device),
        "lstm": asdict(lstm),
        "device": device,
        "shape": features.x.shape[1:],
        "provenance": features.provenance.sha256,
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


NOTES = ("iterations", "watched", "loss")


class HeadStore:
    """A folder of finished heads."""

    def __init__(self, folder: Path) -> None:
        """Look at a folder, which need not exist yet."""
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Where the head of this digest lies, or will lie."""
        return self.folder / f"{digest}.safetensors"

    def __contains__(self, digest: str) -> bool:
        """Whether the head of this digest is finished."""
        return self.path(digest).is_file()

    def write(self, digest: str, head: TrainedHead) -> None:
        """Keep a head."""
        arrays: dict[str, NDArray[Any]] = {
            **head.parameters,
            "iterations": np.array(head.iterations, np.int64),
            "watched": head.watched,
            "loss": head.loss,
        }
        with replacing(self.path(digest)) as descriptor:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(save(arrays))

    def read(self, digest: str) -> TrainedHead:
        """The head of a digest; raises `AqaError` where the file is damaged."""
        path = self.path(digest)
        try:
            arrays = load_file(path)
            notes = {name: arrays.pop(name) for name in NOTES}
        except (SafetensorError, KeyError) as error:
            raise AqaError(
                f"{path}: not a finished head ({brief(error)}); remove it, and it is "
                "made anew"
            ) from error
        return TrainedHead(
            parameters=arrays,
            iterations=tuple(int(done) for done in notes["iterations"]),
            watched=notes["watched"],
            loss=notes["loss"],
        )


Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


class Stored(Mapping[Task, Outcome], Generic[Task, Outcome]):
    """Outcomes by task, read from the store at each look-up: all of them together
    need not fit into memory.
    """

    def __init__(
        self, digests: Mapping[Task, str], read: Callable[[str], Outcome]
    ) -> None:
        """Map tasks to the digests that `read` takes; all of them are in the store."""
        self._digests = digests
        self._read = read

    def __getitem__(self, task: Task) -> Outcome:
        """Read the outcome of a task."""
        return self._read(self._digests[task])

    def __iter__(self) -> Iterator[Task]:
        """Iterate over the tasks."""
        return iter(self._digests)

    def __len__(self) -> int:
        """Return the number of distinct tasks."""
        return len(self._digests)
