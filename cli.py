"""The command line: the commands of every stage, and those that need several.

Conventions: a command parses, calls, prints. Results go to stdout, progress and log
to stderr; with `--json` stdout holds one JSON object and nothing else. Exit codes: 0
done, 1 error, 2 usage, 3 finished but some videos failed, 4 made with other features
than asked for, 130 interrupted. Heavy libraries are imported inside the commands, so
that `aqa --help` answers at once.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aqa import __version__
from aqa.cache.actions import EXPERIMENT_ACTIONS
from aqa.cache.commands import cache
from aqa.cache.console import (
    PATH,
    SOME_FAILED,
    CommandGroup,
    as_actions,
    given,
    json_option,
    print_json,
    progress_bar,
    seed_option,
    workers_option,
)
from aqa.cache.errors import AqaError, printable
from aqa.cache.files import keep_inputs
from aqa.extract.commands import extract, weights
from aqa.extract.options import with_features, with_options
from aqa.extract.poses.commands import FILE_OPTIONS, poses
from aqa.extract.pretraining.commands import pretrain
from aqa.extract.weights.formats import check_weights
from aqa.regress.commands import compare, fit, model

if TYPE_CHECKING:
    from aqa.regress.report.write import Strips

INTERRUPTED = 130


class Commands(CommandGroup):
    """Turn the package's errors and interruptions into exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; SIGTERM is treated as Ctrl-C."""
        from aqa.cache.processes import share_processors

        share_processors()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except AqaError as error:
            lines = map(printable, str(error).split("\n"))
            click.echo("Error: " + "\n".join(lines), err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:  # whoever read the output has seen enough
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename is not None else ""
            click.echo(f"Error: {printable(where)}{error.strerror or error}", err=True)
            ctx.exit(AqaError.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command goes on from here", err=True)
            ctx.exit(INTERRUPTED)


def strips_of(videos: Path, cache: Path) -> "Strips":
    """See `aqa.api.strips_of`, which `aqa compare` takes from its context."""
    from aqa.api import strips_of as found

    return found(videos, cache)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "obj": strips_of},
)
@click.version_option(__version__, prog_name="aqa")
def main() -> None:
    """Action quality assessment: from videos to the scores judges would give.

    Exit codes: 0 done, 1 error, 2 usage, 3 finished but some videos failed, 4 made
    with other features than asked for, 130 interrupted.
    """


for command in (extract, fit, compare, poses, pretrain, cache, weights, model):
    main.add_command(command)


@main.command(
    examples=("aqa synth data --scale 0.2",),
)
@click.argument("folder", type=PATH)
@click.option(
    "--scale",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Number of videos, relative to AQA-7.",
)
@click.option(
    "--fewest",
    type=click.IntRange(2),
    help="Smallest number of videos per action and list.",
)
@seed_option
@click.option(
    "--actions", callback=as_actions, help="Comma-separated actions; by default all."
)
@workers_option
def synth(folder: Path, scale: float, seed: int, **options: Any) -> None:
    """Render a synthetic data set of AQA-7's shape into FOLDER, with true joints.

    The score is determined by what is visible: somersaults and twists, bent knees, a
    splash or a stumbled landing. The same seed and scale give the same bytes.
    """
    from aqa.extract.synthetic import synthesise

    with progress_bar() as progress:
        root = synthesise(folder, scale, seed, progress=progress, **given(**options))
    click.echo(root)


