"""Training of LSTM heads: batches, losses, Adam, checkpoints.

Conventions: M heads of one schedule train side by side on a leading axis, each with
its own seed and batches, and none affects another. All copies of a training row are
training sequences. An epoch is every sequence once, in an order drawn from the head's
seed; batches are cut from the concatenated epochs, so no sequence is dropped. Adam has
its default moments (Kingma and Ba, arXiv 1412.6980); the learning rate is multiplied
by `gamma` every `step` iterations.

Losses. "squared": Caffe's Euclidean loss, the sum of squared errors over twice the
number of labelled outputs. These are the batch with labels "final" (last step only)
and batch times steps with "incremental" (step k of K is labelled k / K of the score).
"rank": the mean over all pairs of a batch that belong to one action and differ in
score of max(0, MARGIN - (better - worse)) (Doughty et al., CVPR 2018); outputs then
have an order and no unit.

A column of the features that is zero in every training row never receives a gradient,
and Adam never moves its weights: such columns are left out of the arithmetic.

A checkpoint holds everything that training continues from, so that a resumed head is
bit for bit the head of an uninterrupted run.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqa.cache.errors import AqaError
from aqa.cache.files import replacing
from aqa.regress.data import scaling_std
from aqa.regress.heads import lstm
from aqa.regress.heads.lstm import Arrays, Parameters
from aqa.regress.heads.tasks import HeadTask, TrainedHead

#: Iterations between two checks of the loss.
STRETCH = 100
#: A mean loss above this many times the mean squared label counts as divergence.
DIVERGED = 1e4
#: Seconds between two checkpoints, at most what an interruption costs.
CHECKPOINT_SECONDS = 20.0
#: Difference in output that the rank loss asks for.
MARGIN = 1.0
#: Callback: number of head-iterations finished since the last call.
Advance = Callable[[int], None]


class TrainingDiverged(AqaError):
    """The loss of a head is not finite or has grown beyond `DIVERGED`."""


def batch_order(task: HeadTask, copies: int) -> NDArray[np.int64]:
    """Return the sequences of each batch (iterations, batch).

    A sequence is numbered `place * copies + copy`, with the row's place in `task.rows`.
    """
    shape = (task.schedule.iterations, task.schedule.batch)
    sequences = len(task.rows) * copies
    epochs = -(-shape[0] * shape[1] // sequences)
    generator = np.random.default_rng([task.seed, 1])
    order = [generator.permutation(sequences) for _ in range(epochs)]
    return np.array(order, np.int64).ravel()[: shape[0] * shape[1]].reshape(shape)


@dataclass(frozen=True)
class Batch:
    """One batch of M heads; `mask` is None where no clip is padding."""

    x: Tensor  # (M, T, B, L)
    labels: Tensor  # (M, T, B): what each step is labelled with
    weight: Tensor  # (M, T, 1) or (M, T, B): weight of half a step's squared error
    mask: Tensor | None  # (M, T, B)
    better: Tensor | None  # (M, B, B): i belongs above j; for the rank loss


class Batches:
    """The batches of tasks of one schedule and one loss, on the device of `x`.

    x: float32 (N, copies, clips, D). `clips` (N,) counts the real clips of each row,
    None where all are real. `starts` holds the standardisation of each head's inputs
    where there is one. `live` (L,) are the columns that a batch holds.
    """

    def __init__(
        self,
        x: Tensor,
        tasks: Sequence[HeadTask],
        starts: Sequence[Arrays] = (),
        clips: NDArray[np.int32] | None = None,
    ) -> None:
        """Draw the order of all iterations."""
        _, copies, steps, width = x.shape
        device = x.device
        first, labels, groups, counts = [], [], [], []
        for task in tasks:
            place, copy = np.divmod(batch_order(task, copies), copies)
            rows = np.array(task.rows)[place]
            first.append((rows * copies + copy) * steps)
            labels.append(np.array(task.targets, np.float32)[place])
            if task.loss == "rank":
                groups.append(np.array(task.groups, np.int64)[place])
            if clips is not None:
                counts.append(clips[rows].astype(np.int64))

        def by_iteration(values: Sequence[NDArray[Any]]) -> Tensor:
            """(iterations, M, B)."""
            return torch.from_numpy(np.stack(values, 1)).to(device)

        self._clips = x.reshape(-1, width)  # (N * copies * clips, D)
        self._steps = torch.arange(steps, device=device)[:, None]
        self._first = by_iteration(first)
        self._labels = by_iteration(labels)
        self._groups = by_iteration(groups) if groups else None
        self._counts = by_iteration(counts) if counts else None

        used = torch.zeros(width, dtype=torch.bool, device=device)
        for row in {row for task in tasks for row in task.rows}:
            used |= (x[row] != 0).any(0).any(0)
        self.live = used.nonzero()[:, 0]
        self._all_live = len(self.live) == width
        self._scaling = _scaling(starts, self.live)

        # By number of real clips and step, (M, clips + 1, clips).
        tables = [_step_tables(task.labels, steps) for task in tasks]
        share, weight, mask = (
            torch.stack([torch.from_numpy(table[i]) for table in tables]).to(device)
            for i in range(3)
        )
        self._share, self._mask = share, mask
        self._weight = weight / tasks[0].schedule.batch

    def __getitem__(self, iteration: int) -> Batch:
        """Return the batch of an iteration, counted from 0."""
        clips = self._first[iteration][:, None] + self._steps  # (M, T, B)
        x = self._clips.index_select(0, clips.flatten())
        if not self._all_live:
            x = x.index_select(1, self.live)
        x = x.view(*clips.shape, -1)
        if self._scaling:
            x.sub_(self._scaling[0]).div_(self._scaling[1])
        label = self._labels[iteration]  # (M, B)
        if self._counts is None:
            share, weight = self._share[:, -1, :, None], self._weight[:, -1, :, None]
            mask = None
        else:
            head = torch.arange(len(label), device=x.device)[:, None]
            count = self._counts[iteration]
            share, weight, mask = (  # (M, B, T) -> (M, T, B)
                table[head, count].transpose(1, 2)
                for table in (self._share, self._weight, self._mask)
            )
        better = None
        if self._groups is not None:
            group = self._groups[iteration]
            better = (label[:, :, None] > label[:, None]) & (
                group[:, :, None] == group[:, None]
            )
        return Batch(x, label[:, None] * share, weight, mask, better)


def _step_tables(labels: str, clips: int) -> tuple[NDArray[np.float32], ...]:
    """Return share of the score, weight and mask of each step.

    Each is (clips + 1, clips), by the number of real clips, which come last.
    """
    counts = np.arange(clips + 1)[:, None]
    place = np.maximum(np.arange(1, clips + 1) - (clips - counts), 0)  # 1 to count
    mask = place > 0
    if labels == "final":
        share = weight = np.broadcast_to(np.arange(1, clips + 1) == clips, mask.shape)
    else:
        share = place / np.maximum(counts, 1)
        weight = mask / np.maximum(counts, 1)
    return tuple(np.array(table, np.float32) for table in (share, weight, mask))


def input_scaling(
    x: Tensor, rows: Sequence[int], clips: NDArray[np.int32] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return `x_mean` and `x_std` (D,) over all copies and real clips of rows."""

    def parts() -> Iterator[Tensor]:
        for row in rows:
            real = x.shape[2] if clips is None else int(clips[row])
            yield x[row, :, -real:].flatten(0, 1).double()

    count = sum(len(part) for part in parts())
    zero = torch.zeros(x.shape[-1], dtype=torch.double, device=x.device)
    mean = sum((part.sum(0) for part in parts()), zero) / count
    squares = sum((((part - mean) ** 2).sum(0) for part in parts()), zero)
    means, variances = mean.cpu().numpy(), squares.cpu().numpy() / count
    std = scaling_std(means, variances, count)
    return {"x_mean": means.astype(np.float32), "x_std": std.astype(np.float32)}


