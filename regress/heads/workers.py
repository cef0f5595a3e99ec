"""Train many LSTM heads as one batch of work.

Conventions: targets are scaled labels (N,), of which only those of training rows are
used. On CPU heads train in processes of one thread each, or in this process where that
is quicker; on CUDA heads of one schedule train side by side in batched products. Heads
do not affect each other, beyond rounding on CUDA. A job is a head that is not in the
store yet, named by the digest of its task; it runs after the job it starts from. Work
is counted in head-iterations. A finished head is written to the store at once, a head
in training saves checkpoints there: interrupted work continues, finished work is not
repeated.
"""

import multiprocessing
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool
from torch import Tensor

from aqa.cache.console import Progress, silent
from aqa.cache.devices import choose_device
from aqa.cache.errors import AqaError, counted
from aqa.cache.processes import exit_with_parent, usable_processors
from aqa.regress.config import PRODUCTS, LstmConfig, Schedule
from aqa.regress.data import FeatureSet, Floats, SharedArray, share
from aqa.regress.heads.lstm import Arrays, initial_parameters
from aqa.regress.heads.lstm_training import Advance, input_scaling, train_side_by_side
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
        """Iterations."""
        return self.task.schedule.iterations


@dataclass(frozen=True)
class Plan:
    """Heads that tasks need and a store does not have.

    `digests` has one entry per task, in their order; `jobs` holds each missing head
    once, after the one it starts from; `stored` counts the iterations of heads found
    in the store.
    """

    digests: tuple[str, ...]
    jobs: tuple[Job, ...]
    stored: int


