"""Command-line options that several extraction commands share.

Conventions: an option that was not given is None and leaves a config its own default.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import click
from click.core import ParameterSource

from aqa.cache.console import PATH, actions_option, device_option
from aqa.extract.config import PRECISIONS

Command = Callable[..., Any]
ARCH = click.Choice(["c3d-tiny", "c3d-small", "c3d-full"])
PRECISION = click.Choice(PRECISIONS)

_PRESETS = (
    click.option(
        "--preprocessing",
        help="c3d, mmaction or imagenet, instead of the file's own.",
    ),
    click.option(
        "--pool5",
        type=click.Choice(["ceil", "padded"]),
        help="The last pooling, instead of the file's own.",
    ),
    click.option("--mean", type=PATH, help="A mean file (.binaryproto, .npy)."),
)
_FEATURES = (
    click.option(
        "--weights",
        help="A C3D weights file, `tiny` (comes with aqa) or `random[:seed]`.",
    ),
    click.option("--arch", type=ARCH, help="Network size for random weights."),
    *_PRESETS,
    device_option,
    click.option(
        "--precision",
        type=PRECISION,
        help="Precision of the network; auto is fp32 on CPU.",
    ),
    click.option(
        "--allow-damaged",
        is_flag=True,
        help="Accept damaged videos, and record the damage.",
    ),
)
_DATASET = (
    click.option(
        "--videos",
        type=PATH,
        required=True,
        help="A released data set, a CSV (video,action,score,split) or a folder of "
        "videos.",
    ),
    actions_option,
    click.option(
        "--root",
        "roots",
        type=PATH,
        multiple=True,
        help="Another folder that videos may lie in, for relative and absolute paths "
        "and links; may be repeated.",
    ),
    click.option(
        "--skip-missing",
        is_flag=True,
        help="Go on without videos that do not exist; they are listed as failures.",
    ),
)


def with_options(
    options: Iterable[Callable[[Command], Command]],
) -> Callable[[Command], Command]:
    """Return a decorator that adds options to a command."""

    def add(command: Command) -> Command:
        for option in reversed(tuple(options)):
            command = option(command)
        return command

    return add


#: Options that override the settings in a weights file.
with_presets = with_options(_PRESETS)
#: Options that determine a video's C3D features.
with_features = with_options(_FEATURES)
#: Options that choose videos: arguments of `read_dataset`.
with_dataset = with_options(_DATASET)


def refuse_given(names: Collection[str], of: str) -> None:
    """Raise a usage error for options that were given but have no effect."""
    context = click.get_current_context()
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in names and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} does nothing for {of}")
