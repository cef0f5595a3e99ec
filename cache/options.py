"""Options that several commands have, said in one way.

Conventions: an option that was not given is None and leaves a config its own default.
"""

from pathlib import Path
from typing import Any

import click


def given(**options: Any) -> dict[str, Any]:
    """Keep the options that were given, so that configs keep their own defaults."""
    return {name: value for name, value in options.items() if value is not None}


def as_actions(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """Read a comma-separated list of action names, blanks around them aside."""
    if not text:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise click.BadParameter("expected names with a comma between them")
    return names


PATH = click.Path(path_type=Path)

cache_option = click.option(
    "--cache",
    type=PATH,
    default=Path("features.h5"),
    envvar="AQA_CACHE",
    show_default=True,
    show_envvar=True,
    help="The feature cache.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout."
)
device_option = click.option(
    "--device",
    help="cpu, cuda, cuda:1, ...; auto, the default, takes CUDA where it is.",
)
actions_option = click.option(
    "--actions",
    callback=as_actions,
    help="Comma-separated actions; by default the six of the paper's experiments.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes at once; by default as many as suit the processors.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed."
)
