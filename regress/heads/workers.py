"""The heads that are yet to train, in which order, and the place where one is trained.

Conventions: a job is known by the digest of its task; work is counted in
head-iterations. A job whose `init` is to be trained too runs after it. Finished heads
go into the store and nowhere else: whoever wants one reads it there.

Training in processes of one thread each: how a CPU trains many heads.

Conventions: processes start fresh (spawn), share the features and hand results over
through the store. Idle ones take the job with the most work behind it, its own and
that of the longest chain of heads that wait for it; progress is one counter a job in
shared memory.

Train many heads as one batch of work, each as if it were alone.

Conventions: targets are scaled labels (N,), of which those of training rows alone are
looked at. On CPU heads train in processes of one thread each, or here where that is
quicker; on CUDA those of one schedule train side by side in batched products. What
trains beside a head does not show in it, beyond rounding on CUDA. Every finished head
lies in a store under the digest of what made it: work that was stopped goes on, and
work that was done is not done again.
"""

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from pebble import ProcessExpired, ProcessPool
from torch import Tensor

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.regress.config import PRODUCTS, LstmConfig, Schedule
from aqa.regress.data import FeatureSet, Floats, SharedArray, share
from aqa.regress.heads.lstm import Arrays, initial_parameters
from aqa.regress.heads.lstm_training import Advance, train_side_by_side
from aqa.regress.heads.tasks import (
    HeadStore,
    HeadTask,
    Stored,
    TrainedHead,
    labelled,
    task_digest,
)


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

    `digests` has one entry per task, in their order; `jobs` holds each missing head
    once, after the one it starts from; `spared` counts the iterations of heads found
    in the store.
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


#: Seconds between two looks at the counters.
LOOK = 0.2


