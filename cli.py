"""The command line: parse, call, print.

Conventions: results go to stdout, progress and log to stderr; with `--json` stdout
holds one JSON object and nothing else. Exit codes: 0 done, 1 error, 2 usage,
3 finished but some videos failed, 4 made with other features than asked for,
130 interrupted. Heavy libraries are imported inside the commands, so that
`aqa --help` answers at once.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from aqa.cache.actions import EXPERIMENT_ACTIONS
from aqa.cache.errors import AqaError
from aqa.cache.progress import Progress
from aqa.extract.config import (
    KEEP,
    POSE_FEATURES,
    PRECISIONS,
    ClipConfig,
    DetectorConfig,
    ExtractConfig,
    PoseConfig,
    config_like,
)
from aqa.extract.pretrain_config import PretrainConfig
from aqa.regress.config import CompareConfig, FitConfig, Schedule

SOME_FAILED = 3
INTERRUPTED = 130

#: The demo's pre-training: clips of each class, batches and their size, and a seed of
#: its own, so that its clips are none of those that `tiny` was trained on.
DEMO_CLIPS = 5
DEMO_BATCHES = 10
DEMO_BATCH = 8
DEMO_SEED = 7


class Commands(click.Group):
    """Turn the package's errors and interruptions into exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; SIGTERM is treated as Ctrl-C."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except AqaError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command goes on from here", err=True)
            ctx.exit(INTERRUPTED)


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


def given(**options: Any) -> dict[str, Any]:
    """Keep the options that were given, so that configs keep their own defaults."""
    return {name: value for name, value in options.items() if value is not None}


def as_shard(_: click.Context, option: click.Parameter, text: str | None) -> Any:
    """Read `i/N`, 1-based, as the config's 0-based pair."""
    if text is None:
        return None
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise click.BadParameter(f"expected i/N with 1 <= i <= N, found {text!r}")
    return int(i) - 1, int(n)


def as_actions(_: click.Context, option: click.Parameter, text: str | None) -> Any:
    """Read a comma-separated list of action names."""
    return tuple(text.split(",")) if text else None


Command = Callable[..., Any]
PATH = click.Path(path_type=Path)
ARCH = click.Choice(["c3d-tiny", "c3d-small", "c3d-full"])
PRECISION = click.Choice(PRECISIONS)

cache_option = click.option(
    "--cache",
    type=PATH,
    default=Path("features.h5"),
    envvar="AQA_CACHE",
    show_default=True,
    show_envvar=True,
    help="The feature cache.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout."
)
device_option = click.option(
    "--device",
    default=ExtractConfig.device,
    show_default=True,
    help="cpu, cuda, cuda:1, ...; auto takes CUDA where it is.",
)
actions_option = click.option(
    "--actions",
    callback=as_actions,
    help="Comma-separated actions; by default the six of the paper's experiments.",
)
workers_option = click.option(
    "--workers", type=click.IntRange(1), help="Processes; by default one a processor."
)
seed_option = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed."
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aqa")
def main() -> None:
    """Action quality assessment: from videos to the scores judges would give.

    Exit codes: 0 done, 1 error, 2 usage, 3 finished but some videos failed, 4 made
    with other features than asked for, 130 interrupted.
    """


@main.command()
@click.argument("folder", type=PATH)
@click.option(
    "--scale",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Times Table 1's numbers of videos.",
)
@seed_option
@click.option(
    "--actions", callback=as_actions, help="Comma-separated actions; by default all."
)
@workers_option
def synth(folder: Path, scale: float, seed: int, actions: Any, workers: Any) -> None:
    """Render an AQA-7-shaped data set into FOLDER, true joints beside it.

    The score is determined by what is seen: somersaults and twists, bent knees, a
    splash or a stumbled landing. The same seed and scale give the same bytes.
    """
    from aqa.extract.synthetic import synthesise

    with progress_bar() as progress:
        root = synthesise(
            folder, scale, seed, workers=workers, progress=progress, actions=actions
        )
    click.echo(root)


@main.group()
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
        click.echo(f"  {action}: {parts}")
    click.echo(json.dumps(result["provenance"], indent=2))


@cache.command("verify")
@cache_option
@json_option
def cache_verify(cache: Path, as_json: bool) -> None:
    """Check every byte of a cache and of the parts beside it."""
    from aqa.cache.maintenance import verify

    with progress_bar() as progress:
        problems = verify(cache, progress)
    if as_json:
        print_json({"cache": str(cache), "sound": not problems, "problems": problems})
    else:
        for problem in problems:
            click.echo(problem)
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
    from aqa.cache.labels import read_labels, relabel

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
    from aqa.cache.imports import import_features

    click.echo(import_features(labels, name, cache))


