"""`aqa pretrain`: train C3D weights on labelled videos."""

import os
from dataclasses import asdict
from typing import Any

import click

from aqa.cache.console import (
    PATH,
    GroupedCommand,
    device_option,
    given,
    json_option,
    print_json,
    progress_bar,
    seed_option,
    workers_option,
)
from aqa.extract.config import PretrainConfig
from aqa.extract.options import ARCH, PRECISION
from aqa.extract.weights.formats import check_weights


@click.command(
    cls=GroupedCommand,
    examples=("aqa pretrain --videos UCF-101 --out c3d.safetensors",),
)
@click.option(
    "--videos",
    type=PATH,
    required=True,
    help="UCF-101, or any folder of class folders.",
)
@click.option(
    "--split",
    type=PATH,
    help="trainlist0N.txt, with testlist0N.txt and classInd.txt beside it.",
)
@click.option("--out", type=PATH, required=True, help="The weights file to write.")
@click.option("--arch", type=ARCH, help="The network; c3d-small unless --init says.")
@click.option("--init", help="Weights to start from, as for `aqa extract --weights`.")
@click.option(
    "--iterations",
    type=click.IntRange(1),
    default=PretrainConfig.iterations,
    show_default=True,
    help="Training iterations, one batch each.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=PretrainConfig.batch,
    show_default=True,
    help="Clips per batch.",
)
@click.option(
    "--learning-rate",
    type=float,
    default=PretrainConfig.learning_rate,
    show_default=True,
    help="Initial learning rate.",
)
@click.option(
    "--step",
    type=click.IntRange(1),
    default=PretrainConfig.step,
    show_default=True,
    help="Iterations after which the rate is divided by ten.",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1),
    default=PretrainConfig.checkpoint_every,
    show_default=True,
    help="Iterations between checkpoints; at least one every five minutes.",
)
@seed_option
@device_option
@click.option("--precision", type=PRECISION, help="As for extract.")
@workers_option
@click.option("--allow-damaged", is_flag=True, help="Train on damaged videos, too.")
@json_option
def pretrain(as_json: bool, **options: Any) -> None:
    """Train C3D to classify actions, as the paper did on UCF-101.

    Run again, it continues where it stopped; Ctrl-C saves its state first. On several
    GPUs: torchrun -m aqa.cli pretrain ... .
    """
    if options["init"] is not None:
        check_weights(options["init"])
    from aqa.extract.pretraining.train import pretrain as run

    with progress_bar() as progress:
        made = run(PretrainConfig(**given(**options)), progress)
    if int(os.environ.get("RANK", 0)) > 0:  # under torchrun, one process prints
        return
    if as_json:
        record = asdict(made)
        print_json({"weights": str(record.pop("path")), **record})
        return
    click.echo(
        f"{made.path}: {made.clip_accuracy:.1%} of the test clips and "
        f"{made.video_accuracy:.1%} of the test videos right, {len(made.classes)} "
        f"classes, after {made.iterations} iterations, {made.seconds:.0f} s"
    )
