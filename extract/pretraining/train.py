"""C3D's pre-training: labelled videos in, a weights file out.

Conventions: iterations, batches, rates and decay as in `PretrainConfig`; Caffe's solver
and C3D's clips (random crop and mirror, mean subtracted). Beside OUT lie
`OUT.checkpoint`, from which the same call continues exactly where it was saved, and
`OUT.csv`, the loss curve. A checkpoint is saved every so many iterations or minutes,
and before Ctrl-C or SIGTERM end a run. `done` counts finished iterations; what an
iteration does depends on the state before it and on its number alone. In memory,
convolutions are channels last, which is faster; files are not.

Under torchrun the batch is divided between the processes, one per GPU, and gradients
are averaged: the result is that of one process, up to rounding. Rank 0 writes files.

Sources: the paper, section 5; facebookarchive/C3D `conv3d_ucf101_solver.prototxt`,
`video_data_layer.cpp`.
"""

import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.cache.processes import choose_device
from aqa.extract.c3d import ARCHITECTURES
from aqa.extract.config import PretrainConfig
from aqa.extract.network import DTYPES, arithmetic, choose_precision
from aqa.extract.preprocessing import PRESETS
from aqa.extract.pretraining.checkpoint import (
    loss_curve,
    read_checkpoint,
    signals_deferred,
    write_checkpoint,
)
from aqa.extract.pretraining.classifier import (
    Accuracy,
    CaffeSGD,
    Classifier,
    as_input,
    evaluate,
    initial_state,
    rate_at,
)
from aqa.extract.pretraining.clips import (
    Clip,
    Material,
    count_all,
    cut_into_clips,
    draws,
    load_batches,
    worker_count,
)
from aqa.extract.pretraining.ucf101 import read_classes
from aqa.extract.weights.load import (
    DEFAULT_ARCH,
    Weights,
    load_weights,
    save_weights,
    stamp_of,
)
from aqa.extract.weights.read import STAMP

_DROPOUT = 3  # a random stream of its own: clips draw with 1 and 2
_TEST_BATCH = 32


@dataclass(frozen=True)
class Pretrained:
    """Result of a run: the weights file, and its accuracy on the test list."""

    path: Path
    clip_accuracy: float
    video_accuracy: float
    classes: tuple[str, ...]
    iterations: int
    seconds: float


def pretrain(config: PretrainConfig, progress: Progress = silent) -> Pretrained:
    """Train, or continue training, and write the weights up to FC-6 to `config.out`.

    Raises:
        AqaError: unusable videos or weights, or a checkpoint of another run.
    """
    began = time.monotonic()
    _check(config)
    with _processes(config.device) as group:
        start = _starting_point(config)
        classes = read_classes(
            config.videos, config.split, config.held_out, config.seed
        )
        lengths: list[Any] = [None]
        if group.leads:
            lengths = [count_all(config, classes, progress)]
        if group.count > 1:
            distributed.broadcast_object_list(lengths)
        material = cut_into_clips(config, start.preprocessing, classes, lengths[0])
        devices = [group.device] if group.device.type == "cuda" else []
        precision = choose_precision(config.precision, group.device)
        with torch.random.fork_rng(devices), arithmetic(precision):
            trainer = Trainer(config, start, material, group, precision)
            accuracy = _train(trainer, progress)
        if group.count > 1:
            distributed.barrier()
    return Pretrained(
        path=config.out,
        clip_accuracy=accuracy.clip,
        video_accuracy=accuracy.video,
        classes=material.classes,
        iterations=config.iterations,
        seconds=time.monotonic() - began,
    )


def _check(config: PretrainConfig) -> None:
    for name, known in (("arch", ARCHITECTURES), ("preprocessing", PRESETS)):
        if getattr(config, name) not in (None, *known):
            raise AqaError(
                f"{name}: expected one of {', '.join(known)}, "
                f"found {getattr(config, name)!r}"
            )
    if not config.out.parent.is_dir():
        raise AqaError(f"{config.out.parent}: expected a folder to write to")


