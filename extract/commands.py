"""`aqa extract`, from videos or poses to features in the cache; `aqa weights`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aqa.cache.commands import OTHER_LISTS
from aqa.cache.console import (
    PATH,
    SOME_FAILED,
    CommandGroup,
    GroupedCommand,
    cache_option,
    duration,
    given,
    json_option,
    print_failures,
    print_json,
    progress_bar,
    workers_option,
)
from aqa.cache.errors import printable
from aqa.cache.files import keep_inputs
from aqa.extract import FEATURES
from aqa.extract.config import KEEP, ClipConfig, of_poses
from aqa.extract.options import (
    refuse_given,
    with_dataset,
    with_features,
    with_options,
    with_presets,
)
from aqa.extract.poses.commands import POSE_OPTIONS
from aqa.extract.weights.formats import check_weights, kind_of

if TYPE_CHECKING:
    from aqa.cache.labels import Labels
    from aqa.extract.datasets.dataset import Dataset
    from aqa.extract.extractor import Extractor
    from aqa.extract.stage import Extraction, Plan


def read_released_labels(path: Path) -> "Labels | None":
    """Return the labels of a data set's own lists; None if `path` is a file."""
    if not path.is_dir():
        return None
    from aqa.cache.labels import LABELS, Label, Labels
    from aqa.extract.datasets import read_dataset

    dataset = read_dataset(path, labels_only=True)
    labels = {v.key: Label(v.action, v.score, v.split, v.extra) for v in dataset.videos}
    extra = sorted({name for video in dataset.videos for name in video.extra})
    return Labels(labels, (*LABELS, *extra), dataset.notes)


OTHER_LISTS.append(read_released_labels)

#: Options of features of videos, and of features of poses.
OF_VIDEOS = (
    *("weights", "arch", "preprocessing", "pool5", "mean", "device", "precision"),
    *("fps", "allow_damaged", "skip_missing", "workers", "plain"),
    *("engine", "ray_address"),
)
OF_POSES = ("poses", *POSE_OPTIONS)


def as_shard(_: click.Context, option: click.Parameter, text: str | None) -> Any:
    """Parse `i/N`, 1-based, as a 0-based pair."""
    if text is None:
        return None
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise click.BadParameter(f"expected i/N with 1 <= i <= N, found {text!r}")
    return int(i) - 1, int(n)


@click.command(
    cls=GroupedCommand,
    groups={
        "Videos": ("videos", "actions", "roots", "skip_missing", "allow_damaged"),
        "Network": (
            *("weights", "arch", "preprocessing", "pool5", "mean", "length", "keep"),
            *("fps", "device", "precision", "workers", "plain"),
        ),
        "Poses": ("features", *OF_POSES),
        "Many machines": ("shard", "engine", "ray_address"),
        "Output": ("cache", "replace", "dry_run", "as_json"),
    },
    examples=(
        "aqa extract --videos AQA-7 --weights c3d_ucf101_iter_38000.caffemodel",
        "aqa extract --videos list.csv --weights tiny --cache mine.h5 --dry-run",
        "aqa extract --videos list.csv --features pose-dct --poses POSES",
    ),
)
@with_dataset
@cache_option
@with_features
@click.option(
    "--features",
    type=click.Choice(list(FEATURES)),
    default="c3d",
    show_default=True,
    help="C3D on frames, or a transform of poses.",
)
@click.option("--poses", type=PATH, help="Folder of poses, for pose features.")
@with_options(POSE_OPTIONS.values())
@click.option(
    "--length",
    type=int,
    default=ClipConfig.length,
    show_default=True,
    help="Frames per video after padding or cutting.",
)
@click.option(
    "--keep",
    type=click.Choice(KEEP),
    default=ClipConfig.keep,
    show_default=True,
    help="Which frames of a longer video stay.",
)
@click.option(
    "--fps",
    type=click.FloatRange(0, 1000, min_open=True),
    help="Resample every video to this many frames per second.",
)
@click.option(
    "--shard",
    callback=as_shard,
    help="i/N: extract only the i-th of N parts of the videos.",
)
@workers_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: extract on the nodes of a Ray cluster; needs the extra `ray`.",
)
@click.option(
    "--ray-address", help="Ray cluster; default: the one that runs on this machine."
)
@click.option(
    "--plain", is_flag=True, help="Share no computation between copies: slow reference."
)
@click.option(
    "--replace",
    is_flag=True,
    help="Extract again even if most videos are other files than those in the cache.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done, and stop.")