def plan(
    tasks: Sequence[HeadTask],
    features: FeatureSet,
    lstm: LstmConfig,
    device: str,
    store: HeadStore,
) -> Plan:
    """List the missing heads, those that others start from included.

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
    """Features x (N, copies, clips, D) on a device, and the store of heads.

    `clips` (N,) counts the real clips of each row; None: all are real.
    """

    x: Tensor
    clips: NDArray[np.int32] | None
    lstm: LstmConfig
    store: HeadStore

    def train(self, jobs: Sequence[Job], advance: Advance) -> None:
        """Train jobs of one schedule and loss side by side and store them."""
        heads = train_side_by_side(
            self.x,
            [job.task for job in jobs],
            [self._start(job) for job in jobs],
            advance,
            self.lstm.products,
            clips=self.clips,
            checkpoint=self.store.checkpoint([job.digest for job in jobs]),
        )
        for job, head in zip(jobs, heads, strict=True):
            self.store.write(job.digest, head)

    def _start(self, job: Job) -> Arrays:
        if job.after:
            return self.store.read(job.after).parameters
        generator = np.random.default_rng([job.task.seed, 0])
        start = initial_parameters(self.x.shape[-1], self.lstm, generator)
        if job.task.standardise:
            start |= input_scaling(self.x, job.task.rows, self.clips)
        return start


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Set the threads of torch and flush denormal numbers, which are slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def independent(jobs: Sequence[Job]) -> int:
    """Count the jobs that no other job waits for: this many can run at once."""
    return len(jobs) - len({job.after for job in jobs} & {job.digest for job in jobs})


#: Seconds between two progress reports.
POLL_SECONDS = 0.2


def train_in_processes(
    jobs: Sequence[Job],
    trainer: Trainer,
    features: SharedArray,
    workers: int,
    report: Callable[[int, int], None],
) -> None:
    """Train jobs in `workers` processes of one thread, longest chain of jobs first.

    `features` is the memory behind the trainer's x; `report` is called with the
    (iterations, heads) done. Raises what the first failing head raises, and `AqaError`
    where a process dies.
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
        initializer=_start_worker,
        initargs=(
            features,
            counts,
            trainer.clips,
            trainer.lstm,
            trainer.store.folder,
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
            for future in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
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


# The following runs in the training processes.

_trainer: Trainer
_counts: SharedArray
_features: SharedArray  # keeps the file of the mapping open


def _start_worker(
    features: SharedArray,
    counts: SharedArray,
    clips: NDArray[np.int32] | None,
    lstm: LstmConfig,
    store: Path,
) -> None:
    global _trainer, _counts, _features
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller ends its workers
    exit_with_parent()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    x = torch.from_numpy(features.array)
    _trainer = Trainer(x, clips, lstm, HeadStore(store))
    _features, _counts = features, counts


def _train(job: Job, number: int) -> None:
    def advance(iterations: int) -> None:
        _counts.array[number] += iterations

    _trainer.train([job], advance)


_LSTM = LstmConfig()
#: Multiplications in all below which starting processes costs more than it saves
#: (a few seconds of one core).
WORTH_PROCESSES = 1e11
#: On CUDA, memory of a head in training over that of its parameters: themselves,
#: their live columns, gradient, two moments, and a margin.
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

    `workers` is the number of processors to use on CPU (None: all usable ones),
    `store` a folder for finished heads (None: they are not kept). With a store a head
    is read from there at each look-up, since many do not fit into memory. Progress
    counts head-iterations. Raises `AqaError` for training rows without a label, for a
    head that diverges and for a process that dies; heads finished by then are in the
    store.
    """
    if lstm.products not in PRODUCTS:
        raise AqaError(f"products {lstm.products}: expected {' or '.join(PRODUCTS)}")
    if targets.shape != (len(features.x),):
        raise AqaError(
            f"expected {len(features.x)} labels, one per video; found {targets.shape}"
        )
    place = choose_device(device)
    asked = [labelled(task, features, targets) for task in tasks]
    with ExitStack() as stack:
        if store is None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="aqa-heads-")))
        else:
            folder = store
        heads = HeadStore(folder)
        work = plan(asked, features, lstm, place.type, heads)
        tally = _Tally(work, progress)
        x = torch.from_numpy(features.x)
        if place.type == "cuda" and work.jobs:
            trainer = Trainer(x.to(place), features.clips, lstm, heads)
            _on_gpu(work.jobs, trainer, _heads_that_fit(trainer), tally)
        elif work.jobs:
            trainer = Trainer(x, features.clips, lstm, heads)
            _on_processors(features, work.jobs, trainer, workers, tally)
        stored = Stored(dict(zip(tasks, work.digests, strict=True)), heads.read)
        return stored if store is not None else dict(stored)


class _Tally:
    """Finished iterations and heads, passed on to a progress callback."""

    def __init__(self, work: Plan, progress: Progress) -> None:
        seeds = len({job.task.seed for job in work.jobs})
        self._jobs = counted(len(work.jobs), "head")
        if seeds > 1:
            self._jobs += f" of {seeds} seeds"
        self._stored = work.stored
        self._total = work.stored + sum(job.work for job in work.jobs)
        self._progress = progress
        self._iterations = self._heads = 0
        self.set(0, 0)

    def set(self, iterations: int, heads: int) -> None:
        self._iterations, self._heads = iterations, heads
        trained = self._total > self._stored
        label = f"{heads} of {self._jobs} trained" if trained else "all heads stored"
        self._progress(self._stored + iterations, self._total, label)

    def add(self, iterations: int, heads: int = 0) -> None:
        self.set(self._iterations + iterations, self._heads + heads)


def _on_processors(
    features: FeatureSet,
    jobs: Sequence[Job],
    trainer: Trainer,
    workers: int | None,
    tally: _Tally,
) -> None:
    """Train in processes where several heads can and it pays, else in this one."""
    processors = workers or usable_processors()
    hidden = trainer.lstm.hidden
    products = 3 * features.x.shape[2] * (features.x.shape[3] + hidden) * 4 * hidden
    large = products * sum(job.work * job.task.schedule.batch for job in jobs)
    processes = min(processors, independent(jobs)) if large > WORTH_PROCESSES else 1
    if processes > 1:
        shared = features.shared or share(features.x)
        train_in_processes(jobs, trainer, shared, processes, tally.set)
        return
    with torch_threads(processors if large > WORTH_PROCESSES else 1):
        for job in jobs:
            trainer.train([job], tally.add)
            tally.add(0, 1)


def _on_gpu(jobs: Sequence[Job], trainer: Trainer, most: int, tally: _Tally) -> None:
    """Train jobs of one schedule and loss together, `most` at once, starts first."""
    waiting = list(jobs)
    while waiting:
        unfinished = {job.digest for job in waiting}
        groups: defaultdict[tuple[Schedule, str], list[Job]] = defaultdict(list)
        for job in waiting:
            if job.after not in unfinished:
                groups[job.task.schedule, job.task.loss].append(job)
        for group in groups.values():
            for start in range(0, len(group), most):
                together = group[start : start + most]
                trainer.train(together, tally.add)
                tally.add(0, len(together))
        waiting = [job for job in waiting if job.after in unfinished]


def _heads_that_fit(trainer: Trainer) -> int:
    """Return how many heads train at once in the GPU memory that is free."""
    hidden = trainer.lstm.hidden
    head = 4 * (trainer.x.shape[-1] + hidden) * 4 * hidden * TRAINING_FACTOR
    return max(1, torch.cuda.mem_get_info(trainer.x.device)[0] // head)