def _starting_point(config: PretrainConfig) -> Weights:
    """Return the weights to start from, without a state for C3D's initial values.

    Raises:
        AqaError: weights that cannot be loaded, or whose mean is an image, for which
            random crops have no use.
    """
    if config.init is None:
        return Weights(
            state={},
            arch=config.arch or DEFAULT_ARCH,
            name="C3D's Gaussian values",
            sha256="",
            preprocessing=PRESETS[config.preprocessing or "c3d"],
            pool5="ceil",
            origin="",
        )
    weights = load_weights(config.init, config.arch, preprocessing=config.preprocessing)
    if isinstance(weights.preprocessing.mean, np.ndarray):
        raise AqaError(
            f"{config.init}: its mean is an image, which random crops cannot use; "
            "choose a preset with --preprocessing"
        )
    return weights


def _train(trainer: "Trainer", progress: Progress) -> Accuracy:
    """Do the iterations that are left; write checkpoints, curve and weights."""
    config, group = trainer.config, trainer.group
    path = config.out.with_name(f"{config.out.name}.checkpoint")
    trainer.restore(path)
    accuracy = None
    saved = time.monotonic()
    with (
        loss_curve(config.out, trainer.done) if group.leads else nullcontext() as add,
        signals_deferred() as interrupted,
        closing(trainer.steps()) as steps,
    ):
        for loss in steps:
            done = trainer.done
            last = done == config.iterations
            stopped = group.any(interrupted.is_set())
            evaluated = last or done % config.evaluate_every == 0
            accuracy = trainer.evaluate() if evaluated else None
            if add is not None:
                add(done, trainer.rate, loss, accuracy)
                due = time.monotonic() - saved >= config.checkpoint_seconds
                if last or stopped or due or done % config.checkpoint_every == 0:
                    trainer.save(path)
                    saved = time.monotonic()
                progress(done, config.iterations, f"training, loss {loss:.3f}")
            if stopped:
                raise KeyboardInterrupt
    accuracy = accuracy or trainer.evaluate()
    if group.leads:
        notes = {
            "recipe": trainer.record() | {"iterations": config.iterations},
            "clip_accuracy": accuracy.clip,
            "video_accuracy": accuracy.video,
        }
        save_weights(trainer.weights(), config.out, notes)
    return accuracy


