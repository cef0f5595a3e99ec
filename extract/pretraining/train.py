"""What a training run begins with: a network, its values, and how it is to be fed.

Conventions: values up to FC-6 are C3D's own Gaussian ones, or those of `init`, which
then also brings its last pooling and, where none is asked for, its pre-processing.
Random crops leave no place for a mean that is an image, so such a mean is refused.

One training run in progress: network, solver and clips, step by step.

Conventions: `done` counts finished iterations. What a step does is a function of the
state before it and of its number, so that a run restored from a checkpoint does what
it would have done. In memory, convolutions lie channels last, which is faster; files
never know.

C3D's pre-training: labelled videos in, a weights file out, as the paper made its.

Conventions: iterations, batches, rates and decay as `PretrainConfig` says, on Caffe's
solver and C3D's clips (random crop and mirror, one of each per clip, mean subtracted).
Beside OUT lie `OUT.checkpoint`, from which the same call goes on exactly where it was
saved, with FC-7 and FC-8 in it, and `OUT.csv`, the course of the run. It is saved every
so many iterations or minutes, and before Ctrl-C or SIGTERM end a run.

Under torchrun the batch is divided between the processes, one for each GPU; the
gradients are averaged, and the result is that of one process, but for rounding.

Sources: the paper, section 5; facebookarchive/C3D `conv3d_ucf101_solver.prototxt`,
`video_data_layer.cpp`.
"""

import time
from collections.abc import Generator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.extract.c3d import ARCHITECTURES, Architecture
from aqa.extract.network import DTYPES, arithmetic, choose_precision
from aqa.extract.preprocessing import PRESETS, Preprocessing
from aqa.extract.pretraining.checkpoint import Checkpoint, Curve, held_back
from aqa.extract.pretraining.classifier import (
    Accuracy,
    CaffeSGD,
    Classifier,
    as_input,
    caffe_groups,
    evaluate,
    initial_state,
    rate_at,
)
from aqa.extract.pretraining.clips import (
    Material,
    Processes,
    draws,
    load_batches,
    processes,
    survey,
    worker_count,
)
from aqa.extract.pretraining.config import PretrainConfig
from aqa.extract.weights.formats import Stamp
from aqa.extract.weights.load import DEFAULT_ARCH, Weights, load_weights, save_weights


@dataclass(frozen=True)
class Start:
    """`state` is up to FC-6, None for C3D's own values; `origin` names it."""

    arch: Architecture
    pool5: str
    preprocessing: Preprocessing
    state: Mapping[str, Tensor] | None
    origin: str

    def record(self) -> dict[str, Any]:
        """Everything that decides a run, as JSON values."""
        return {
            "arch": self.arch.name,
            "pool5": self.pool5,
            "preprocessing": self.preprocessing.record(),
            "init": self.origin,
        }


def choose_start(config: PretrainConfig) -> Start:
    """Find what `config` begins with.

    Raises:
        AqaError: for weights that cannot be loaded, or whose mean is an image.
    """
    if config.init is None:
        arch = ARCHITECTURES[config.arch or DEFAULT_ARCH]
        preprocessing = PRESETS[config.preprocessing or "c3d"]
        return Start(arch, "ceil", preprocessing, None, "C3D's Gaussian values")
    weights = load_weights(config.init, config.arch, preprocessing=config.preprocessing)
    if isinstance(weights.preprocessing.mean, np.ndarray):
        raise AqaError(
            f"{config.init}: its mean is an image, which random crops have no place "
            "for; ask for a preset's pre-processing"
        )
    return Start(
        arch=ARCHITECTURES[weights.arch],
        pool5=weights.pool5,
        preprocessing=weights.preprocessing,
        state=weights.state,
        origin=f"{weights.name} {weights.sha256}",
    )


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


@dataclass(frozen=True)
class Pretrained:
    """What a run gave: the weights file, and how well it tells the test list."""

    path: Path
    clip_accuracy: float
    video_accuracy: float
    classes: tuple[str, ...]
    iterations: int
    seconds: float


