"""`aqa cache`: inspect, check, merge, relabel, import, list and export caches."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aqa.cache.console import (
    PATH,
    CommandGroup,
    cache_option,
    json_option,
    print_json,
    progress_bar,
)
from aqa.cache.errors import AqaError, printable, raise_any

if TYPE_CHECKING:
    from aqa.cache.labels import Labels


@click.group(cls=CommandGroup)
def cache() -> None:
    """Inspect, check, merge and list caches; bring in labels and features."""


@cache.command(
    "info",
    examples=(
        "aqa cache info",
        "aqa cache info --cache squats.h5 --json",
    ),
)
@cache_option
@json_option
def cache_info(cache: Path, as_json: bool) -> None:
    """Say what a cache and its parts hold, and what is missing."""
    from aqa.cache.exchange import describe

    found = describe(cache)
    if as_json:
        print_json(found)
        return
    if found["shape"]:
        n, offsets, clips, width = found["shape"]
        click.echo(
            f"{cache}: {n} samples x {offsets} copies x {clips} clips x {width}, "
            f"format version {found['version']}"
        )
    for action, splits in found["samples"].items():
        parts = [f"{count} {split}" for split, count in splits.items()]
        said = ", ".join(parts).replace("(none)", "in neither list")
        click.echo(printable(f"  {action}: {said}"))
    _print(f"  {note}" for note in found["notes"])
    click.echo(json.dumps(found["provenance"], indent=2))


@cache.command(
    "verify",
    examples=("aqa cache verify --cache features.h5",),
)
@cache_option
@json_option
def cache_verify(cache: Path, as_json: bool) -> None:
    """Check every byte of a cache and of the parts beside it."""
    from aqa.cache.parts import verify

    with progress_bar() as progress:
        problems = verify(cache, progress)
    summary = f"{len(problems)} problems" if problems else "sound"
    found = {"cache": str(cache), "sound": not problems, "problems": problems}
    _print(found if as_json else [*problems, f"{cache}: {summary}"])
    if problems:
        raise click.exceptions.Exit(AqaError.exit_code)


@cache.command(
    "merge",
    examples=(
        "aqa cache merge --cache features.h5",
        "aqa cache merge node1.h5 node2.h5.parts --cache all.h5",
    ),
)
@click.argument("sources", nargs=-1, type=PATH)
@cache_option
@json_option
def cache_merge(sources: tuple[Path, ...], cache: Path, as_json: bool) -> None:
    """Merge the cache, its parts and SOURCES (caches or folders of parts)."""
    from aqa.cache.parts import merge, verify

    before = cache.stat() if cache.exists() else None
    with progress_bar() as progress:
        merged = merge(cache, sources, progress)
        if before and os.path.samestat(before, merged.stat()):
            # There was nothing to merge, so nothing was checked yet.
            raise_any(verify(merged, progress))
    _print({"cache": str(merged)} if as_json else [merged])


#: Read labels in other forms; the extraction stage adds the lists of data sets.
OTHER_LISTS: list[Callable[[Path], "Labels | None"]] = []


@cache.command(
    "relabel",
    examples=(
        "aqa cache relabel labels.csv --dry-run",
        "aqa cache relabel labels.csv --cache squats.h5 --yes",
    ),
)
@click.argument("labels", type=PATH)
@click.option("--yes", is_flag=True, help="Relabel in spite of doubts.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@cache_option
@json_option
def cache_relabel(
    labels: Path, yes: bool, dry_run: bool, cache: Path, as_json: bool
) -> None:
    """Take new labels from LABELS without extracting again.

    LABELS is a CSV with the column `key` and any of `action`, `score` and `split`;
    further columns (fold, surgeon, ...) are stored beside them. Columns that it does
    not have stay as they are. Or it is the folder of a released data set, of which
    only the lists are read. The old cache is kept as CACHE.bak.
    """
    from aqa.cache.labels import plan_relabel, read_labels, relabel

    found = (read(labels) for read in OTHER_LISTS)
    new = next(filter(None, found), None) or read_labels(labels)
    plan = plan_relabel(cache, new)
    _print([*new.notes, *plan.notes], err=True)
    if not as_json:
        counts = ", ".join(f"{count} {name}" for name, count in plan.counts.items())
        click.echo(
            f"{cache}: {plan.changed} of {plan.samples} samples change"
            + (f" ({printable(counts)})" if counts else "")
        )
        _print(f"  {example}" for example in plan.examples)
        if plan.changed > len(plan.examples):
            click.echo("  ...")
        if plan.unlisted:
            click.echo(f"  {plan.unlisted} samples are not in the list: they stay")
        if dry_run:
            _print(f"  {doubt}" for doubt in plan.doubts)
    done = plan if dry_run else relabel(cache, new, doubtful=yes)
    if as_json:
        kept = str(done.kept) if done.kept else None
        print_json({"cache": str(cache), **asdict(done), "kept": kept})
    elif not dry_run:
        kept = f"; the old file is {done.kept}" if done.kept else ""
        click.echo(f"{cache}: {done.changed} samples relabelled{kept}")


@cache.command(
    "import",
    examples=("aqa cache import i3d.csv --name i3d --cache i3d.h5",),
)
@click.argument("labels", type=PATH)
@click.option(
    "--name", required=True, help="What made the features; stored as provenance."
)
@cache_option
@json_option
def cache_import(labels: Path, name: str, cache: Path, as_json: bool) -> None:
    """Make a cache of features from elsewhere (I3D, P3D, ...).

    LABELS is a CSV `key,action,score,split,file`; `split` may be missing, and further
    columns are kept. Each file is a .npy of one sample, of shape (D,), (clips, D) or
    (offsets, clips, D). Where clip counts differ, shorter samples are padded in front.
    """
    from aqa.cache.exchange import import_features

    made = import_features(labels, name, cache)
    _print(made.notes, err=True)
    said = f"{made.cache}: {made.samples} samples of shape {made.shape}"
    _print({**asdict(made), "cache": str(made.cache)} if as_json else [said])


@cache.command(
    "list",
    examples=("aqa cache list --cache features.h5 > labels.csv",),
)
@cache_option
@json_option
def cache_list(cache: Path, as_json: bool) -> None:
    """List keys, labels and frames as CSV; `aqa cache relabel` reads it back."""
    from aqa.cache.exchange import list_samples

    rows = list_samples(cache)
    if as_json:
        print_json(rows)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows(["" if v is None else v for v in row.values()] for row in rows)
    sys.stdout.write(text.getvalue())


@cache.command(
    "export",
    examples=("aqa cache export features.npz --cache features.h5",),
)
@click.argument("out", type=PATH)
@cache_option
@json_option
def cache_export(out: Path, cache: Path, as_json: bool) -> None:
    """Write features, keys and labels to OUT, an .npz for NumPy."""
    from aqa.cache.exchange import export

    shapes = export(cache, out)
    said = f"{out}: " + ", ".join(f"{k} {v}" for k, v in shapes.items())
    _print({"out": str(out), "arrays": shapes} if as_json else [said])


def _print(found: dict[str, Any] | Iterable[Any], err: bool = False) -> None:
    """Print a dictionary as JSON, anything else line by line."""
    if isinstance(found, dict):
        print_json(found)
        return
    for line in found:
        click.echo(printable(line), err=err)