class Trainer:
    """A training run between two iterations."""

    def __init__(
        self,
        config: PretrainConfig,
        start: Weights,
        material: Material,
        group: "Processes",
        precision: str,
    ) -> None:
        """Set up iteration 0 on the device of this process.

        In `precision` bf16 or fp16 the parameters stay fp32: autocast converts.
        """
        self.config, self.start, self.material = config, start, material
        self.group, self.precision = group, precision
        self.done = 0
        self.rate = config.learning_rate
        self.workers = worker_count(config.workers)
        self.arch = ARCHITECTURES[start.arch]
        classes = len(material.classes)
        state = initial_state(self.arch, classes, config.seed, start.state or None)
        self.net = Classifier(self.arch, classes, config.dropout, start.pool5)
        self.net.load_caffe_state(state)
        self.net.to(group.device)
        self.net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.solver = CaffeSGD(
            self.net.named_parameters(),
            config.learning_rate,
            config.momentum,
            config.weight_decay,
        )
        kind = group.device.type
        half = precision in ("bf16", "fp16")
        self.scaler = torch.amp.GradScaler(kind, enabled=precision == "fp16")
        self.autocast = torch.autocast(kind, DTYPES[precision], enabled=half)

    def record(self) -> dict[str, Any]:
        """Return everything that determines a run, as JSON values."""
        start = self.start
        names = (
            *("seed", "batch", "learning_rate", "step", "gamma", "momentum"),
            *("weight_decay", "dropout", "stride", "mirror"),
        )
        return {
            "arch": start.arch,
            "pool5": start.pool5,
            "preprocessing": start.preprocessing.record(),
            "init": f"{start.name} {start.sha256}".strip(),
            **self.material.record(),
            **{name: getattr(self.config, name) for name in names},
            "precision": self.precision,
        }

    def steps(self) -> Generator[float]:
        """Do the iterations that are left, yielding the loss of each batch."""
        config, device = self.config, self.group.device
        asked = partial(
            _training_batch,
            batch=config.batch,
            clips=len(self.material.train),
            seed=config.seed,
            share=self.group.share(config.batch),
        )
        left = range(self.done, config.iterations)
        net: nn.Module = self.net
        if self.group.count > 1:
            net = DistributedDataParallel(self.net)
        net.train()
        for frames, videos in load_batches(
            self.material.train, asked, left, self.workers
        ):
            self.rate = rate_at(
                self.done, config.learning_rate, config.step, config.gamma
            )
            for group in self.solver.param_groups:
                group["lr"] = self.rate
            seeds = [config.seed, _DROPOUT, self.done, self.group.rank]
            torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
            clips = torch.from_numpy(frames).to(device)
            with self.autocast:
                scores = net(as_input(clips, self.start.preprocessing))
            truth = torch.from_numpy(self.material.train_labels[videos]).to(device)
            loss = cross_entropy(scores.float(), truth)
            self.solver.zero_grad()
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.scaler.step(self.solver)
            self.scaler.update()
            self.done += 1
            yield self._mean(loss.detach())

    def _mean(self, loss: Tensor) -> float:
        """Average over the processes; AqaError if the training has diverged."""
        if self.group.count > 1:
            distributed.all_reduce(loss)
            loss = loss / self.group.count
        value = float(loss)
        if not np.isfinite(value):
            raise AqaError(
                f"iteration {self.done}: the loss is {value}, the training has "
                "diverged; start again with a smaller learning rate"
            )
        return value

    def evaluate(self) -> Accuracy:
        """Classify the test list, each process its part of it."""
        mine = range(self.group.rank, len(self.material.test), self.group.count)
        batches = range(-(-len(mine) // _TEST_BATCH))
        return evaluate(
            self.net,
            load_batches(
                self.material.test, partial(_test_batch, mine), batches, self.workers
            ),
            torch.from_numpy(self.material.test_labels),
            self.start.preprocessing,
            self.autocast,
        )

    def weights(self) -> Weights:
        """Return the parameters up to FC-6."""
        state = self.net.caffe_state()
        classes = len(self.material.classes)
        return replace(
            self.start,
            state={name: state[name] for name in self.arch.shapes()},
            name=f"{self.arch.name} pre-trained on {classes} classes",
            origin="trained by aqa pretrain",
            left_aside=(),
            notes={},
        )

    def save(self, path: Path) -> None:
        """Write a checkpoint, which `load_weights` reads too."""
        velocity = {
            name: self.solver.state[value]["velocity"].cpu().contiguous()
            for name, value in self.net.caffe_parameters().items()
            if value in self.solver.state
        }
        write_checkpoint(
            path,
            {
                STAMP: stamp_of(self.weights()),
                "iteration": self.done,
                "asked": self.record(),
                "state_dict": self.net.caffe_state(),
                "velocity": velocity,
                "scaler": self.scaler.state_dict(),
            },
        )

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint, if there is one.

        Raises:
            AqaError: it is unreadable, of another run, or of more iterations.
        """
        found = read_checkpoint(path, self.record())
        if found is None:
            return
        done = found["iteration"]
        if done > self.config.iterations:
            raise AqaError(
                f"iterations: the checkpoint has done {done} already, "
                f"{self.config.iterations} were asked for"
            )
        self.net.load_caffe_state(found["state_dict"])
        for name, value in self.net.caffe_parameters().items():
            velocity = torch.zeros_like(value)
            velocity.copy_(found["velocity"][name])
            self.solver.state[value]["velocity"] = velocity
        if found["scaler"]:
            self.scaler.load_state_dict(found["scaler"])
        self.done = done


def _training_batch(
    iteration: int, *, batch: int, clips: int, seed: int, share: slice
) -> list[Clip]:
    return draws(iteration, batch, clips, seed)[share]


def _test_batch(mine: range, batch: int) -> list[Clip]:
    part = mine[batch * _TEST_BATCH : (batch + 1) * _TEST_BATCH]
    return [Clip(number) for number in part]


@dataclass(frozen=True)
class Processes:
    """The place of this process among those of the run, and its device."""

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Return this process's part of a batch; all parts are equal."""
        if batch % self.count:
            raise AqaError(
                f"batch: expected a multiple of the {self.count} processes, "
                f"found {batch}"
            )
        size = batch // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def any(self, here: bool) -> bool:
        """Return whether it is true in any process; all processes must call this."""
        if self.count == 1:
            return here
        told = torch.tensor(float(here), device=self.device)
        distributed.all_reduce(told)
        return bool(told)


@contextmanager
def _processes(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun started, if it did."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    place = choose_device(device)
    if count == 1:
        yield Processes(0, 1, place)
        return
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Processes(int(os.environ.get("RANK", 0)), count, place)
    finally:
        distributed.destroy_process_group()
