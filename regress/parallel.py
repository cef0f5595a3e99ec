"""Training in processes of one thread each: how a CPU trains many heads.

Conventions: processes start fresh (spawn), share the features and hand results over
through the store. Idle ones take the job with the most work behind it, its own and
that of the longest chain of heads that wait for it; progress is one counter a job in
shared memory.
"""

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from pebble import ProcessExpired, ProcessPool

from aqa.cache.errors import AqaError
from aqa.regress.config import LstmConfig
from aqa.regress.head_store import HeadStore
from aqa.regress.jobs import Job, Trainer
from aqa.regress.sharing import SharedArray

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