def pretrain(config: PretrainConfig, progress: Progress = silent) -> Pretrained:
    """Train, or go on training, and write the weights up to FC-6 to `config.out`.

    Raises:
        AqaError: for videos or weights that cannot be used, and for a checkpoint of
            another run.
    """
    begun = time.monotonic()
    _check(config)
    with processes(config.device) as group:
        start = choose_start(config)
        material = survey(config, start.preprocessing, group, progress)
        devices = [group.device] if group.device.type == "cuda" else []
        precision = choose_precision(config.precision, group.device)
        with torch.random.fork_rng(devices), arithmetic(precision):
            accuracy = _train(config, start, material, group, precision, progress)
        group.wait()
    return Pretrained(
        path=config.out,
        clip_accuracy=accuracy.clip,
        video_accuracy=accuracy.video,
        classes=material.classes,
        iterations=config.iterations,
        seconds=time.monotonic() - begun,
    )


def _check(config: PretrainConfig) -> None:
    """Refuse numbers that no training can go by."""
    for name in (
        "iterations",
        "batch",
        "step",
        "stride",
        "evaluate_every",
        "checkpoint_every",
    ):
        if getattr(config, name) < 1:
            raise AqaError(
                f"{name}: expected at least 1, found {getattr(config, name)}"
            )
    if not 0 <= config.dropout < 1:
        raise AqaError(f"dropout: expected 0 up to 1, found {config.dropout}")
    for name, known in (("arch", ARCHITECTURES), ("preprocessing", PRESETS)):
        if getattr(config, name) not in (None, *known):
            raise AqaError(
                f"{name}: expected one of {', '.join(known)}, "
                f"found {getattr(config, name)!r}"
            )
    if not config.out.parent.is_dir():
        raise AqaError(f"{config.out.parent}: expected a folder to write to")


def _train(
    config: PretrainConfig,
    start: Start,
    material: Material,
    group: Processes,
    precision: str,
    progress: Progress,
) -> Accuracy:
    """Run the iterations that are left, and write everything down."""
    trainer = Trainer(config, start, material, group, precision)
    asked = {**start.record(), **material.record(), **trainer.record()}
    path = config.out.with_name(f"{config.out.name}.checkpoint")
    if (found := Checkpoint.load(path, asked)) is not None:
        trainer.restore(found)
    stamp = Stamp(
        name=f"{start.arch.name} pre-trained on {len(material.classes)} classes",
        arch=start.arch.name,
        pool5=start.pool5,
        preprocessing=start.preprocessing,
        origin="trained by aqa pretrain",
    )
    course = config.out.with_name(f"{config.out.name}.csv")
    accuracy = None
    saved = time.monotonic()
    with (
        Curve(course, trainer.done) if group.leads else nullcontext() as curve,
        held_back() as interruption,
        closing(trainer.steps()) as steps,
    ):
        for loss in steps:
            done = trainer.done
            last = done == config.iterations
            stopped = group.any(interruption.came)
            evaluated = last or done % config.evaluate_every == 0
            accuracy = trainer.evaluate() if evaluated else None
            if curve is not None:
                curve.add(done, trainer.rate, loss, accuracy)
                due = time.monotonic() - saved >= config.checkpoint_seconds
                if last or stopped or due or done % config.checkpoint_every == 0:
                    trainer.checkpoint(asked, stamp.json()).save(path)
                    saved = time.monotonic()
                progress(done, config.iterations, f"training, loss {loss:.3f}")
            if stopped:
                raise KeyboardInterrupt
    accuracy = accuracy or trainer.evaluate()
    if group.leads:
        notes = {
            "recipe": asked | {"iterations": config.iterations},
            "clip_accuracy": accuracy.clip,
            "video_accuracy": accuracy.video,
        }
        save_weights(_weights(stamp, trainer), config.out, notes)
    return accuracy


def _weights(stamp: Stamp, trainer: Trainer) -> Weights:
    return Weights(
        state=trainer.state(),
        arch=stamp.arch,
        name=stamp.name,
        sha256="",
        preprocessing=stamp.preprocessing,
        pool5=stamp.pool5,
        origin=stamp.origin,
    )
