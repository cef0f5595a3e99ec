"""Options of the commands that run the network, said in one way."""

from collections.abc import Callable, Collection
from typing import Any

import click
from click.core import ParameterSource

from aqa.cache.options import PATH, device_option
from aqa.extract.config import PRECISIONS

Command = Callable[..., Any]
ARCH = click.Choice(["c3d-tiny", "c3d-small", "c3d-full"])
PRECISION = click.Choice(PRECISIONS)


preset_options = (
    click.option(
        "--preprocessing",
        help="c3d, mmaction or imagenet, in place of the file's own.",
    ),
    click.option(
        "--pool5",
        type=click.Choice(["ceil", "padded"]),
        help="The last pooling, in place of the file's own.",
    ),
    click.option("--mean", type=PATH, help="A mean file (.binaryproto, .npy)."),
)


def with_presets(command: Command) -> Command:
    """Add the options that override what a weights file says of itself."""
    for option in reversed(preset_options):
        command = option(command)
    return command


def with_features(command: Command) -> Command:
    """Add the options that say what is computed of a video."""
    for option in reversed(
        (
            click.option(
                "--weights",
                help="A C3D weights file, `tiny` (comes with aqa) or `random[:seed]`.",
            ),
            click.option("--arch", type=ARCH, help="The network of random weights."),
            *preset_options,
            device_option,
            click.option(
                "--precision",
                type=PRECISION,
                help="What the network computes in; auto is fp32 on CPU.",
            ),
            click.option(
                "--allow-damaged",
                is_flag=True,
                help="Take damaged videos, and record the damage.",
            ),
        )
    ):
        command = option(command)
    return command


def refuse_given(names: Collection[str], of: str) -> None:
    """Refuse options of the running command that were given and could do nothing."""
    context = click.get_current_context()
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in names and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} does nothing for {of}")