preset_options = (
    click.option(
        "--preprocessing",
        help="c3d, mmaction or imagenet, in place of the file's own.",
    ),
    click.option(
        "--pool5",
        type=click.Choice(["ceil", "padded"]),
        help="The last pooling, in place of the file's own.",
    ),
    click.option("--mean", type=PATH, help="A mean file (.binaryproto, .npy)."),
)


def with_presets(command: Command) -> Command:
    """Add the options that override what a weights file says of itself."""
    for option in reversed(preset_options):
        command = option(command)
    return command


@main.group()
def weights() -> None:
    """Look into and convert C3D weight files."""


@weights.command("inspect")
@click.argument("file", type=PATH)
@json_option
def weights_inspect(file: Path, as_json: bool) -> None:
    """Say what FILE is: format, network, pre-processing, or why it cannot be used."""
    from aqa.extract.weight_inspection import inspect

    inspection = inspect(file)
    if as_json:
        print_json(inspection.record())
        return
    for name, value in inspection.record().items():
        if name == "arrays":
            for array, shape in value.items():
                click.echo(f"  {array}: {' x '.join(map(str, shape))}")
        else:
            click.echo(f"{name}: {value}")


@weights.command("convert")
@click.argument("file", type=PATH)
@click.argument("out", type=PATH)
@with_presets
def weights_convert(file: Path, out: Path, **presets: Any) -> None:
    """Make FILE a verified safetensors file OUT with its preset inside."""
    from aqa.extract.weight_export import convert

    made = convert(file, out, **presets)
    click.echo(f"{out}: {made.arch}, {made.origin}, sha256 {made.sha256}")


def print_failures(failures: Any) -> None:
    """Name each failed video and the reason, on stderr."""
    for failure in failures:
        click.echo(f"failed: {failure.key}: {failure.reason}", err=True)


def with_features(command: Command) -> Command:
    """Add the options that say what is computed of a video."""
    for option in reversed(
        (
            click.option(
                "--weights",
                help="A C3D weights file, `tiny` (comes with aqa) or `random[:seed]`.",
            ),
            click.option("--arch", type=ARCH, help="The network of random weights."),
            *preset_options,
            device_option,
            click.option(
                "--precision",
                type=PRECISION,
                help="What the network computes in; auto is fp32 on CPU.",
            ),
            click.option(
                "--allow-damaged",
                is_flag=True,
                help="Take damaged videos, and record the damage.",
            ),
        )
    ):
        command = option(command)
    return command


@main.command()
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
    from aqa.extract.dataset import read_dataset
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
        from aqa.extract.pose_stage import PoseExtractor

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


@main.command()
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
    from aqa.extract.dataset import read_dataset
    from aqa.extract.detector import detect_poses

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


