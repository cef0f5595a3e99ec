"""`aqa poses`: from videos to joints, one JSON file per video."""

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
from aqa.extract.config import DetectorConfig


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
