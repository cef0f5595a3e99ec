"""`aqa extract`: from videos or poses to features in the cache.

Also the options that all commands share that run the network.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from aqa.cache.console import (
    PATH,
    SOME_FAILED,
    actions_option,
    cache_option,
    device_option,
    given,
    json_option,
    print_failures,
    print_json,
    progress_bar,
    workers_option,
)
from aqa.cache.errors import printable
from aqa.extract.config import (
    KEEP,
    POSE_FEATURES,
    PRECISIONS,
    ClipConfig,
    ExtractConfig,
    PoseConfig,
)
from aqa.extract.poses.commands import (
    FILE_OPTIONS,
    with_file_options,
    with_pose_options,
)
from aqa.extract.weights.formats import check_weights

Command = Callable[..., Any]
ARCH = click.Choice(["c3d-tiny", "c3d-small", "c3d-full"])
PRECISION = click.Choice(PRECISIONS)


preset_options = (
    click.option(
        "--preprocessing",
        help="c3d, mmaction or imagenet, instead of the file's own.",
    ),
    click.option(
        "--pool5",
        type=click.Choice(["ceil", "padded"]),
        help="The last pooling, instead of the file's own.",
    ),
    click.option("--mean", type=PATH, help="A mean file (.binaryproto, .npy)."),
)


def with_presets(command: Command) -> Command:
    """Add the options that override the settings in a weights file."""
    for option in reversed(preset_options):
        command = option(command)
    return command


def with_features(command: Command) -> Command:
    """Add the options that determine a video's C3D features."""
    for option in reversed(
        (
            click.option(
                "--weights",
                help="A C3D weights file, `tiny` (comes with aqa) or `random[:seed]`.",
            ),
            click.option("--arch", type=ARCH, help="Network size for random weights."),
            *preset_options,
            device_option,
            click.option(
                "--precision",
                type=PRECISION,
                help="Precision of the network; auto is fp32 on CPU.",
            ),
            click.option(
                "--allow-damaged",
                is_flag=True,
                help="Accept damaged videos, and record the damage.",
            ),
        )
    ):
        command = option(command)
    return command


def refuse_given(names: Collection[str], of: str) -> None:
    """Raise a usage error for options that were given but have no effect."""
    context = click.get_current_context()
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in names and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} does nothing for {of}")


if TYPE_CHECKING:
    from aqa.extract.datasets.dataset import Dataset
    from aqa.extract.stage import Extractor

#: Options without effect on pose features, and on C3D features.
OF_C3D = (
    *("weights", "arch", "preprocessing", "pool5", "mean", "device", "precision"),
    *("allow_damaged", "workers", "engine", "ray_address", "plain"),
)
OF_POSES = ("poses", "athletes", "confidence", "missing", *FILE_OPTIONS)


def as_shard(_: click.Context, option: click.Parameter, text: str | None) -> Any:
    """Parse `i/N`, 1-based, as a 0-based pair."""
    if text is None:
        return None
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise click.BadParameter(f"expected i/N with 1 <= i <= N, found {text!r}")
    return int(i) - 1, int(n)


@click.command()
@click.option(
    "--videos",
    type=PATH,
    required=True,
    help="The AQA-7 folder, a CSV (video,action,score,split) or a folder of videos.",
)
@cache_option
@with_features
@click.option(
    "--features",
    type=click.Choice(["c3d", *POSE_FEATURES]),
    default="c3d",
    show_default=True,
    help="C3D on frames, or a transform of poses.",
)
@click.option("--poses", type=PATH, help="Folder of poses, for pose features.")
@with_pose_options
@with_file_options
@actions_option
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
    help="ray: the nodes of a Ray cluster do the work; needs the extra `ray`.",
)
@click.option(
    "--ray-address", help="Ray cluster; default: the one that runs on this machine."
)
@click.option(
    "--plain", is_flag=True, help="Share no computation between copies: slow reference."
)
@click.option("--dry-run", is_flag=True, help="Print what would be done, and stop.")
@json_option
def extract(
    videos: Path,
    cache: Path,
    features: str,
    actions: Any,
    dry_run: bool,
    as_json: bool,
    shard: tuple[int, int] | None,
    **options: Any,
) -> None:
    """Extract features to the cache; a repeated run continues where it stopped.

    Several runs may fill one cache at the same time, on any number of machines that
    share the folder, with or without --shard. The run that finishes last merges.
    """
    if options["engine"] == "local" and options["weights"] is not None:
        check_weights(options["weights"])
    from aqa.extract.datasets.reader import read_dataset
    from aqa.extract.stage import extract as run
    from aqa.extract.stage import plan, relabelled

    if features == "c3d":
        refuse_given(OF_POSES, "C3D features")
    else:
        refuse_given(OF_C3D, "pose features")
        if features != "pose-clips":
            refuse_given(("length", "keep"), features)
    if options["engine"] == "local":
        refuse_given(["ray_address"], "--engine local")
    dataset = read_dataset(videos, actions)
    for note in dataset.notes:
        click.echo(printable(note), err=True)
    extractor = _extractor(dataset, features, **options)
    for note in extractor.notes:
        click.echo(printable(note), err=True)
    if dry_run:
        work = plan(dataset, cache, extractor, shard)
        _print_relabelled(relabelled(dataset.videos, cache))
        result = {"todo": [v.key for v in work.todo], "finished": work.skipped}
        if as_json:
            print_json(result)
        else:
            click.echo(f"{len(work.todo)} to do, {work.skipped} finished: {cache}")
        return
    with progress_bar() as progress:
        made = run(dataset, cache, extractor, shard, progress)
    print_failures(made.failures)
    if made.damage:
        key, damage = next(iter(made.damage.items()))
        what = "accepted though damaged" if features == "c3d" else "poses with a note"
        click.echo(
            f"{what}: {len(made.damage)} of {made.done} videos, first {key}: {damage}",
            err=True,
        )
    _print_relabelled(made.relabelled)
    if as_json:
        print_json(made.record())
    else:
        elsewhere = f"{made.elsewhere} by another run, " if made.elsewhere else ""
        click.echo(
            f"{cache}: {made.done} extracted, {elsewhere}{made.skipped} there before, "
            f"{len(made.failures)} failed, {made.seconds:.0f} s"
            + ("" if made.merged else "; not merged: some videos are not finished")
        )
    if made.failures:
        raise click.exceptions.Exit(SOME_FAILED)


def _extractor(
    dataset: "Dataset",
    features: str,
    *,
    engine: str,
    ray_address: str | None,
    length: int,
    keep: str,
    poses: Path | None,
    **options: Any,
) -> "Extractor":
    """Return the extractor for the requested features."""
    clips = ClipConfig(length=length, keep=keep)
    of_poses = {name: options.pop(name) for name in OF_POSES if name in options}
    if features != "c3d":
        from aqa.extract.poses.extractor import PoseExtractor

        if poses is None:
            raise click.UsageError(f"--features {features} needs --poses DIR")
        config = PoseConfig(features=features, clips=clips, **given(**of_poses))
        return PoseExtractor(poses, config, dataset.videos)
    asked_for = ExtractConfig(clips=clips, **given(**options))
    if engine == "ray":
        from aqa.extract.ray_engine import RayExtractor

        return RayExtractor(asked_for, ray_address)
    from aqa.extract.network import C3DExtractor

    return C3DExtractor(asked_for)


def _print_relabelled(count: int) -> None:
    if count:
        click.echo(
            f"labels of {count} videos differ from the cache's; `aqa cache relabel` "
            "updates the cache",
            err=True,
        )
