"""`aqa weights`: look into and convert C3D weight files."""

from pathlib import Path
from typing import Any

import click

from aqa.cache.console import PATH, json_option, print_json
from aqa.extract.commands import with_presets


@click.group()
def weights() -> None:
    """Look into and convert C3D weight files."""


@weights.command("inspect")
@click.argument("file", type=PATH)
@json_option
def weights_inspect(file: Path, as_json: bool) -> None:
    """Say what FILE is: format, network, pre-processing, or why it cannot be used."""
    from aqa.extract.weights.inspection import inspect

    inspection = inspect(file)
    if as_json:
        print_json(inspection.record())
        return
    for name, value in inspection.record().items():
        if name == "arrays":
            for array, shape in value.items():
                click.echo(f"  {array}: {' x '.join(map(str, shape))}")
        else:
            click.echo(f"{name}: {value}")


@weights.command("convert")
@click.argument("file", type=PATH)
@click.argument("out", type=PATH)
@with_presets
def weights_convert(file: Path, out: Path, **presets: Any) -> None:
    """Make FILE a verified safetensors file OUT with its preset inside."""
    from aqa.extract.weights.load import convert

    made = convert(file, out, **presets)
    click.echo(f"{out}: {made.arch}, {made.origin}, sha256 {made.sha256}")
