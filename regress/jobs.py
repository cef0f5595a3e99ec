"""The heads that are yet to train, in which order, and the place where one is trained.

Conventions: a job is known by the digest of its task; work is counted in
head-iterations. A job whose `init` is to be trained too runs after it. Finished heads
go into the store and nowhere else: whoever wants one reads it there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from aqa.regress.config import LstmConfig
from aqa.regress.data import FeatureSet
from aqa.regress.head_store import HeadStore
from aqa.regress.loop import Advance, train_side_by_side
from aqa.regress.lstm import Arrays, initial_parameters
from aqa.regress.tasks import HeadTask, task_digest


@dataclass(frozen=True)
class Job:
    """One head to train; `after` is the digest of the head it starts from."""

    digest: str
    task: HeadTask
    after: str | None

    @property
    def work(self) -> int:
        """Its iterations."""
        return self.task.schedule.iterations


@dataclass(frozen=True)
class Plan:
    """What tasks ask for and a store does not have.

    `digests` has one entry a task; `jobs` holds each missing head once, after the one
    it starts from; `spared` counts the iterations of heads found in the store.
    """

    digests: tuple[str, ...]
    jobs: tuple[Job, ...]
    spared: int


def plan(
    tasks: Sequence[HeadTask],
    features: FeatureSet,
    lstm: LstmConfig,
    device: str,
    store: HeadStore,
) -> Plan:
    """Find out which heads are missing; heads to start from are asked for in turn.

    The tasks have labels of their own.
    """
    jobs: dict[str, Job] = {}
    found: dict[str, int] = {}

    def require(task: HeadTask) -> str:
        digest = task_digest(task, features, lstm, device)
        if digest in store:
            found[digest] = task.schedule.iterations
        elif digest not in jobs:
            after = require(task.init) if task.init else None
            jobs[digest] = Job(digest, task, after)
        return digest

    digests = tuple(require(task) for task in tasks)
    return Plan(digests, tuple(jobs.values()), sum(found.values()))


@dataclass(frozen=True)
class Trainer:
    """The features on a device, and the store that fills up."""

    x: Tensor
    lstm: LstmConfig
    store: HeadStore

    def train(self, jobs: Sequence[Job], advance: Advance) -> None:
        """Train jobs of one schedule side by side; their starts are in the store."""
        starts = [self._start(job) for job in jobs]
        tasks = [job.task for job in jobs]
        heads = train_side_by_side(self.x, tasks, starts, advance, self.lstm.products)
        for job, head in zip(jobs, heads, strict=True):
            self.store.write(job.digest, head)

    def _start(self, job: Job) -> Arrays:
        if job.after:
            return self.store.read(job.after).parameters
        generator = np.random.default_rng([job.task.seed, 0])
        return initial_parameters(self.x.shape[-1], self.lstm, generator)
