"""Train many LSTM heads as one batch of work.

Conventions: on CPU heads train in processes of one thread each, or in this process
where that is quicker; on CUDA heads of one schedule train side by side in batched
products. Heads do not affect each other, beyond rounding on CUDA. A job is a head that
is not in the store yet, named by the digest of its task; it runs after the job it
starts from. Work is counted in head-iterations. A finished head is written to the store
at once, a head in training saves checkpoints there: interrupted work continues,
finished work is not repeated.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError, counted
from aqa.cache.processes import choose_device, process_outcomes, usable_processors
from aqa.regress.config import PRODUCTS, LstmConfig, Schedule
from aqa.regress.data import FeatureSet, SharedArray, share
from aqa.regress.heads.lstm import Arrays, initial_parameters
from aqa.regress.heads.lstm_training import (
    Advance,
    TrainingDiverged,
    input_scaling,
    train_side_by_side,
)
from aqa.regress.heads.tasks import (
    HeadStore,
    HeadTask,
    Stored,
    TrainedHead,
    task_digest,
)

_LSTM = LstmConfig()
#: Multiplications in all below which starting processes costs more than it saves
#: (a few seconds of one core).
WORTH_PROCESSES = 1e11
#: Seconds between two progress reports.
POLL_SECONDS = 0.2
#: On CUDA, memory of a head in training over that of its parameters: themselves,
#: their live columns, gradient, two moments, and a margin.
TRAINING_FACTOR = 6


@dataclass(frozen=True)
class Job:
    """One head to train; `after` is the digest of the head it starts from."""

    digest: str
    task: HeadTask
    after: str | None


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
            self.store.write(job.digest, head.arrays())

    def _start(self, job: Job) -> Arrays:
        if job.after:
            return self.store.read(job.after, TrainedHead.of).parameters
        generator = np.random.default_rng([job.task.seed, 0])
        start = initial_parameters(self.x.shape[-1], self.lstm, generator)
        if job.task.standardise:
            start |= input_scaling(self.x, job.task.rows, self.clips)
        return start


def train_heads(
    features: FeatureSet,
    tasks: Sequence[HeadTask],
    *,
    lstm: LstmConfig = _LSTM,
    device: str = "auto",
    workers: int | None = None,
    store: Path | None = None,
    progress: Progress = silent,
) -> Mapping[HeadTask, TrainedHead]:
    """Train each task's head, or take it from the store; the task is the key.

    `workers` is the number of processors to use on CPU (None: all usable ones), `store`
    a folder for finished heads (None: they are not kept). With a store a head is read
    from there at each look-up, since many do not fit into memory. Progress counts
    head-iterations. Raises `AqaError` for a head that diverges and for a process that
    dies; heads finished by then are in the store.
    """
    if lstm.products not in PRODUCTS:
        raise AqaError(f"products {lstm.products}: expected {' or '.join(PRODUCTS)}")
    place = choose_device(device)
    with ExitStack() as stack:
        folder = store or Path(
            stack.enter_context(TemporaryDirectory(prefix="aqa-heads-"))
        )
        heads = HeadStore(folder)
        asked, every = _plan(tasks, features, lstm, place.type, heads)
        todo = [[job for job in level if job.digest not in heads] for level in every]
        missing = [job for level in todo for job in level]
        seeds = len({job.task.seed for job in missing})
        words = counted(len(missing), "head")
        words += f" of {seeds} seeds" if seeds > 1 else ""
        total, finished = sum(map(_iterations, every)), 0
        done = total - _iterations(missing)
        progress(
            done, total, f"0 of {words} trained" if missing else "all heads stored"
        )
        lock = threading.Lock()

        def advance(iterations: int, heads: int = 0) -> None:
            nonlocal done, finished
            with lock:
                done, finished = done + iterations, finished + heads
                progress(done, total, f"{finished} of {words} trained")

        x = torch.from_numpy(features.x).to(place) if missing else torch.empty(0)
        trainer = Trainer(x, features.clips, lstm, heads)
        processors = workers or usable_processors()
        # Where a head trains follows from all heads, finished ones too: a resumed run
        # gives the bits of an uninterrupted one.
        large = _products(features, every, lstm) > WORTH_PROCESSES
        threads = processors if large and max(map(len, every), default=0) == 1 else 1
        for jobs in filter(None, todo):
            if place.type == "cuda":
                _on_gpu(jobs, trainer, _heads_that_fit(trainer), advance)
            elif large and threads == 1:
                shared = features.shared or share(features.x)
                _in_processes(jobs, trainer, shared, processors, advance)
            else:
                with torch_threads(threads):
                    for job in jobs:
                        trainer.train([job], advance)
                        advance(0, 1)
        read = partial(heads.read, make=TrainedHead.of)
        stored = Stored(dict(zip(tasks, asked, strict=True)), read)
        return stored if store is not None else dict(stored)


def _plan(
    tasks: Sequence[HeadTask],
    features: FeatureSet,
    lstm: LstmConfig,
    device: str,
    heads: HeadStore,
) -> tuple[list[str], list[list[Job]]]:
    """Return the digest of each task, and the heads needed by level.

    A head of one level starts from a head of the level before; a head that was not
    asked for is needed if one that starts from it is not in the store yet.
    """
    levels: list[dict[str, Job]] = []

    def require(task: HeadTask) -> tuple[str, int]:
        after, level = require(task.init) if task.init else (None, 0)
        digest = task_digest(task, features, lstm, device)
        if level == len(levels):
            levels.append({})
        levels[level][digest] = Job(digest, task, after)
        return digest, level + 1

    asked = [require(task)[0] for task in tasks]
    needed = set(asked)
    for level in reversed(levels):
        for digest, job in level.items():
            if job.after and digest in needed and digest not in heads:
                needed.add(job.after)
    return asked, [[job for d, job in e.items() if d in needed] for e in levels]


def _iterations(jobs: Sequence[Job]) -> int:
    return sum(job.task.schedule.iterations for job in jobs)


def _products(
    features: FeatureSet, levels: Sequence[Sequence[Job]], lstm: LstmConfig
) -> float:
    """Return about how many multiplications the training of jobs takes."""
    clips, width = features.x.shape[2:]
    sequence = 3 * clips * (width + lstm.hidden) * 4 * lstm.hidden
    schedules = [job.task.schedule for level in levels for job in level]
    return float(sequence * sum(each.iterations * each.batch for each in schedules))


def _in_processes(
    jobs: Sequence[Job],
    trainer: Trainer,
    features: SharedArray,
    workers: int,
    advance: Callable[..., None],
) -> None:
    """Train independent jobs in processes of one thread, the longest first."""
    counts = SharedArray((len(jobs),), np.int64)  # iterations done of each job
    longest = sorted(jobs, key=lambda job: -job.task.schedule.iterations)
    outcomes: Any = process_outcomes(
        _train,
        list(enumerate(longest)),
        workers,
        prepare=_start_worker,
        arguments=(features, counts, trainer.clips, trainer.lstm, trainer.store),
    )
    with closing(outcomes), _reporting(counts, advance):
        for job, outcome in zip(longest, outcomes, strict=True):
            if isinstance(outcome, TrainingDiverged):
                raise outcome
            if isinstance(outcome, AqaError):
                raise AqaError(f"{job.task.name}: {outcome}")
            advance(0, 1)


@contextmanager
def _reporting(counts: SharedArray, advance: Callable[[int], None]) -> Iterator[None]:
    """Report iterations that processes count, from a thread and at the end."""
    ended = threading.Event()

    def report() -> None:
        reported = 0
        while True:
            last = ended.wait(POLL_SECONDS)
            now = int(counts.array.sum())
            if now > reported:
                advance(now - reported)
                reported = now
            if last:
                return

    thread = threading.Thread(target=report)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _on_gpu(
    jobs: Sequence[Job], trainer: Trainer, most: int, advance: Callable[..., None]
) -> None:
    """Train independent jobs of one schedule and loss together, `most` at once."""
    groups: defaultdict[tuple[Schedule, str], list[Job]] = defaultdict(list)
    for job in jobs:
        groups[job.task.schedule, job.task.loss].append(job)
    for group in groups.values():
        for start in range(0, len(group), most):
            together = group[start : start + most]
            trainer.train(together, advance)
            advance(0, len(together))


def _heads_that_fit(trainer: Trainer) -> int:
    """Return how many heads train at once in the GPU memory that is free."""
    hidden = trainer.lstm.hidden
    head = 4 * (trainer.x.shape[-1] + hidden) * 4 * hidden * TRAINING_FACTOR
    return max(1, torch.cuda.mem_get_info(trainer.x.device)[0] // head)


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


# In a training process; shared arrays keep their mapping open.
_trainer: Trainer
_features: SharedArray
_counts: SharedArray


def _start_worker(
    features: SharedArray,
    counts: SharedArray,
    clips: NDArray[np.int32] | None,
    lstm: LstmConfig,
    store: HeadStore,
) -> None:
    global _trainer, _features, _counts
    torch.set_flush_denormal(True)
    _features, _counts = features, counts
    _trainer = Trainer(torch.from_numpy(features.array), clips, lstm, store)


def _train(numbered: tuple[int, Job]) -> None:
    number, job = numbered

    def advance(iterations: int) -> None:
        _counts.array[number] += iterations

    _trainer.train([job], advance)
