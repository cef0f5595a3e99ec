"""The command line: parse, call, print."""

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aqa")
def main() -> None:
    """Action quality assessment from cached C3D features."""
