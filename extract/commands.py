"""`aqa extract` and `aqa poses`: from videos to features, and to joints."""

from pathlib import Path
from typing import Any

import click

from aqa.cache.options import (
    PATH,
    actions_option,
    cache_option,
    device_option,
    given,
    json_option,
    workers_option,
)
from aqa.cache.terminal import print_json, progress_bar
from aqa.extract.config import (
    KEEP,
    POSE_FEATURES,
    ClipConfig,
    DetectorConfig,
    ExtractConfig,
    PoseConfig,
)
from aqa.extract.options import with_features

SOME_FAILED = 3


def as_shard(_: click.Context, option: click.Parameter, text: str | None) -> Any:
    """Read `i/N`, 1-based, as the config's 0-based pair."""
    if text is None:
        return None
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise click.BadParameter(f"expected i/N with 1 <= i <= N, found {text!r}")
    return int(i) - 1, int(n)


def print_failures(failures: Any) -> None:
    """Name each failed video and the reason, on stderr."""
    for failure in failures:
        click.echo(f"failed: {failure.key}: {failure.reason}", err=True)


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
    help="C3D on the frames, or a transform of poses.",
)
@click.option("--poses", type=PATH, help="Folder of poses, for pose features.")
@actions_option
@click.option(
    "--length",
    type=int,
    default=ClipConfig.length,
    show_default=True,
    help="Frames a video is brought to.",
)
@click.option(
    "--keep",
    type=click.Choice(KEEP),
    default=ClipConfig.keep,
    show_default=True,
    help="Frames of a longer video that stay.",
)
@click.option(
    "--shard", callback=as_shard, help="i/N: do the i-th of N parts of the videos."
)
@workers_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: the nodes of a Ray cluster do the work; needs `aqa[ray]`.",
)
@click.option("--ray-address", help="The cluster; by default the one that runs here.")
@click.option("--plain", is_flag=True, help="Share nothing between copies: an oracle.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
@json_option
def extract(
    videos: Path,
    cache: Path,
    features: str,
    poses: Path | None,
    actions: Any,
    length: int,
    keep: str,
    dry_run: bool,
    as_json: bool,
    shard: tuple[int, int] | None,
    engine: str,
    ray_address: str | None,
    **options: Any,
) -> None:
    """Fill the cache with features; run again, it goes on where it stopped.

    Shards of one data set may run at once, on any number of machines that share the
    folder; whoever finishes last merges.
    """
    from aqa.extract.datasets.reader import read_dataset
    from aqa.extract.stage import Extractor, plan
    from aqa.extract.stage import extract as run

    dataset = read_dataset(videos, actions)
    for note in dataset.notes:
        click.echo(note, err=True)
    extractor: Extractor
    clips = ClipConfig(length=length, keep=keep)
    config = ExtractConfig(clips=clips, **given(**options))
    if features == "c3d" and engine == "ray":
        from aqa.extract.ray_engine import RayExtractor

        extractor = RayExtractor(config, ray_address)
    elif features == "c3d":
        from aqa.extract.network import C3DExtractor

        extractor = network = C3DExtractor(config)
        for note in network.notes:
            click.echo(note, err=True)
    else:
        from aqa.extract.poses.extractor import PoseExtractor

        if poses is None:
            raise click.UsageError(f"--features {features} needs --poses DIR")
        extractor = PoseExtractor(poses, PoseConfig(features=features))
    if dry_run:
        work = plan(dataset, cache, extractor, shard)
        result = {"todo": [v.key for v in work.todo], "finished": work.skipped}
        if as_json:
            print_json(result)
        else:
            click.echo(f"{len(work.todo)} to do, {work.skipped} finished: {cache}")
        return
    with progress_bar() as progress:
        made = run(dataset, cache, extractor, shard, progress)
    print_failures(made.failures)
    if as_json:
        print_json(made.record())
    else:
        click.echo(
            f"{cache}: {made.done} extracted, {made.skipped} there before, "
            f"{len(made.failures)} failed, {made.seconds:.0f} s"
            + ("" if made.merged else "; not merged: videos are left to do")
        )
    if made.failures:
        raise click.exceptions.Exit(SOME_FAILED)


@click.command()
@click.option(
    "--videos", type=PATH, required=True, help="Videos, as for `aqa extract`."
)
@click.option("--out", type=PATH, required=True, help="Folder of the poses.")
@click.option("--model", type=PATH, required=True, help="RTMO or RTMPose, .onnx.")
@click.option(
    "--detector", type=PATH, help="YOLOX that finds people first, for RTMPose; .onnx."
)
@actions_option
@device_option
@click.option("--allow-damaged", is_flag=True, help="Look at damaged videos as well.")
@json_option
def poses(videos: Path, out: Path, actions: Any, as_json: bool, **options: Any) -> None:
    """Find athletes' joints in videos, one file each; needs `aqa[pose]`.

    Run again, it goes on where it stopped. `aqa extract --features pose-dct --poses
    OUT` makes features of them.
    """
    from aqa.extract.datasets.reader import read_dataset
    from aqa.extract.poses.detector import detect_poses

    dataset = read_dataset(videos, actions)
    with progress_bar() as progress:
        made = detect_poses(dataset, out, DetectorConfig(**given(**options)), progress)
    print_failures(made.failures)
    if as_json:
        print_json(made.record())
    else:
        click.echo(
            f"{out}: {made.done} done, {made.skipped} there before, "
            f"{len(made.failures)} failed, {made.seconds:.0f} s"
        )
    if made.failures:
        raise click.exceptions.Exit(SOME_FAILED)
