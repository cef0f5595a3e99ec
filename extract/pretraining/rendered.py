"""`c3d-tiny` trained on rendered actions: how the weights called `tiny` were made.

Conventions: the recipe is plain data, and `make` carries it out, whole or shortened.
Rendered clips need no data from anywhere: what they show (positions, turns, faults,
landings) is what the judges of the synthetic data set look at, in clips that are not
in it. The clips lie under `folder` and stay there.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from aqa.cache.console import Progress, silent
from aqa.extract.pretraining.config import PretrainConfig
from aqa.extract.pretraining.train import Pretrained, pretrain
from aqa.extract.synthetic.classes import synthesise_classes
from aqa.extract.weights.load import Weights, load_weights, save_weights

ARCH = "c3d-tiny"


@dataclass(frozen=True)
class Recipe:
    """How many clips of each class are rendered from which seed, and the training."""

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


def make(
    folder: Path,
    out: Path,
    recipe: Recipe = Recipe(),
    workers: int | None = None,
    progress: Progress = silent,
) -> Pretrained:
    """Render the classes into `folder` and train on them; both go on if stopped."""
    synthesise_classes(folder, recipe.videos_per_class, recipe.seed, workers, progress)
    return train(folder, out, recipe, workers, progress)


def train(
    folder: Path,
    out: Path,
    recipe: Recipe = Recipe(),
    workers: int | None = None,
    progress: Progress = silent,
) -> Pretrained:
    """Train on the classes in `folder` as the recipe says."""
    start = out.with_name(f"{out.name}.start")
    save_weights(begin(recipe.seed), start)
    return pretrain(settings(folder, start, out, recipe, workers), progress)


def begin(seed: int) -> Weights:
    """Make weights that learn from the first iterations on; C3D's take thousands.

    He-normal, on inputs of deviation about 1, each kernel with its mean taken off,
    so that it answers to differences and not to how bright a picture is; in half of
    the first layer also the mean over time, so that it answers to what moves.
    """
    random = load_weights(f"random:{seed}", ARCH, preprocessing="imagenet")
    state = {}
    for name, values in random.state.items():
        if name == "conv1a.weight":
            values = values - values.mean((2, 3, 4), keepdim=True)
            moving = values[::2] - values[::2].mean(2, keepdim=True)
            # A third of the variance went with the mean of three frames.
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
    """Return what `pretrain` is asked for."""
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
