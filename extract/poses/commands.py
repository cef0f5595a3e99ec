"""`aqa poses`: from videos to joints; and the options that say how poses are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from aqa.cache.console import (
    PATH,
    SOME_FAILED,
    actions_option,
    device_option,
    given,
    json_option,
    print_failures,
    print_json,
    progress_bar,
)
from aqa.extract.config import POSE_UNITS, THIRDS, DetectorConfig, PoseConfig
from aqa.extract.poses.layouts import LAYOUTS

#: Options that say what the numbers of a pose file are; fields of `PoseConfig`.
FILE_OPTIONS = ("layout", "joints", "root", "third", "units", "picture")


def as_picture(_: click.Context, option: click.Parameter, text: str | None) -> Any:
    """Parse `WIDTHxHEIGHT` as a pair."""
    if text is None:
        return None
    width, x, height = text.partition("x")
    if not (x and width.isdecimal() and height.isdecimal()):
        raise click.BadParameter(f"expected WIDTHxHEIGHT, found {text!r}")
    return int(width), int(height)


def with_file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `FILE_OPTIONS`."""
    for option in reversed(
        (
            click.option(
                "--layout",
                type=click.Choice(list(LAYOUTS)),
                help="Poses: the joints and their order, where the file does not tell.",
            ),
            click.option(
                "--joints",
                type=click.IntRange(2),
                help="Poses of another layout: number of joints; needs --root-joint.",
            ),
            click.option(
                "--root-joint",
                "root",
                type=click.IntRange(0),
                help="Poses of another layout: the joint to measure from, 0 the first.",
            ),
            click.option(
                "--third",
                type=click.Choice(THIRDS),
                help="Poses: what the third number of a joint is; depth is z.",
            ),
            click.option(
                "--units",
                type=click.Choice(POSE_UNITS),
                help="Poses: units of x and y; metres stands for any length.",
            ),
            click.option(
                "--picture",
                callback=as_picture,
                metavar="WIDTHxHEIGHT",
                help="Poses in fractions of the picture: its size.",
            ),
        )
    ):
        command = option(command)
    return command


def with_pose_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of pose features, fields of `PoseConfig`."""
    for option in reversed(
        (
            click.option(
                "--athletes",
                type=click.IntRange(1, 2),
                help="Poses: athletes per video, 2 for synchronised diving; default 1.",
            ),
            click.option(
                "--confidence",
                type=click.FloatRange(0, 1),
                help="Poses: joints with a lower score count as missing; default "
                f"{PoseConfig.confidence}.",
            ),
            click.option(
                "--missing",
                type=click.FloatRange(0, 1),
                help="Poses: share of missing joints above which a video fails, "
                f"default {PoseConfig.missing}.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.option(
    "--videos", type=PATH, required=True, help="Videos, as for `aqa extract`."
)
@click.option("--out", type=PATH, required=True, help="Folder for the pose files.")
@click.option(
    "--model", type=PATH, required=True, help="RTMO or RTMPose model (.onnx)."
)
@click.option(
    "--detector", type=PATH, help="YOLOX person detector for RTMPose (.onnx)."
)
@actions_option
@device_option
@click.option("--allow-damaged", is_flag=True, help="Also process damaged videos.")
@json_option
def poses(videos: Path, out: Path, actions: Any, as_json: bool, **options: Any) -> None:
    """Detect people's joints in videos; needs the extra `pose`.

    Writes one file per video and continues where an earlier run stopped. Then `aqa
    extract --features pose-dct --poses OUT` makes features of them.
    """
    from aqa.extract.datasets.reader import read_dataset
    from aqa.extract.poses.detect import detect_poses

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