@main.command(
    groups={
        "Input": ["model", "poses", "features", "action", "start", "end"],
        "Network": [
            *("weights", "arch", "preprocessing", "pool5", "mean", "device"),
            *("precision", "allow_damaged"),
        ],
        "Pose files": list(FILE_OPTIONS),
        "Output": ["html", "as_json"],
    },
    examples=(
        "aqa score jump.mp4 --model models/all-action-lstm.safetensors --weights tiny "
        "--action diving --html page.html",
        "aqa score --poses poses/001.json --model poses.safetensors --json",
    ),
)
@click.argument("videos", nargs=-1, type=PATH)
@click.option("--model", type=PATH, required=True, help="A file of `aqa fit`.")
@click.option(
    "--poses", type=PATH, multiple=True, help="A pose file, for models of poses."
)
@click.option(
    "--features",
    type=PATH,
    multiple=True,
    help="A .npy file, for models of imported features.",
)
@with_features
@with_options(FILE_OPTIONS.values())
@click.option("--action", help="The action, for a model that knows several.")
@click.option("--from", "start", type=float, help="Score from this second on.")
@click.option("--to", "end", type=float, help="Score up to this second.")
@click.option("--html", type=PATH, help="Write a page with frames and trajectory.")
@json_option
def score(
    videos: tuple[Path, ...],
    model: Path,
    poses: tuple[Path, ...],
    features: tuple[Path, ...],
    action: str | None,
    start: float | None,
    end: float | None,
    html: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Score VIDEOS, pose files or features: judges' units, an interval, warnings.

    The weights must be those that the model's features were made with. Of a long
    video the end is scored; which seconds that is is said.
    """
    if not (videos or poses or features):
        raise click.UsageError("expected VIDEOS, --poses FILE or --features FILE.npy")
    if options["weights"] is not None:
        check_weights(options["weights"])
    if html is not None:
        keep_inputs(html, model, *videos, *poses, *features)
    from aqa.api import load_model
    from aqa.api import score as run

    fitted = load_model(model)
    results = run(
        fitted,
        videos,
        poses=poses,
        features=features,
        action=action,
        start=start,
        end=end,
        warn=lambda note: click.echo(printable(note), err=True),
        **{name: value for name, value in given(**options).items() if value},
    )
    scored, failed = [], False
    for path, result in results:
        if isinstance(result, AqaError):
            click.echo(f"failed: {printable(result)}", err=True)
            failed = True
            continue
        for warning in result.score.warnings:
            click.echo(f"{printable(path)}: warning: {warning}", err=True)
        scored.append(result)
    if html is not None:
        from aqa.regress.report.score_page import write_score_page

        record = fitted.provenance.record
        weights = record.get("weights", {})
        made_with = {
            "Model": str(model),
            "Features": str(record.get("features")),
            "Weights": str(weights.get("name", "none")),
            "Written": f"{date.today().isoformat()} by aqa {__version__}",
        }
        write_score_page(html, scored, made_with)
    if as_json:
        print_json([{"video": str(s.path), **s.score.record()} for s in scored])
    else:
        for each in scored:
            click.echo(f"{printable(each.path)}: {each.score.describe()}")
    if failed:
        raise click.exceptions.Exit(SOME_FAILED)


@main.command(
    examples=(
        "aqa demo",
        "aqa demo --out big --scale 0.2 --iterations 2000",
    ),
)
@click.option(
    "--out",
    type=PATH,
    default=Path("demo"),
    show_default=True,
    help="Folder of all files.",
)
@click.option(
    "--scale",
    type=click.FloatRange(0, min_open=True),
    default=0.05,
    show_default=True,
    help="Number of videos, relative to AQA-7.",
)
@click.option(
    "--fewest",
    type=click.IntRange(2),
    default=12,
    show_default=True,
    help="Smallest number of videos per action and list.",
)
@click.option(
    "--iterations",
    type=click.IntRange(1),
    default=400,
    show_default=True,
    help="Training iterations of the LSTM heads.",
)
@click.option(
    "--random-weights",
    is_flag=True,
    help="Add rows for features of an untrained network.",
)
@click.pass_context
def demo(
    ctx: click.Context,
    out: Path,
    scale: float,
    fewest: int,
    iterations: int,
    random_weights: bool,
) -> None:
    """Run the full pipeline on a synthetic data set, from videos to the report.

    Renders videos of six actions, extracts features with the C3D weights that come with
    aqa, fits a model and compares single-action with all-action heads. Run again, it
    continues where it stopped.
    """
    data, cache, untrained = out / "data", out / "features.h5", out / "random.h5"
    began = time.monotonic()

    @contextmanager
    def stage(title: str) -> Iterator[None]:
        click.echo(f"== {title}", err=True)
        start = time.monotonic()
        yield
        click.echo(f"   {time.monotonic() - start:.0f} s", err=True)

    with stage("render a synthetic data set"):
        ctx.invoke(
            synth, folder=data, scale=scale, fewest=fewest, actions=EXPERIMENT_ACTIONS
        )
    with stage("extract C3D features"):
        ctx.invoke(extract, videos=data, cache=cache, weights="tiny")
        if random_weights:
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
            also=(untrained,) if random_weights else (),
            iterations=iterations,
            videos=data,
            out=out / "report",
        )
    count = len(list(data.rglob("*.avi")))
    video = data / "AQA-7" / "Actions" / "diving" / "001.avi"
    model = next((out / "models").glob("*.safetensors"))
    click.echo(
        f"Done in {time.monotonic() - began:.0f} s: {count} rendered videos, C3D "
        f"features, LSTM and SVR heads; report: {out / 'report' / 'report.html'}\n"
        f"Score a video: aqa score {video} --model {model} --weights tiny "
        "--action diving\n"
        "Use your own videos: aqa extract --videos FOLDER_OR_CSV --weights tiny, then "
        "aqa fit and aqa compare all (README.md)"
    )


if __name__ == "__main__":
    main()
