"""Which training sequences each iteration sees, and their clips and labels.

Conventions: all copies of a training row are training sequences. An epoch is every
sequence once, in an order drawn from the head's seed; batches are cut from one epoch
after the other, across their borders, so nothing is left out. M heads side by side
draw each their own batch, from their own seed.

A step counts in the loss by its `weight`: Caffe's Euclidean loss divides by twice the
number of labelled outputs, which are the batch ("final": the last step alone) or the
batch times the steps ("incremental": step k of K is labelled k / K of the score).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqa.regress.tasks import HeadTask


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
