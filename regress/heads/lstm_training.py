"""Which training sequences each iteration sees, and their clips and labels.

Conventions: all copies of a training row are training sequences. An epoch is every
sequence once, in an order drawn from the head's seed; batches are cut from one epoch
after the other, across their borders, so nothing is left out. M heads side by side
draw each their own batch, from their own seed.

A step counts in the loss by its `weight`: Caffe's Euclidean loss divides by twice the
number of labelled outputs, which are the batch ("final": the last step alone) or the
batch times the steps ("incremental": step k of K is labelled k / K of the score).

The training loop: heads of one schedule side by side, each as if it were alone.

Conventions: M heads on a leading axis, each with its own batches (see `batches`);
Adam with its defaults (Kingma and Ba, arXiv 1412.6980) in torch's fused form, the
learning rate multiplied by `gamma` every `step` iterations. Everything random about a
head comes from its seed, and no number of one head enters another's.

A column of the features that is zero in every training row never has a gradient, and
Adam does not move what never had one: such columns are left out of the arithmetic.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqa.cache.errors import AqaError
from aqa.regress.heads import lstm
from aqa.regress.heads.lstm import Arrays, Parameters
from aqa.regress.heads.tasks import HeadTask, TrainedHead


def batch_order(task: HeadTask, copies: int) -> NDArray[np.int64]:
    """Each batch's sequences (iterations, batch): row number * copies + copy.

    The row number counts within the task's rows.
    """
    shape = (task.schedule.iterations, task.schedule.batch)
    sequences = len(task.rows) * copies
    epochs = -(-shape[0] * shape[1] // sequences)
    generator = np.random.default_rng([task.seed, 1])
    order = [generator.permutation(sequences) for _ in range(epochs)]
    return np.array(order, np.int64).ravel()[: shape[0] * shape[1]].reshape(shape)


class Batches:
    """The batches of tasks of one schedule, on the device of the features.

    x: float32 (N, copies, clips, D). `live` (L,) are the columns that are not zero
    throughout the tasks' rows: batches hold these only.
    """

    def __init__(self, x: Tensor, tasks: Sequence[HeadTask]) -> None:
        """Draw the order of all iterations."""
        _, copies, clips, width = x.shape
        first, labels = [], []
        for task in tasks:
            number, copy = np.divmod(batch_order(task, copies), copies)
            first.append((np.array(task.rows)[number] * copies + copy) * clips)
            labels.append(np.array(task.targets, np.float32)[number])
        self._clips = x.reshape(-1, width)  # (N * copies * clips, D)
        self._steps = torch.arange(clips, device=x.device)[:, None]
        #: (iterations, M, 1, B): a sequence's first clip, and its label.
        self._first = torch.from_numpy(np.stack(first, 1)[:, :, None]).to(x.device)
        self._labels = torch.from_numpy(np.stack(labels, 1)[:, :, None]).to(x.device)

        used = torch.zeros(width, dtype=torch.bool, device=x.device)
        for row in {row for task in tasks for row in task.rows}:
            used |= (x[row] != 0).any(0).any(0)
        self.live = used.nonzero()[:, 0]
        self._all_live = len(self.live) == width

        final = torch.zeros(clips)
        final[-1] = 1
        rising = torch.arange(1, clips + 1) / clips
        even = torch.ones(clips) / clips
        batch = tasks[0].schedule.batch
        incremental = [task.labels == "incremental" for task in tasks]
        shares = [rising if every else final for every in incremental]
        weights = [even if every else final for every in incremental]
        #: (M, T, 1): the part of the score that a step is labelled with.
        self._share = torch.stack(shares)[..., None].to(x.device)
        #: (M, T, 1): what a step's squared error counts, over 2, in the loss.
        self.weight = torch.stack(weights)[..., None].to(x.device) / batch

    def __getitem__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Inputs (M, T, B, L), steps before batch, and the steps' labels (M, T, B)."""
        clips = self._first[iteration] + self._steps  # (M, T, B)
        inputs = self._clips.index_select(0, clips.flatten())
        if not self._all_live:
            inputs = inputs.index_select(1, self.live)
        return inputs.view(*clips.shape, -1), self._labels[iteration] * self._share


#: Iterations between two looks at the loss.
STRETCH = 100
#: A mean loss beyond this many times the labels' mean square has left for good.
DIVERGED = 1e4

#: Hears of head-iterations as they are done.
Advance = Callable[[int], None]


class TrainingDiverged(AqaError):
    """The loss of a head is no longer a number, or has grown beyond all bounds."""