@json_option
def extract(
    videos: Path,
    cache: Path,
    features: str,
    actions: Any,
    roots: tuple[Path, ...],
    skip_missing: bool,
    replace: bool,
    dry_run: bool,
    as_json: bool,
    shard: tuple[int, int] | None,
    **options: Any,
) -> None:
    """Extract features to the cache; a repeated run continues where it stopped.

    Several runs may fill one cache at the same time, on any number of machines that
    share the folder, with or without --shard. The run that finishes last merges.
    """
    from aqa.extract.datasets import read_dataset
    from aqa.extract.extractor import expected_time, measure_time, remember_time
    from aqa.extract.stage import extract as run
    from aqa.extract.stage import plan, relabelled

    if not of_poses(features):
        refuse_given(OF_POSES, f"{features.upper()} features")
    else:
        refuse_given(OF_VIDEOS, "pose features")
        if features != "pose-clips":
            refuse_given(("length", "keep"), features)
    if options["engine"] == "local":
        refuse_given(["ray_address"], "--engine local")
        if options["weights"] is not None:
            check_weights(options["weights"])  # before the videos are looked for
    dataset = read_dataset(
        videos,
        actions,
        roots=roots,
        skip_missing=skip_missing,
        labels_only=of_poses(features),
    )
    _say(*dataset.notes)
    extractor = _extractor(dataset, features, **options)
    _say(*extractor.notes)
    if dry_run:
        work = plan(dataset, cache, extractor, shard, replace=replace)
        _say(*work.notes())
        _say(*_label_notes(relabelled(dataset.videos, cache)))
        todo = len(work.todo)
        seconds = expected_time(extractor) or measure_time(extractor, work.todo)
        _print_plan(work, cache, None if seconds is None else seconds * todo, as_json)
        return
    if seconds := expected_time(extractor):
        _say(f"about {duration(seconds)} per video, as measured here before")
    with progress_bar() as progress:
        made = run(
            *(dataset, cache, extractor, shard, progress), replace=replace, report=_say
        )
    print_failures(made.failures)
    if made.damage:
        key, damage = next(iter(made.damage.items()))
        what = "accepted though damaged" if features == "c3d" else "poses with a note"
        _say(f"{what}: {len(made.damage)} of {made.done} videos, first {key}: {damage}")
    _say(*made.notes, *_label_notes(made.relabelled))
    remember_time(extractor, made.done, made.seconds)
    _print_result(made, as_json)
    if made.failures:
        raise click.exceptions.Exit(SOME_FAILED)


def _extractor(
    dataset: "Dataset",
    features: str,
    *,
    engine: str,
    ray_address: str | None,
    **options: Any,
) -> "Extractor":
    """Return the extractor for the requested features."""
    of_others = OF_VIDEOS if of_poses(features) else OF_POSES
    settings = given(**{k: v for k, v in options.items() if k not in of_others})
    if engine == "ray":
        from aqa.extract.network import c3d_config
        from aqa.extract.ray_engine import RayExtractor

        return RayExtractor(c3d_config(settings), ray_address)
    if features == "c3d":
        check_weights(options["weights"])
    elif of_poses(features) and options["poses"] is None:
        raise click.UsageError(f"--features {features} needs --poses DIR")
    from aqa.extract.extractor import make_extractor

    return make_extractor(features, dataset.videos, settings)


def _say(*notes: str) -> None:
    for note in notes:
        click.echo(printable(note), err=True)


def _label_notes(count: int) -> list[str]:
    if not count:
        return []
    return [
        f"labels of {count} videos differ from the cache's; `aqa cache relabel` "
        "updates the cache"
    ]


def _print_plan(
    work: "Plan", cache: Path, seconds: float | None, as_json: bool
) -> None:

    todo = [video.key for video in work.todo]
    if as_json:
        changed = list(work.changed)
        result = {"todo": todo, "finished": work.skipped, "changed": changed}
        print_json({**result, "seconds": seconds})
        return
    time = f", about {duration(seconds)}" if seconds else ""
    click.echo(f"{len(todo)} to do{time}, {work.skipped} finished: {cache}")


def _print_result(made: "Extraction", as_json: bool) -> None:
    if as_json:
        print_json(made.record())
        return
    elsewhere = f"{made.elsewhere} by another run, " if made.elsewhere else ""
    click.echo(
        f"{made.cache}: {made.done} extracted, {elsewhere}{made.skipped} there before, "
        f"{len(made.failures)} failed, {made.seconds:.0f} s"
        + ("" if made.merged else "; not merged: some videos are not finished")
    )


@click.group(cls=CommandGroup)
def weights() -> None:
    """Inspect and convert C3D weight files."""


@weights.command(
    "inspect",
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
    examples=("aqa weights convert c3d_ucf101_iter_38000.caffemodel c3d.safetensors",),
)
@click.argument("file", type=PATH)
@click.argument("out", type=PATH)
@with_presets
def weights_convert(file: Path, out: Path, **presets: Any) -> None:
    """Write FILE as OUT, a verified safetensors file with its preset inside."""
    check_weights(str(file))
    keep_inputs(out, file)
    from aqa.extract.weights.load import load_weights, save_weights

    made = save_weights(load_weights(file, **presets), out)
    for warning in made.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{out}: {made.arch}, {made.origin}, sha256 {made.sha256}")
