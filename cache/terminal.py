"""What commands show: progress on stderr, results on stdout.

Conventions: on a terminal progress is a bar, elsewhere a line now and then; JSON is
one strict value and nothing else beside it. Names of files are shown as `printable`.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from aqa.cache.errors import printable
from aqa.cache.progress import Progress

#: Exit code of a command that finished, though not with every video.
SOME_FAILED = 3


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show progress on stderr: a bar on a terminal, else a line now and then."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield log_lines()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    rate_of = pace()
    bar: TaskID | None = None
    with Bars(*columns, console=console, transient=True) as bars:

        def show(done: float, total: float, label: str) -> None:
            nonlocal bar
            rate = rate_of(done)
            now: dict[str, Any] = {
                "description": printable(label),
                "completed": round(done),
                "total": round(total),
                "rate": f"{rate:.3g}/s" if rate else "",
            }
            if bar is None:  # what was done before does not count for the time left
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
            line += f", {rate:.3g}/s, {(total - done) / rate:.0f} s left"
        click.echo(line, err=True)

    return show


def pace() -> Callable[[float], float]:
    """Tell how much is done a second, what was done at the first call left aside."""
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
