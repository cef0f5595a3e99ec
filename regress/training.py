"""Train many heads as one batch of work, each as if it were alone.

Conventions: targets are scaled labels (N,), of which those of training rows alone are
looked at. On CPU heads train in processes of one thread each, or here where that is
quicker; on CUDA those of one schedule train side by side in batched products. What
trains beside a head does not show in it, beyond rounding on CUDA. Every finished head
lies in a store under the digest of what made it: work that was stopped goes on, and
work that was done is not done again.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from aqa.cache.errors import AqaError
from aqa.cache.progress import Progress, silent
from aqa.regress.config import PRODUCTS, LstmConfig, Schedule
from aqa.regress.data import FeatureSet, Floats
from aqa.regress.head_store import HeadStore, StoredHeads
from aqa.regress.jobs import Job, Plan, Trainer, plan
from aqa.regress.lstm import course, predict
from aqa.regress.parallel import arithmetic, train_in_processes, width
from aqa.regress.sharing import share
from aqa.regress.tasks import HeadTask, TrainedHead, labelled

__all__ = ["HeadTask", "TrainedHead", "course", "predict", "train_heads"]

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
) -> Sequence[TrainedHead]:
    """Train each task's head, or take it from the store; in the order of `tasks`.

    With a store, a head is read from there whenever it is asked for: many do not fit
    into memory.

    `workers` is the number of processors to use on CPU (None: as many as torch uses
    threads), `store` a folder
    for finished heads (None: they are not kept). Progress counts head-iterations.
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
        stored = StoredHeads(heads, work.digests)
        return stored if store is not None else list(stored)


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