@contextmanager
def arithmetic(threads: int) -> Iterator[None]:
    """Set torch's threads, and flush numbers too small for full speed, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def width(jobs: Sequence[Job]) -> int:
    """How many of the jobs can run at once: those that no other waits for."""
    return len(jobs) - len({job.after for job in jobs} & {job.digest for job in jobs})


def train_in_processes(
    jobs: Sequence[Job],
    trainer: Trainer,
    features: SharedArray,
    workers: int,
    report: Callable[[int, int], None],
) -> None:
    """Train jobs in this many processes; `report` hears (iterations, heads) done.

    `features` is the memory behind the trainer's x. Raises what the first failing
    head raises, and `AqaError` where a process dies.
    """
    counts = SharedArray((len(jobs),), np.int64)
    number = {job.digest: index for index, job in enumerate(jobs)}
    waiting = defaultdict(list)
    for job in jobs:
        waiting[job.after if job.after in number else None].append(job)

    def chain(job: Job) -> int:
        return job.work + max(map(chain, waiting[job.digest]), default=0)

    pool = ProcessPool(
        max_workers=workers,
        initializer=_start,
        initargs=(
            features,
            counts,
            trainer.lstm,
            trainer.store.folder,
            os.getpid(),
        ),
        context=multiprocessing.get_context("spawn"),
    )
    ready = waiting[None]
    running: dict[Future[None], Job] = {}
    finished = 0
    try:
        while ready or running:
            ready.sort(key=chain)
            while ready and len(running) < workers:
                job = ready.pop()
                running[pool.schedule(_train, (job, number[job.digest]))] = job
            for future in wait(running, LOOK, FIRST_COMPLETED).done:
                job = running.pop(future)
                _check(future, job)
                ready.extend(waiting[job.digest])
                finished += 1
            report(int(counts.array.sum()), finished)
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


def _check(future: Future[None], job: Job) -> None:
    try:
        future.result()
    except ProcessExpired as error:
        killed = error.exitcode is None or error.exitcode < 0
        reason = (
            "killed, as when memory runs out; use fewer workers"
            if killed
            else f"exit code {error.exitcode}; a script that trains needs "
            'if __name__ == "__main__"'
        )
        raise AqaError(
            f"{job.task.name}: its training process ended early ({reason})"
        ) from error


# What follows runs in the training processes.

_trainer: Trainer
_counts: SharedArray
_features: SharedArray
_parent: int


def _start(
    features: SharedArray,
    counts: SharedArray,
    lstm: LstmConfig,
    store: Path,
    parent: int,
) -> None:
    global _trainer, _counts, _features, _parent
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    x = torch.from_numpy(features.array)
    _trainer = Trainer(x, lstm, HeadStore(store))
    _features, _counts, _parent = features, counts, parent


def _train(job: Job, number: int) -> None:
    def advance(iterations: int) -> None:
        _counts.array[number] += iterations
        if os.getppid() != _parent:  # nobody waits for this head any more
            raise SystemExit

    _trainer.train([job], advance)


_LSTM = LstmConfig()
#: Multiplications in all below which starting processes costs more than it saves:
#: a few seconds of one core.
WORTH_PROCESSES = 1e11
#: On CUDA, the memory of a head in training over that of its parameters: they
#: themselves, those without dead columns, the gradient, two moments, and some air.
TRAINING_FACTOR = 6


def train_heads(
    features: FeatureSet,
    targets: Floats,
    tasks: Sequence[HeadTask],
    *,
    lstm: LstmConfig = _LSTM,
    device: str = "auto",
    workers: int | None = None,
    store: Path | None = None,
    progress: Progress = silent,
) -> Mapping[HeadTask, TrainedHead]:
    """Train each task's head, or take it from the store; the task is the key.

    With a store, a head is read from there at each look-up: many do not fit into
    memory.

    `workers` is the number of processors to use on CPU (None: as many as torch uses
    threads), `store` a folder for finished heads (None: they are not kept). Progress
    counts head-iterations.
    Raises `AqaError` for training rows without a label, for a head that diverges and
    for a process that dies; heads finished by then are in the store.
    """
    if lstm.products not in PRODUCTS:
        raise AqaError(f"products {lstm.products}: expected {' or '.join(PRODUCTS)}")
    place = choose_device(device)
    _check_shape(features, targets)
    asked = [labelled(task, features, targets) for task in tasks]
    with _folder(store) as folder:
        heads = HeadStore(folder)
        work = plan(asked, features, lstm, place.type, heads)
        tally = _Tally(work, progress)
        if place.type == "cuda" and work.jobs:
            trainer = Trainer(torch.from_numpy(features.x).to(place), lstm, heads)
            _side_by_side(work.jobs, trainer, _heads_that_fit(trainer), tally)
        elif work.jobs:
            trainer = Trainer(torch.from_numpy(features.x), lstm, heads)
            _on_processors(features, work.jobs, trainer, workers, tally)
        stored = Stored(dict(zip(tasks, work.digests, strict=True)), heads.read)
        return stored if store is not None else dict(stored)


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA where there is a GPU, else the CPU."""
    gpu = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if gpu else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise AqaError(f"device {name}: expected auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise AqaError(f"device {name}: heads train on cpu or cuda")
    if device.type == "cuda" and not gpu:
        raise AqaError(f"device {name}: torch finds no GPU here; use cpu")
    return device


class _Tally:
    """Counts finished iterations and heads, and tells of them."""

    def __init__(self, work: Plan, progress: Progress) -> None:
        seeds = len({job.task.seed for job in work.jobs})
        self._jobs = f"{len(work.jobs)} heads"
        if seeds > 1:
            self._jobs += f" of {seeds} seeds"
        self._spared = work.spared
        self._total = work.spared + sum(job.work for job in work.jobs)
        self._progress = progress
        self._iterations = self._heads = 0
        self.set(0, 0)

    def set(self, iterations: int, heads: int) -> None:
        self._iterations, self._heads = iterations, heads
        label = f"{heads} of {self._jobs} trained"
        self._progress(self._spared + iterations, self._total, label)

    def add(self, iterations: int, heads: int = 0) -> None:
        self.set(self._iterations + iterations, self._heads + heads)


def _on_processors(
    features: FeatureSet,
    jobs: Sequence[Job],
    trainer: Trainer,
    workers: int | None,
    tally: _Tally,
) -> None:
    """In processes where several heads can and are worth it, else here."""
    processors = workers or torch.get_num_threads()
    hidden = trainer.lstm.hidden
    products = 3 * features.x.shape[2] * (features.x.shape[3] + hidden) * 4 * hidden
    large = products * sum(job.work * job.task.schedule.batch for job in jobs)
    processes = min(processors, width(jobs)) if large > WORTH_PROCESSES else 1
    if processes > 1:
        shared = features.shared or share(features.x)
        train_in_processes(jobs, trainer, shared, processes, tally.set)
        return
    with arithmetic(processors if large > WORTH_PROCESSES else 1):
        for job in jobs:
            trainer.train([job], tally.add)
            tally.add(0, 1)


def _side_by_side(
    jobs: Sequence[Job], trainer: Trainer, most: int, tally: _Tally
) -> None:
    """On one GPU: those of one schedule together, after those they start from.

    `most` heads train at once.
    """
    waiting = list(jobs)
    while waiting:
        unfinished = {job.digest for job in waiting}
        groups: defaultdict[Schedule, list[Job]] = defaultdict(list)
        for job in waiting:
            if job.after not in unfinished:
                groups[job.task.schedule].append(job)
        for group in groups.values():
            for start in range(0, len(group), most):
                together = group[start : start + most]
                trainer.train(together, tally.add)
                tally.add(0, len(together))
        waiting = [job for job in waiting if job.after in unfinished]


def _heads_that_fit(trainer: Trainer) -> int:
    """How many heads train at once in the GPU memory that is free."""
    hidden = trainer.lstm.hidden
    head = 4 * (trainer.x.shape[-1] + hidden) * 4 * hidden * TRAINING_FACTOR
    return max(1, torch.cuda.mem_get_info(trainer.x.device)[0] // head)


def _check_shape(features: FeatureSet, targets: Floats) -> None:
    if targets.shape != (len(features.x),):
        raise AqaError(
            f"expected {len(features.x)} labels, one a video; found {targets.shape}"
        )


@contextmanager
def _folder(store: Path | None) -> Iterator[Path]:
    if store is not None:
        yield store
    else:
        with TemporaryDirectory(prefix="aqa-heads-") as name:
            yield Path(name)
