"""What commands share: progress, printing, and options.

Conventions: progress goes to stderr (on a terminal a bar, elsewhere a line now and
then), results to stdout; JSON is one strict value and nothing beside it. Of a progress
callback `done` and `total` are in the stage's unit of work, `done` never decreases
within one call, and `label` names the current item. An option that was not given is
None, so that configs keep their own defaults.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from aqa.cache.errors import printable

Progress = Callable[[float, float, str], None]


def silent(done: float, total: float, label: str) -> None:
    """Show no progress: the default of every stage."""


#: Exit code of a command that finished, though not with every video.
SOME_FAILED = 3


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show progress on stderr: a bar on a terminal, else a line now and then."""
    from rich import progress as rich
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield log_lines()
        return
    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[rate]}"),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
    )
    rate_of = pace()
    bar: rich.TaskID | None = None
    with rich.Progress(*columns, console=console, transient=True) as bars:

        def show(done: float, total: float, label: str) -> None:
            nonlocal bar
            rate = rate_of(done)
            now: dict[str, Any] = {
                "description": printable(label),
                "completed": round(done),
                "total": round(total),
                "rate": f"{rate:.3g}/s" if rate else "",
            }
            if bar is None:  # started here, so that earlier work does not count
                bar = bars.add_task(**now)
            else:
                bars.update(bar, **now)

        yield show


def log_lines(every: float = 10.0) -> Progress:
    """Write a plain line to stderr at most every `every` seconds, and at the end."""
    last = time.monotonic()
    rate_of = pace()

    def show(done: float, total: float, label: str) -> None:
        nonlocal last
        now = time.monotonic()
        rate = rate_of(done)
        if now - last < every and done < total:
            return
        last = now
        line = f"{printable(label)}: {done:.0f}/{total:.0f}"
        if rate:
            line += f", {rate:.3g}/s, {duration((total - done) / rate)} left"
        click.echo(line, err=True)

    return show


def duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours, whichever fits."""
    if seconds < 1:
        return f"{round(seconds, 3):.1g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def pace() -> Callable[[float], float]:
    """Return a function from `done` to the rate per second since its first call."""
    begun: tuple[float, float] | None = None

    def rate(done: float) -> float:
        nonlocal begun
        now = time.monotonic()
        if begun is None:
            begun = now, done
        return (done - begun[1]) / max(now - begun[0], 1e-9)

    return rate


def print_json(result: Any) -> None:
    """Print one strict JSON value on stdout."""
    click.echo(json.dumps(result, indent=2, allow_nan=False))


def print_failures(failures: Any) -> None:
    """Name each failed video and the reason, on stderr."""
    for failure in failures:
        click.echo(printable(f"failed: {failure.key}: {failure.reason}"), err=True)


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def as_actions(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """Parse a comma-separated list of action names."""
    from aqa.cache.samples import normal_text  # which loads NumPy

    if not text:
        return None
    names = tuple(normal_text(name) for name in text.split(","))
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
    help="cpu, cuda, cuda:1, ...; auto, the default, uses CUDA if present.",
)
actions_option = click.option(
    "--actions",
    callback=as_actions,
    help="Comma-separated actions; by default the six of the paper's experiments.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    help="Number of processes; by default chosen by the number of processors.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed."
)


#: Options that other tools have, and what they are called here.
SLIPS = {
    "--lr": "--learning-rate",
    "--epochs": "--iterations",
    "--batch-size": "--batch",
    "--input": "--videos",
    "--video": "--videos",
    "--data": "--videos",
    "--dataset": "--videos",
    "--csv": "--videos",
    "--checkpoint": "--weights",
    "--output": "--out",
    "--num-workers": "--workers",
    "--jobs": "--workers",
    "--gpu": "--device",
    "--dtype": "--precision",
    "--split": "--folds",
    "--frames": "--length",
}


class GroupedCommand(click.Command):
    """A command whose help lists options under headings and ends with examples.

    `groups` maps a heading to names of parameters; options in none of them come last.
    `examples` are command lines. A mistyped option that other tools have is answered
    with the one that is meant (`SLIPS`).
    """

    def __init__(
        self,
        *args: Any,
        groups: Mapping[str, Sequence[str]] | None = None,
        examples: Sequence[str] = (),
        **options: Any,
    ) -> None:
        """Take what `click.command` passes on."""
        super().__init__(*args, **options)
        self.groups, self.examples = groups or {}, examples

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the options, group by group."""
        left = {param.name: param for param in self.get_params(ctx)}
        headed = {
            heading: [left.pop(name) for name in names if name in left]
            for heading, names in self.groups.items()
        }
        for heading, params in (headed | {"Options": list(left.values())}).items():
            records = [param.get_help_record(ctx) for param in params]
            if rows := [record for record in records if record]:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are to be typed."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the summary for a list of commands, whole."""
        return super().get_short_help_str(max(limit, 120))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and suggest an option for a common slip."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            meant = SLIPS.get(error.option_name)
            known = {name for param in self.get_params(ctx) for name in param.opts}
            if meant in known:
                message = f"No such option {error.option_name}: did you mean {meant}?"
                raise click.NoSuchOption(error.option_name, message, ctx=ctx) from None
            raise


class CommandGroup(click.Group):
    """A group whose commands are `GroupedCommand`s."""

    command_class = GroupedCommand
