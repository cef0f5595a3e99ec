"""`aqa cache`: look into, check and join caches; bring labels and features in."""

import json
from pathlib import Path

import click

from aqa.cache.console import PATH, cache_option, json_option, print_json, progress_bar
from aqa.cache.errors import AqaError, printable


@click.group()
def cache() -> None:
    """Look into, check and join caches; bring labels and features in."""


@cache.command("info")
@cache_option
@json_option
def cache_info(cache: Path, as_json: bool) -> None:
    """Say what a cache holds and what its features were made with."""
    from aqa.cache.store import FeatureCache

    with FeatureCache.open(cache) as opened:
        samples = opened.samples
        counts: dict[str, dict[str, int]] = {}
        for action, split in zip(samples.action, samples.split, strict=True):
            of_action = counts.setdefault(action or "(none)", {})
            of_action[split or "(none)"] = of_action.get(split or "(none)", 0) + 1
        result = {
            "cache": str(cache),
            "shape": list(opened.shape),
            "samples": counts,
            "provenance": opened.provenance.record,
            "provenance_sha256": opened.provenance.sha256,
        }
    if as_json:
        print_json(result)
        return
    n, offsets, clips, width = result["shape"]
    click.echo(f"{cache}: {n} samples x {offsets} copies x {clips} clips x {width}")
    for action, splits in counts.items():
        parts = ", ".join(f"{count} {split}" for split, count in splits.items())
        click.echo(printable(f"  {action}: {parts}"))
    click.echo(json.dumps(result["provenance"], indent=2))


@cache.command("verify")
@cache_option
@json_option
def cache_verify(cache: Path, as_json: bool) -> None:
    """Check every byte of a cache and of the parts beside it."""
    from aqa.cache.parts import verify

    with progress_bar() as progress:
        problems = verify(cache, progress)
    if as_json:
        print_json({"cache": str(cache), "sound": not problems, "problems": problems})
    else:
        for problem in problems:
            click.echo(printable(problem))
        click.echo(f"{cache}: {f'{len(problems)} problems' if problems else 'sound'}")
    if problems:
        raise click.exceptions.Exit(AqaError.exit_code)


@cache.command("merge")
@click.argument("sources", nargs=-1, type=PATH)
@cache_option
def cache_merge(sources: tuple[Path, ...], cache: Path) -> None:
    """Join the cache, its parts and SOURCES (caches or folders of parts)."""
    from aqa.cache.parts import merge

    with progress_bar() as progress:
        click.echo(merge(cache, sources, progress))


@cache.command("relabel")
@click.argument("labels", type=PATH)
@cache_option
def cache_relabel(labels: Path, cache: Path) -> None:
    """Take new labels from LABELS, a CSV `key,action,score,split`; extract nothing."""
    from aqa.cache.tables import read_labels, relabel

    changed = relabel(cache, read_labels(labels))
    click.echo(f"{cache}: {changed} samples relabelled")


@cache.command("import")
@click.argument("labels", type=PATH)
@click.option(
    "--name", required=True, help="What made the features; stands in the provenance."
)
@cache_option
def cache_import(labels: Path, name: str, cache: Path) -> None:
    """Bring features made elsewhere in (I3D, P3D, ...).

    LABELS is a CSV `key,action,score,split,file`; each file is a .npy of one sample,
    of shape (clips, D) or (offsets, clips, D).
    """
    from aqa.cache.tables import import_features

    click.echo(import_features(labels, name, cache))
