"""What commands show: progress on stderr, results on stdout.

Conventions: on a terminal progress is a bar, elsewhere a line now and then; JSON is
one strict value and nothing else beside it.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from aqa.cache.progress import Progress


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show progress on stderr: a bar on a terminal, else a line now and then."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
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
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Bars(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("", total=None, rate="")

        def show(done: float, total: float, label: str) -> None:
            rate = done / max(time.monotonic() - started, 1e-9)
            bars.update(
                bar,
                completed=round(done),
                total=round(total),
                description=label,
                rate=f"{rate:.3g}/s",
            )

        yield show


def log_lines(every: float = 10.0) -> Progress:
    """Write a plain line to stderr at most every `every` seconds, and at the end."""
    started = last = time.monotonic()

    def show(done: float, total: float, label: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every and done < total:
            return
        last = now
        left = (now - started) * (total - done) / done if done else float("nan")
        click.echo(f"{label}: {done:.0f}/{total:.0f}, {left:.0f} s left", err=True)

    return show


def print_json(result: Any) -> None:
    """Print one strict JSON value on stdout."""
    click.echo(json.dumps(result, indent=2, allow_nan=False))
