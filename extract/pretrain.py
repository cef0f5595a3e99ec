"""C3D's pre-training: labelled videos in, a weights file out, as the paper made its.

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
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from aqa.cache.errors import AqaError
from aqa.cache.progress import Progress, silent
from aqa.extract.c3d import ARCHITECTURES
from aqa.extract.precision import arithmetic, choose_precision
from aqa.extract.preprocessing import PRESETS
from aqa.extract.pretraining.checkpoint import Checkpoint
from aqa.extract.pretraining.config import PretrainConfig
from aqa.extract.pretraining.curve import Curve
from aqa.extract.pretraining.evaluation import Accuracy
from aqa.extract.pretraining.interruption import held_back
from aqa.extract.pretraining.material import Material, survey
from aqa.extract.pretraining.processes import Processes, processes
from aqa.extract.pretraining.start import Start, choose_start
from aqa.extract.pretraining.trainer import Trainer
from aqa.extract.weights.export import save_weights
from aqa.extract.weights.loaded import Weights
from aqa.extract.weights.stamp import Stamp


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