def _scaling(starts: Sequence[Arrays], live: Tensor) -> list[Tensor]:
    """Return mean and standard deviation of the inputs, each (M, 1, 1, L)."""
    if not any("x_mean" in start for start in starts):
        return []
    width = len(starts[0]["w_x"])
    identity = {"x_mean": np.zeros(width, "f4"), "x_std": np.ones(width, "f4")}
    stacked = (
        np.stack([{**identity, **start}[name] for start in starts]) for name in identity
    )
    return [torch.from_numpy(s).to(live.device)[:, None, None, live] for s in stacked]


def squared_loss(predicted: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the loss by output (M, T, B), differentiated, and the loss itself (M,)."""
    difference = predicted - batch.labels
    error = difference * batch.weight
    return error, (error * difference).sum((1, 2)) / 2


def rank_loss(predicted: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return derivative (M, T, B) and value (M,) of the pairwise margin loss."""
    assert batch.better is not None
    pairs = batch.better.sum((1, 2)).clamp_min(1)
    step = batch.weight * batch.better.shape[-1]  # 1 in all over the labelled steps
    weight = torch.minimum(step[..., None], step[..., None, :]) * batch.better[:, None]
    weight = weight / pairs[:, None, None, None]  # (M, T, B, B)
    missing = MARGIN - (predicted[..., None] - predicted[..., None, :])
    violated = weight * (missing > 0)
    error = violated.sum(-2) - violated.sum(-1)
    return error, (violated * missing).sum((1, 2, 3))


LOSS_FUNCTIONS = {"squared": squared_loss, "rank": rank_loss}


def train_side_by_side(
    x: Tensor,
    tasks: Sequence[HeadTask],
    starts: Sequence[Arrays],
    advance: Advance,
    products: str = "fp32",
    *,
    clips: NDArray[np.int32] | None = None,
    checkpoint: Path | None = None,
) -> list[TrainedHead]:
    """Train tasks of one schedule and loss from these parameters, on the device of `x`.

    x: float32 (N, copies, clips, D), `clips` as in `Batches`. The tasks have labels of
    their own. `checkpoint` is the file to continue from and to save to; it is removed
    at the end. Raises `TrainingDiverged`, naming the head.
    """
    schedule = tasks[0].schedule
    batches = Batches(x, tasks, starts, clips)
    heads = _Heads(starts, batches, products, LOSS_FUNCTIONS[tasks[0].loss])
    logs = [_Log(task) for task in tasks]

    def watch(done: int) -> None:
        for head, log in enumerate(logs):
            rows = list(log.task.watch)
            last = done == schedule.iterations
            if rows and (last or done % log.task.watch_every == 0):
                real = None if clips is None else clips[rows]
                made = lstm.outputs(heads.arrays(head), x[rows, 0], real)
                log.watched[done] = made[:, -1].tolist()

    begun = _resume(checkpoint, heads, logs) if checkpoint else 0
    if begun:
        advance(begun * len(tasks))
    else:
        watch(0)
    losses = torch.zeros(len(tasks), device=x.device)
    saved = time.monotonic()
    for done in range(begun + 1, schedule.iterations + 1):
        rate = schedule.learning_rate * schedule.gamma ** ((done - 1) // schedule.step)
        losses += heads.step(batches[done - 1], rate)
        watch(done)
        stretch = done % STRETCH or STRETCH
        if stretch < STRETCH and done < schedule.iterations:
            continue
        for log, loss in zip(logs, losses.tolist(), strict=True):
            log.add_loss(done, loss / stretch)
        losses.zero_()
        if checkpoint and time.monotonic() - saved >= CHECKPOINT_SECONDS:
            _save(checkpoint, done, heads, logs)
            saved = time.monotonic()
        advance(stretch * len(tasks))
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return [log.result(heads.arrays(head)) for head, log in enumerate(logs)]


class _Heads:
    """The parameters of M heads and their optimiser.

    `live` is what trains: all tensors of `_whole`, but of `w_x` a copy of the rows of
    live columns.
    """

    def __init__(
        self,
        starts: Sequence[Arrays],
        batches: Batches,
        products: str,
        loss: Callable[[Tensor, Batch], tuple[Tensor, Tensor]],
    ) -> None:
        self._starts, self._products, self._loss = starts, products, loss
        self._rows = batches.live
        self._whole = lstm.stacked(starts, batches.live.device)
        whole = self._whole
        w_x = whole.w_x.index_select(1, self._rows)
        self.live = Parameters(w_x, whole.w_h, whole.b, whole.v, whole.c)
        self.adam = torch.optim.Adam(self.live.tensors(), fused=True)

    def step(self, batch: Batch, rate: float) -> Tensor:
        """Run one iteration; return the losses (M,) before it."""
        predicted, tape = lstm.forward(
            self.live, batch.x, self._products, mask=batch.mask
        )
        error, loss = self._loss(predicted, batch)
        gradients = lstm.backward(self.live, batch.x, tape, error, self._products)
        for value, gradient in zip(
            self.live.tensors(), gradients.tensors(), strict=True
        ):
            value.grad = gradient
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        self.adam.zero_grad()  # Its memory is the next gradient's.
        return loss

    def arrays(self, head: int) -> dict[str, NDArray[np.float32]]:
        """Copy the parameters of a head, standardisation and dead columns included."""
        self._whole.w_x[head].index_copy_(0, self._rows, self.live.w_x[head])
        scaling = {
            name: self._starts[head][name]
            for name in ("x_mean", "x_std")
            if name in self._starts[head]
        }
        return {**lstm.arrays(self._whole, head), **scaling}


class _Log:
    """Losses and watched predictions of one head while it trains."""

    def __init__(self, task: HeadTask) -> None:
        self.task = task
        self.watched: dict[int, list[float]] = {}
        self.losses: list[float] = []
        squares = [label**2 for label in task.targets]
        self._limit = DIVERGED * max(1.0, sum(squares) / len(squares))

    def add_loss(self, done: int, loss: float) -> None:
        """Record the mean loss of a stretch that ended after `done` iterations."""
        if not loss < self._limit:
            raise TrainingDiverged(
                f"{self.task.name}: training diverged, loss {loss:g} near iteration "
                f"{done}; check the features for values that are not finite or far "
                "too large, or lower the learning rate"
            )
        self.losses.append(loss)

    def result(self, parameters: dict[str, NDArray[np.float32]]) -> TrainedHead:
        """Return the finished head."""
        shape = (len(self.watched), len(self.task.watch))
        return TrainedHead(
            parameters=parameters if self.task.keep_parameters else {},
            iterations=tuple(self.watched),
            watched=np.array(list(self.watched.values()), np.float32).reshape(shape),
            loss=np.array(self.losses, np.float32),
        )


def _save(path: Path, done: int, heads: _Heads, logs: Sequence[_Log]) -> None:
    """Write a checkpoint after `done` iterations; the one before is replaced whole."""
    state = {
        "done": done,
        "values": heads.live.tensors(),
        "adam": heads.adam.state_dict(),
        "logs": [(log.watched, log.losses) for log in logs],
    }
    with replacing(path) as file:
        torch.save(state, file)


def _resume(path: Path, heads: _Heads, logs: Sequence[_Log]) -> int:
    """Continue from a checkpoint; return the iterations that are done.

    0 where there is none, or where the file is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError):
        return 0
    for value, saved in zip(heads.live.tensors(), state["values"], strict=True):
        value.copy_(saved)
    heads.adam.load_state_dict(state["adam"])
    for log, (watched, losses) in zip(logs, state["logs"], strict=True):
        log.watched, log.losses = watched, losses
    return int(state["done"])