def train_side_by_side(
    x: Tensor,
    tasks: Sequence[HeadTask],
    starts: Sequence[Arrays],
    advance: Advance,
    products: str = "fp32",
) -> list[TrainedHead]:
    """Train tasks of one schedule from these parameters, on the device of `x`.

    x: float32 (N, copies, clips, D). The tasks have labels of their own. Raises
    `TrainingDiverged`, naming the head.
    """
    schedule = tasks[0].schedule
    batches = Batches(x, tasks)
    heads = _Heads(starts, batches, products)
    logs = [_Log(task) for task in tasks]

    def watch(done: int) -> None:
        for head, log in enumerate(logs):
            if log.due(done):
                log.watched[done] = heads.predict(head, x, log.task.watch)

    watch(0)
    losses = torch.zeros(len(tasks), device=x.device)
    for done in range(1, schedule.iterations + 1):
        rate = schedule.learning_rate * schedule.gamma ** ((done - 1) // schedule.step)
        losses += heads.step(*batches[done - 1], rate)
        if done % STRETCH == 0 or done == schedule.iterations:
            stretch = done % STRETCH or STRETCH
            for log, loss in zip(logs, losses.tolist(), strict=True):
                log.add_loss(done, loss / stretch)
            losses.zero_()
            advance(stretch * len(tasks))
        watch(done)
    return [log.result(heads.arrays(head)) for head, log in enumerate(logs)]


class _Heads:
    """The parameters of M heads and their optimiser.

    `_live` is what trains: all tensors of `_whole`, but of `w_x` its own copy of the
    rows of live columns.
    """

    def __init__(
        self, starts: Sequence[Arrays], batches: Batches, products: str
    ) -> None:
        self._products = products
        self._rows = batches.live
        self._weight = batches.weight
        self._whole = lstm.stacked(starts, batches.live.device)
        whole = self._whole
        w_x = whole.w_x.index_select(1, self._rows)
        self._live = Parameters(w_x, whole.w_h, whole.b, whole.v, whole.c)
        self._gradient = Parameters(*map(torch.empty_like, self._live.tensors()))
        for value, gradient in zip(
            self._live.tensors(), self._gradient.tensors(), strict=True
        ):
            value.grad = gradient
        self._adam = torch.optim.Adam(self._live.tensors(), fused=True)

    def step(self, x: Tensor, labels: Tensor, rate: float) -> Tensor:
        """One iteration on a batch; the losses (M,) before it."""
        predicted, tape = lstm.forward(self._live, x, self._products)
        difference = predicted - labels
        error = difference * self._weight
        lstm.backward(self._live, x, tape, error, self._gradient, self._products)
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        return (error * difference).sum((1, 2)) / 2

    def predict(self, head: int, x: Tensor, rows: Sequence[int]) -> NDArray[np.float32]:
        """Predictions for rows of x (N, copies, clips, D), from copy 0."""
        one = self._one(head)
        parts = []
        for start in range(0, len(rows), lstm.CHUNK):
            chunk = torch.tensor(rows[start : start + lstm.CHUNK], device=x.device)
            steps = x[chunk, 0].transpose(0, 1)[None]  # (1, T, n, D)
            parts.append(lstm.forward(one, steps)[0][0, -1].cpu().numpy())
        return np.concatenate(parts)

    def arrays(self, head: int) -> dict[str, NDArray[np.float32]]:
        """The parameters of one head, copied out."""
        return lstm.arrays(self._one(head), 0)

    def _one(self, head: int) -> Parameters:
        """One head as it stands, dead columns included; M is 1."""
        self._whole.w_x[head].index_copy_(0, self._rows, self._live.w_x[head])
        return Parameters(*(t[head : head + 1] for t in self._whole.tensors()))


class _Log:
    """What is noted of one head while it trains."""

    def __init__(self, task: HeadTask) -> None:
        self.task = task
        self.watched: dict[int, NDArray[np.float32]] = {}
        self._losses: list[float] = []
        squares = [label**2 for label in task.targets or ()]
        self._limit = DIVERGED * max(1.0, sum(squares) / len(squares))

    def due(self, done: int) -> bool:
        """Whether the watched rows are to be predicted after `done` iterations."""
        last = done == self.task.schedule.iterations
        return bool(self.task.watch) and (last or done % self.task.watch_every == 0)

    def add_loss(self, done: int, loss: float) -> None:
        """Note the mean loss of a stretch that ended after `done` iterations."""
        if not loss < self._limit:
            raise TrainingDiverged(
                f"{self.task.name}: training diverged, loss {loss:g} near iteration "
                f"{done}; check the features for values that are not finite or far "
                "too large, or lower the learning rate"
            )
        self._losses.append(loss)

    def result(self, parameters: dict[str, NDArray[np.float32]]) -> TrainedHead:
        """The finished head."""
        shape = (len(self.watched), len(self.task.watch))
        return TrainedHead(
            parameters=parameters if self.task.keep_parameters else {},
            iterations=tuple(self.watched),
            watched=np.array(list(self.watched.values()), np.float32).reshape(shape),
            loss=np.array(self._losses, np.float32),
        )