@main.command()
@cache_option
@click.option(
    "--mode",
    type=click.Choice(["all-action", "single-action"]),
    default=FitConfig.mode,
    show_default=True,
    help="One model of all actions, or one of each.",
)
@click.option(
    "--head",
    type=click.Choice(["lstm", "svr"]),
    default=FitConfig.head,
    show_default=True,
    help="LSTM over the clips, or SVR on their mean.",
)
@actions_option
@click.option(
    "--iterations",
    type=click.IntRange(1),
    help=f"Batches that an LSTM learns from; the paper's {Schedule.iterations}.",
)
@seed_option
@click.option(
    "--labels",
    type=click.Choice(["final", "incremental"]),
    default=FitConfig.labels,
    show_default=True,
    help="incremental: clip k of K learns k/K of the score, to localise errors.",
)
@device_option
@workers_option
@click.option(
    "--out",
    type=PATH,
    default=Path("models"),
    show_default=True,
    help="Folder of the model files.",
)
@json_option
def fit(cache: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Train heads on the cached features, test them, and write model files.

    Trains on the training list and reports Spearman's rho on the test list. Needs a
    cache and nothing else: no video, no network, no GPU.
    """
    from rich.console import Console

    from aqa.regress.fitting import fit as run
    from aqa.regress.report.terminal import rich_table

    with progress_bar() as progress:
        report = run(cache, FitConfig(**given(**options)), out, progress)
    if as_json:
        print_json(
            {
                "models": [str(path) for path in report.models],
                "results": dict(report.results),
                "average": dict(report.average),
            }
        )
        return
    Console().print(rich_table(report.table()))
    for path in report.models:
        click.echo(path)


@main.command()
@click.argument("videos", nargs=-1, required=True, type=PATH)
@click.option("--model", type=PATH, required=True, help="A file of `aqa fit`.")
@with_features
@click.option("--action", help="The action, for a model that knows several.")
@click.option("--from", "start", type=float, help="Score from this second on.")
@click.option("--to", "end", type=float, help="Score up to this second.")
@click.option("--html", type=PATH, help="Write a page with frames and course.")
@json_option
def score(
    videos: tuple[Path, ...],
    model: Path,
    action: str | None,
    start: float | None,
    end: float | None,
    html: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Score VIDEOS: judges' units, an interval, and where quality was lost.

    The weights must be those that the model's features were made with.
    """
    from aqa.extract.clips import middle_frames
    from aqa.extract.network import C3DExtractor
    from aqa.extract.video_list import Video
    from aqa.regress.model_file import load_model
    from aqa.regress.report.score_page import Scored, write_score_page
    from aqa.regress.scoring import length_warning
    from aqa.regress.scoring import score as score_features

    fitted = load_model(model)
    base = config_like(fitted.provenance.record)
    extractor = C3DExtractor(replace(base, **given(**options)))
    fitted.require(extractor.provenance)
    scored, failed = [], False
    named = [Video(str(path), path, "", "", math.nan) for path in videos]
    for video, decoded in extractor.decode(named, start, end):
        if isinstance(decoded, AqaError):
            click.echo(f"failed: {decoded}", err=True)
            failed = True
            continue
        said = score_features(fitted, extractor.features(decoded.frames), action)
        if warning := length_warning(fitted, said.action, decoded.total):
            click.echo(f"{video.path}: {warning}", err=True)
        strip = middle_frames(decoded.frames, base.clips)
        scored.append(Scored(video.path, said, strip))
    if html is not None:
        write_score_page(html, scored)
    if as_json:
        print_json([{"video": str(s.video), **s.score.record()} for s in scored])
    else:
        for each in scored:
            click.echo(f"{each.video}: {each.score.describe()}")
    if failed:
        raise click.exceptions.Exit(SOME_FAILED)


@main.group()
def model() -> None:
    """Look into fitted models."""


@model.command("info")
@click.argument("file", type=PATH)
def model_info(file: Path) -> None:
    """Say what a model knows, how it was fitted, and how good it is."""
    from aqa.regress.model_file import load_model

    print_json(load_model(file).record())


@main.command()
@click.argument(
    "experiment",
    type=click.Choice(["single-vs-all", "zero-shot", "fine-tune", "all"]),
)
@cache_option
@click.option(
    "--also",
    type=PATH,
    multiple=True,
    help="A further cache of the same videos: rows of its own in the table.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=CompareConfig.seeds,
    show_default=True,
    help="Repetitions, each with its own random seed.",
)
@click.option(
    "--iterations",
    type=click.IntRange(1),
    help=f"Scale all schedules to this length; the paper's is {Schedule.iterations}.",
)
@actions_option
@click.option(
    "--average-offsets", is_flag=True, help="Add rows that average the six copies."
)
@device_option
@workers_option
@click.option(
    "--out",
    type=PATH,
    default=Path("report"),
    show_default=True,
    help="Folder of the report.",
)
@json_option
def compare(
    experiment: str,
    cache: Path,
    also: tuple[Path, ...],
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Run an experiment of the paper: Table 2, Table 3, Table 4, or all three.

    Needs a cache and nothing else. Stopped, it goes on where it was; run again, it
    answers at once. Writes report.json, report.md, report.html and CSV into --out.
    """
    from rich.console import Console

    from aqa.regress.experiments import compare as run
    from aqa.regress.report.terminal import print_reports

    config = CompareConfig(**given(**options))
    with progress_bar() as progress:
        reports = run(cache, [experiment], config, out, progress, also=also)
    if as_json:
        print_json(reports if experiment == "all" else reports[0])
        return
    print_reports(reports, Console())
    click.echo(f"report: {out / 'report.html'}")


@main.command()
@click.option(
    "--videos",
    type=PATH,
    required=True,
    help="UCF-101, or any folder of class folders.",
)
@click.option(
    "--split",
    type=PATH,
    help="trainlist0N.txt, with testlist0N.txt and classInd.txt beside it.",
)
@click.option("--out", type=PATH, required=True, help="The weights file to write.")
@click.option("--arch", type=ARCH, help="The network; c3d-small unless --init says.")
@click.option("--init", help="Weights to start from, as for `aqa extract --weights`.")
@click.option(
    "--iterations",
    type=click.IntRange(1),
    default=PretrainConfig.iterations,
    show_default=True,
    help="Batches to train on.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=PretrainConfig.batch,
    show_default=True,
    help="Clips in a batch.",
)
@click.option(
    "--learning-rate",
    type=float,
    default=PretrainConfig.learning_rate,
    show_default=True,
    help="Initial rate of SGD.",
)
@click.option(
    "--step",
    type=click.IntRange(1),
    default=PretrainConfig.step,
    show_default=True,
    help="Iterations after which the rate is divided by ten.",
)
@seed_option
@device_option
@click.option("--precision", type=PRECISION, help="As for extract.")
@workers_option
@click.option("--allow-damaged", is_flag=True, help="Train on damaged videos as well.")
@json_option
def pretrain(as_json: bool, **options: Any) -> None:
    """Train C3D to tell actions apart, as the paper's was on UCF-101.

    Run again, it goes on where it stopped. On several GPUs: torchrun -m aqa.cli
    pretrain ... .
    """
    from aqa.extract.pretrain import pretrain as run

    with progress_bar() as progress:
        made = run(PretrainConfig(**given(**options)), progress)
    if as_json:
        print_json(
            {
                "weights": str(made.path),
                "clip_accuracy": made.clip_accuracy,
                "video_accuracy": made.video_accuracy,
                "classes": list(made.classes),
                "iterations": made.iterations,
                "seconds": made.seconds,
            }
        )
        return
    click.echo(
        f"{made.path}: {made.clip_accuracy:.1%} of the test clips and "
        f"{made.video_accuracy:.1%} of the test videos right, of {len(made.classes)} "
        f"classes, after {made.iterations} iterations, {made.seconds:.0f} s"
    )


@main.command()
@click.option(
    "--out",
    type=PATH,
    default=Path("demo"),
    show_default=True,
    help="Folder of all that the demo makes.",
)
@click.option(
    "--scale",
    type=click.FloatRange(0, min_open=True),
    default=0.1,
    show_default=True,
    help="Size of the data set, times AQA-7's.",
)
@click.option(
    "--iterations",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Batches that an LSTM learns from.",
)
@click.pass_context
def demo(ctx: click.Context, out: Path, scale: float, iterations: int) -> None:
    """Go the whole way on a rendered data set: from videos to the report.

    Renders the videos, trains C3D a little further than the weights that come with
    aqa, extracts features, fits a model and compares heads; features of random
    weights are the rows to beat. Run again, it goes on where it stopped.
    """
    from aqa.extract.synthetic import synthesise_classes

    data, clips = out / "data", out / "clips"
    trained, cache, untrained = (
        out / name for name in ("c3d-tiny.safetensors", "features.h5", "random.h5")
    )

    @contextmanager
    def stage(title: str) -> Iterator[None]:
        click.echo(f"== {title}", err=True)
        begun = time.monotonic()
        yield
        click.echo(f"   {time.monotonic() - begun:.0f} s", err=True)

    if not (data / "AQA-7" / "Split_4").exists():
        with stage("render a data set in the layout of AQA-7"):
            ctx.invoke(synth, folder=data, scale=scale, actions=EXPERIMENT_ACTIONS)
    if not (clips / "trainlist01.txt").exists():
        with stage("render other clips to pre-train on"), progress_bar() as progress:
            synthesise_classes(clips, DEMO_CLIPS, DEMO_SEED, progress=progress)
    with stage("train C3D a little further on those clips"):
        ctx.invoke(
            pretrain,
            videos=clips,
            out=trained,
            init="tiny",
            iterations=DEMO_BATCHES,
            batch=DEMO_BATCH,
            seed=DEMO_SEED,
        )
    with stage("extract features, with these weights and with random ones"):
        ctx.invoke(extract, videos=data, cache=cache, weights=str(trained))
        ctx.invoke(
            extract, videos=data, cache=untrained, weights="random", arch="c3d-tiny"
        )
    with stage("fit a model of all actions"):
        ctx.invoke(fit, cache=cache, out=out / "models", iterations=iterations)
    with stage("compare single-action and all-action heads"):
        ctx.invoke(
            compare,
            experiment="single-vs-all",
            cache=cache,
            also=(untrained,),
            iterations=iterations,
            out=out / "report",
        )


if __name__ == "__main__":
    main()
