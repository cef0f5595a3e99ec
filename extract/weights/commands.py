"""`aqa weights`: inspect and convert C3D weight files."""

from pathlib import Path
from typing import Any

import click

from aqa.cache.console import PATH, GroupedCommand, json_option, print_json
from aqa.extract.options import with_presets
from aqa.extract.weights.formats import check_weights, kind_of


@click.group()
def weights() -> None:
    """Inspect and convert C3D weight files."""


@weights.command(
    "inspect",
    cls=GroupedCommand,
    examples=("aqa weights inspect c3d.pickle",),
)
@click.argument("file", type=PATH)
@json_option
def weights_inspect(file: Path, as_json: bool) -> None:
    """Show the format, network and pre-processing of FILE, or why it is unusable.

    Exit code 1 if it cannot be used.
    """
    if not file.is_file():
        kind_of(file)  # says so before torch is loaded
    from aqa.extract.weights.load import inspect

    record = inspect(file)
    if as_json:
        print_json(record)
    else:
        for name, value in record.items():
            if name == "arrays":
                for array, shape in value.items():
                    click.echo(f"  {array}: {' x '.join(map(str, shape))}")
            else:
                click.echo(f"{name}: {value}")
    if "problem" in record:
        raise click.exceptions.Exit(1)


@weights.command(
    "convert",
    cls=GroupedCommand,
    examples=("aqa weights convert c3d_ucf101_iter_38000.caffemodel c3d.safetensors",),
)
@click.argument("file", type=PATH)
@click.argument("out", type=PATH)
@with_presets
def weights_convert(file: Path, out: Path, **presets: Any) -> None:
    """Write FILE as OUT, a verified safetensors file with its preset inside."""
    check_weights(str(file))
    from aqa.extract.weights.load import load_weights, save_weights

    made = save_weights(load_weights(file, **presets), out)
    for warning in made.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{out}: {made.arch}, {made.origin}, sha256 {made.sha256}")
