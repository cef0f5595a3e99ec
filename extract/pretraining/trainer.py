"""One training run in progress: network, solver and clips, step by step.

Conventions: `done` counts finished iterations. What a step does is a function of the
state before it and of its number, so that a run restored from a checkpoint does what
it would have done. In memory, convolutions lie channels last, which is faster; files
never know.
"""

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from aqa.cache.errors import AqaError
from aqa.extract.precision import DTYPES
from aqa.extract.pretraining.checkpoint import Checkpoint
from aqa.extract.pretraining.classifier import Classifier, initial_state
from aqa.extract.pretraining.config import PretrainConfig
from aqa.extract.pretraining.evaluation import Accuracy, as_input, evaluate
from aqa.extract.pretraining.loading import load_batches, worker_count
from aqa.extract.pretraining.material import Material
from aqa.extract.pretraining.processes import Processes
from aqa.extract.pretraining.sampling import draws
from aqa.extract.pretraining.solver import CaffeSGD, caffe_groups, rate_at
from aqa.extract.pretraining.start import Start

_DROPOUT = 3  # sampling.py draws with 1 and 2
_TEST_BATCH = 32


class Trainer:
    """Holds a run between two iterations."""

    def __init__(
        self,
        config: PretrainConfig,
        start: Start,
        material: Material,
        group: Processes,
        precision: str,
    ) -> None:
        """Set up iteration 0 on the device of this process.

        In `precision` bf16 or fp16 the parameters stay fp32: autocast converts.
        """
        self.config, self.start, self.material = config, start, material
        self.group = group
        self.done = 0
        self.rate = config.learning_rate
        self.precision = precision
        self.workers = worker_count(config.workers)
        classes = len(material.classes)
        self.net = Classifier(start.arch, classes, config.dropout, start.pool5)
        self.net.load_caffe_state(
            initial_state(start.arch, classes, config.seed, start.state)
        )
        self.net.to(group.device)
        self.net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.solver = CaffeSGD(
            caffe_groups(self.net.named_parameters()),
            config.learning_rate,
            config.momentum,
            config.weight_decay,
        )
        kind = group.device.type
        half = precision in ("bf16", "fp16")
        self.scaler = torch.amp.GradScaler(kind, enabled=precision == "fp16")
        self.autocast = torch.autocast(kind, DTYPES[precision], enabled=half)

    def record(self) -> dict[str, Any]:
        """Everything else that decides a run, as JSON values."""
        names = (
            *("seed", "batch", "learning_rate", "step", "gamma", "momentum"),
            *("weight_decay", "dropout", "stride", "mirror"),
        )
        return {name: getattr(self.config, name) for name in names} | {
            "precision": self.precision
        }

    def steps(self) -> Generator[float]:
        """Do the iterations that are left, yielding the loss of each batch."""
        config, device, pre = self.config, self.group.device, self.start.preprocessing
        share = self.group.share(config.batch)
        clips = len(self.material.train.table)
        asked = (
            draws(iteration, config.batch, clips, config.seed)[share]
            for iteration in range(self.done, config.iterations)
        )
        net: nn.Module = self.net
        if self.group.count > 1:
            net = DistributedDataParallel(self.net)
        net.train()
        for frames, labels in load_batches(self.material.train, asked, self.workers):
            self.rate = rate_at(
                self.done, config.learning_rate, config.step, config.gamma
            )
            for group in self.solver.param_groups:
                group["lr"] = self.rate
            seeds = [config.seed, _DROPOUT, self.done, self.group.rank]
            torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
            with self.autocast:
                scores = net(as_input(torch.from_numpy(frames).to(device), pre))
            truth = torch.from_numpy(labels).to(device)
            loss = cross_entropy(scores.float(), truth)
            self.solver.zero_grad()
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.scaler.step(self.solver)
            self.scaler.update()
            self.done += 1
            yield self._mean(loss.detach())

    def _mean(self, loss: Tensor) -> float:
        """Average over the processes, and refuse to go on from a divergence."""
        if self.group.count > 1:
            distributed.all_reduce(loss)
            loss = loss / self.group.count
        value = float(loss)
        if not np.isfinite(value):
            raise AqaError(
                f"iteration {self.done}: the loss is {value}, the training has "
                "diverged; begin anew with a smaller learning rate"
            )
        return value

    def evaluate(self) -> Accuracy:
        """Try the test list, each process its part of it."""
        clips = range(self.group.rank, len(self.material.test.table), self.group.count)
        asked = [clips[i : i + _TEST_BATCH] for i in range(0, len(clips), _TEST_BATCH)]
        return evaluate(
            self.net,
            load_batches(self.material.test, asked, self.workers),
            torch.tensor(self.material.test_labels),
            self.start.preprocessing,
            self.autocast,
        )

    def checkpoint(self, asked: Mapping[str, Any], stamp: str) -> Checkpoint:
        """Take down what the next iteration depends on."""
        velocity = {
            name.removeprefix("c3d."): self.solver.state[value]["velocity"].cpu()
            for name, value in self.net.named_parameters()
            if value in self.solver.state
        }
        return Checkpoint(
            iteration=self.done,
            asked=asked,
            stamp=stamp,
            model=self.net.caffe_state(),
            velocity={name: value.contiguous() for name, value in velocity.items()},
            scaler=self.scaler.state_dict(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was taken."""
        if checkpoint.iteration > self.config.iterations:
            raise AqaError(
                f"iterations: the checkpoint has done {checkpoint.iteration} already, "
                f"{self.config.iterations} were asked for"
            )
        self.net.load_caffe_state(checkpoint.model)
        for name, value in self.net.named_parameters():
            velocity = torch.zeros_like(value)
            velocity.copy_(checkpoint.velocity[name.removeprefix("c3d.")])
            self.solver.state[value]["velocity"] = velocity
        if checkpoint.scaler:
            self.scaler.load_state_dict(dict(checkpoint.scaler))
        self.done = checkpoint.iteration

    def state(self) -> dict[str, Tensor]:
        """Return the parameters up to FC-6, under Caffe's names."""
        state = self.net.caffe_state()
        return {name: state[name] for name in self.start.arch.shapes()}
