"""`aqa poses`: from videos to joints; and the options that say how poses are read."""

from pathlib import Path
from typing import Any

import click

from aqa.cache.console import (
    PATH,
    SOME_FAILED,
    GroupedCommand,
    device_option,
    given,
    json_option,
    print_failures,
    print_json,
    progress_bar,
)
from aqa.cache.errors import printable
from aqa.extract.config import POSE_UNITS, THIRDS, DetectorConfig, PoseConfig
from aqa.extract.options import with_dataset
from aqa.extract.poses.layouts import LAYOUTS


def _option(name: str, text: str, kind: Any, **settings: Any) -> Any:
    return click.option(*name.split(), type=kind, help=f"Poses: {text}", **settings)


#: Options that say what the numbers of a pose file are, by field of `PoseConfig`.
FILE_OPTIONS = {
    "layout": _option(
        "--layout", "joints and their order.", click.Choice(list(LAYOUTS))
    ),
    "joints": _option(
        "--joints", "number of joints of another layout.", click.IntRange(2)
    ),
    "root": _option(
        "--root-joint root", "joint to measure from, of another.", click.IntRange(0)
    ),
    "third": _option(
        "--third", "third number of a joint; depth is z.", click.Choice(THIRDS)
    ),
    "units": _option(
        "--units", "of x and y; metres for any length.", click.Choice(POSE_UNITS)
    ),
    "picture": _option(
        "--picture",
        "size of the picture that x and y are fractions of.",
        click.IntRange(1),
        nargs=2,
        metavar="WIDTH HEIGHT",
    ),
}
#: Options of pose features, by field of `PoseConfig`.
POSE_OPTIONS = {
    "athletes": _option(
        "--athletes",
        "athletes per video, 2 for synchronised diving; default 1.",
        click.IntRange(1, 2),
    ),
    "confidence": _option(
        "--confidence",
        f"joints of a lower score count as missing; default {PoseConfig.confidence}.",
        click.FloatRange(0, 1),
    ),
    "missing": _option(
        "--missing",
        f"share of missing joints that fails a video; default {PoseConfig.missing}.",
        click.FloatRange(0, 1),
    ),
    **FILE_OPTIONS,
}


@click.command(
    cls=GroupedCommand,
    examples=("aqa poses --videos squats.csv --model rtmo-s --out poses",),
)
@with_dataset
@click.option("--out", type=PATH, required=True, help="Folder for the pose files.")
@click.option(
    "--model",
    required=True,
    help="rtmo-s, rtmo-m, rtmo-l or rtmpose-m, downloaded once; or a path (.onnx).",
)
@click.option("--detector", type=PATH, help="Person detector for RTMPose (.onnx).")
@device_option
@click.option("--allow-damaged", is_flag=True, help="Also process damaged videos.")
@json_option
def poses(
    videos: Path,
    out: Path,
    model: str,
    detector: Path | None,
    actions: Any,
    roots: tuple[Path, ...],
    skip_missing: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Detect people's joints in videos; needs the extra `pose`.

    Writes one file per video and continues where an earlier run stopped. Then `aqa
    extract --features pose-dct --poses OUT` makes features of them.
    """
    from aqa.extract.datasets import read_dataset
    from aqa.extract.poses.detect import DETECTORS, detect_poses, model_file

    dataset = read_dataset(videos, actions, roots=roots, skip_missing=skip_missing)
    for note in dataset.notes:
        click.echo(printable(note), err=True)
    with progress_bar() as progress:
        file = model_file(model, progress)
        if detector or model in DETECTORS:
            detector = model_file(detector or DETECTORS[model], progress)
    for path in (file, detector):
        if path is not None:
            click.echo(printable(f"model: {path}"), err=True)
    config = DetectorConfig(file, detector, **given(**options))
    with progress_bar() as progress:
        made = detect_poses(dataset, out, config, progress)
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
