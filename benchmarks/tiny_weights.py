"""Train the weights called `tiny` again: python benchmarks/tiny_weights.py FOLDER OUT.

Renders labelled clips (`action_clips`) into FOLDER, which takes about three minutes,
and trains c3d-tiny on them, which takes about an hour of one core; an interrupted run
is continued by the same command. See extract/data/README.md.
"""

import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from action_clips import synthesise_classes

from aqa.cache.console import Progress, silent
from aqa.extract.config import PretrainConfig
from aqa.extract.pretraining.train import Pretrained, pretrain
from aqa.extract.weights.load import Weights, load_weights, save_weights


@dataclass(frozen=True)
class Recipe:
    """Number and seed of the rendered clips, and settings of the training."""

    videos_per_class: int = 80
    seed: int = 7001
    iterations: int = 800
    learning_rate: float = 0.01
    step: int = 100
    gamma: float = 0.75
    batch: int = 16
    stride: int = 4
    dropout: float = 0.2
    weight_decay: float = 0.0005


def train(
    folder: Path,
    out: Path,
    recipe: Recipe = Recipe(),
    workers: int | None = None,
    progress: Progress = silent,
) -> Pretrained:
    """Train on the class folders in `folder`; write the weights to `out`."""
    start = out.with_name(f"{out.name}.start")
    save_weights(initial_weights(recipe.seed), start)
    return pretrain(settings(folder, start, out, recipe, workers), progress)


def initial_weights(seed: int) -> Weights:
    """Return weights that learn from the first iterations on; C3D's take thousands.

    He-normal for inputs of standard deviation 1, each kernel with its mean subtracted,
    so that it responds to differences and not to brightness; in half of the first layer
    also the mean over time, so that it responds to motion.
    """
    random = load_weights(f"random:{seed}", "c3d-tiny", preprocessing="imagenet")
    state = {}
    for name, values in random.state.items():
        if name == "conv1a.weight":
            values = values - values.mean((2, 3, 4), keepdim=True)
            moving = values[::2] - values[::2].mean(2, keepdim=True)
            # The mean of three frames held a third of the variance.
            values[::2] = moving * math.sqrt(3 / 2)
        elif name.endswith("weight"):
            values = values - values.flatten(1).mean(1).view(
                -1, *[1] * (values.ndim - 1)
            )
        state[name] = values
    return replace(random, state=state, name=f"centred random:{seed}")


def settings(
    folder: Path, start: Path, out: Path, recipe: Recipe, workers: int | None = None
) -> PretrainConfig:
    """Return the training's settings."""
    return PretrainConfig(
        videos=folder,
        out=out,
        init=str(start),
        seed=recipe.seed,
        iterations=recipe.iterations,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        step=recipe.step,
        gamma=recipe.gamma,
        dropout=recipe.dropout,
        weight_decay=recipe.weight_decay,
        stride=recipe.stride,
        evaluate_every=max(1, recipe.iterations),
        checkpoint_every=50,
        workers=workers,
        memory=4096,
    )


def main(folder: Path, out: Path) -> None:
    """Render the clips and train; print progress and processor time."""
    torch.set_num_threads(1)
    begun = time.monotonic()

    def tell(done: float, total: float, label: str) -> None:
        if done % 10 == 0 or done == total:
            print(
                f"{time.monotonic() - begun:.0f} s {done}/{total} {label}", flush=True
            )

    recipe = Recipe()
    synthesise_classes(folder, recipe.videos_per_class, recipe.seed, progress=tell)
    print(train(folder, out, recipe, workers=0, progress=tell))
    print(f"{time.process_time():.0f} s of processor time in this process")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
