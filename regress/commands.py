"""Commands of the regression stage: `aqa fit`, `aqa compare` and `aqa model`.

Conventions: an option that is not given is None; its default is that of the settings.
`compare` gets the decoder of videos from `aqa.cli`: this stage imports none.
"""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aqa.cache.console import (
    PATH,
    CommandGroup,
    GroupedCommand,
    actions_option,
    cache_option,
    device_option,
    json_option,
    print_json,
    progress_bar,
    workers_option,
)
from aqa.cache.errors import printable
from aqa.regress.config import (
    LABEL_SCALES,
    LABELS,
    LOSSES,
    MODES,
    NESTED,
    PRODUCTS,
    CompareConfig,
    FitConfig,
    Schedule,
    TrainingConfig,
    configured,
)
from aqa.regress.experiments import ALL, EXPERIMENTS
from aqa.regress.heads import HEADS

#: Headings of the help of commands that train heads, with their options.
GROUPS = {
    "Data": ("cache", "also", "videos", "actions", "folds", "leave_one_out"),
    "Heads": ("mode", "head", "labels", "label_scale", "standardise"),
    "Experiment": ("seed", "seeds", "variants", "average_offsets", "settings"),
    "LSTM training": (
        *("iterations", "loss", "hidden", "init_std", "learning_rate", "step"),
        *("gamma", "batch", "products", "head_seed"),
    ),
    "Machine": ("device", "workers"),
    "Output": ("out", "latex", "as_json"),
}

if TYPE_CHECKING:
    from aqa.regress.report.write import Strips

COUNT, POSITIVE = click.IntRange(1), click.FloatRange(0, min_open=True)

#: Settings of LSTM training that are options: type and help by name.
LSTM_SETTINGS: dict[str, tuple[click.ParamType[Any], str]] = {
    "loss": (click.Choice(LOSSES), "squared error, or ranking within each action."),
    "hidden": (COUNT, "hidden units."),
    "init_std": (POSITIVE, "standard deviation of the initial weights."),
    "learning_rate": (POSITIVE, "Adam's learning rate at the start."),
    "step": (COUNT, "iterations between two reductions of the learning rate."),
    "gamma": (POSITIVE, "factor of a reduction."),
    "batch": (COUNT, "sequences per batch."),
    "products": (click.Choice(PRODUCTS), "precision; bf16 is faster on some hardware."),
    "head_seed": (click.IntRange(0), "seed of initial weights and batches."),
}


def _setting(
    name: str, kind: click.ParamType[Any], text: str, config: Any = TrainingConfig
) -> Callable[[Any], Any]:
    """Make an option of a setting: it is None unless given."""
    part = getattr(config, NESTED[name]) if name in NESTED else config
    default = getattr(part, name)
    flag = f"--{name.replace('_', '-')}"
    shown = None if default is None else str(default)
    option: Callable[[Any], Any] = click.option(
        flag, type=kind, show_default=shown, help=text
    )
    return option


def _folds(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """Read a number of folds, or the name of a column."""
    return int(text) if text and text.isdecimal() else text


#: Options of every command that trains heads; what is not given keeps the default of
#: the settings or the value in the file of `--config`.
TRAINING_OPTIONS = (
    click.option(
        "--config",
        "settings",
        type=PATH,
        help="TOML file with any settings; options replace what it says.",
    ),
    actions_option,
    click.option(
        "--folds",
        callback=_folds,
        metavar="K|COLUMN",
        help="Cross-validate: K folds, or those of a label column.",
    ),
    click.option(
        "--leave-one-out",
        metavar="COLUMN",
        help="Cross-validate: leave out one value of a label column at a time.",
    ),
    click.option(
        "--iterations",
        type=COUNT,
        show_default=str(Schedule.iterations),
        help="LSTM: batches to train on; the schedule scales alike.",
    ),
    _setting(
        "label_scale",
        click.Choice(LABEL_SCALES),
        "Divide labels by each action's std (the paper), or take z-scores.",
    ),
    click.option(
        "--standardise/--no-standardise",
        default=None,
        show_default="all features but C3D's",
        help="LSTM: standardise the inputs on the training samples.",
    ),
    *(_setting(n, kind, f"LSTM: {text}") for n, (kind, text) in LSTM_SETTINGS.items()),
    device_option,
    workers_option,
)


def training_options(command: Any) -> Any:
    """Add `TRAINING_OPTIONS` to a command, which passes them to `configured`."""
    for option in reversed(TRAINING_OPTIONS):
        command = option(command)
    return command


@click.command(
    cls=GroupedCommand,
    groups=GROUPS,
    examples=(
        "aqa fit --mode all-action",
        "aqa fit --cache squats.h5 --mode single-action --head svr --folds 5",
    ),
)
@cache_option
@_setting("mode", click.Choice(MODES), "One model for all actions or each.", FitConfig)
@_setting(
    "head",
    click.Choice(list(HEADS)),
    ", ".join(f"{kind.title} {kind.about}".strip() for kind in HEADS.values()) + ".",
    FitConfig,
)
@_setting(
    "labels",
    click.Choice(LABELS),
    "incremental: clip k of K learns k/K of the score, to localise errors.",
    FitConfig,
)
@_setting("seed", click.IntRange(0), "Random seed.", FitConfig)
@training_options
@click.option(
    "--out",
    type=PATH,
    default=Path("models"),
    show_default=True,
    help="Folder of the model files.",
)
@json_option
def fit(
    cache: Path, settings: Path | None, out: Path, as_json: bool, **options: Any
) -> None:
    """Train heads on the cached features, test them, and write model files.

    Trains on the training list and reports Spearman's rho on the test list, or
    cross-validates. Needs a cache and nothing else: no video, no network, no GPU.
    """
    from aqa.regress.heads.fit import fit as run

    config = configured(FitConfig(), settings, options)
    with progress_bar() as progress:
        report = run(cache, config, out, progress)
    for warning in report.warnings:
        click.echo(f"warning: {printable(warning)}", err=True)
    if as_json:
        print_json(report.record())
        return
    from rich.console import Console

    from aqa.regress.report.formats import rich_table

    Console().print(rich_table(report.table()))
    for path in report.models:
        click.echo(path)


@click.group(cls=CommandGroup)
def model() -> None:
    """Look into fitted models."""


@model.command(
    "info",
    examples=("aqa model info models/all-action-lstm.safetensors",),
)
@click.argument("file", type=PATH)
def model_info(file: Path) -> None:
    """Say what a model knows, how it was fitted, and how good it is."""
    from aqa.regress.heads.model_file import load_model

    print_json(load_model(file).record())


@click.command(
    cls=GroupedCommand,
    groups=GROUPS,
    examples=(
        "aqa compare single-vs-all --seeds 3",
        "aqa compare all --cache jigsaws.h5 --leave-one-out surgeon --latex",
    ),
)
@click.argument("experiment", type=click.Choice([*EXPERIMENTS, ALL]))
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
    show_default=str(CompareConfig.seeds),
    help="Repetitions, each with its own random seed.",
)
@click.option(
    "--variants",
    is_flag=True,
    default=None,
    help="Add rows of the other label scale and loss, compared with these.",
)
@click.option(
    "--average-offsets",
    is_flag=True,
    default=None,
    help="Add rows that average the six copies.",
)
@click.option(
    "--videos",
    type=PATH,
    help="What `aqa extract --videos` was given: the page shows frames of videos.",
)
@click.option("--latex", is_flag=True, help="Print the tables in LaTeX.")
@training_options
@click.option(
    "--out",
    type=PATH,
    default=Path("report"),
    show_default=True,
    help="Folder of the report.",
)
@json_option
@click.pass_obj
def compare(
    strips_of: Callable[[Path, Path], "Strips"],
    /,
    experiment: str,
    cache: Path,
    also: tuple[Path, ...],
    settings: Path | None,
    videos: Path | None,
    latex: bool,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Run an experiment of the paper: Table 2, Table 3, Table 4, or all three.

    Needs a cache and nothing else. Stopped, it goes on where it was; run again, it
    answers at once. Writes a report (HTML, Markdown, JSON, CSV, LaTeX) into --out, and
    each experiment's own into a folder of its name there. With --videos the page also
    shows the best and the worst predicted video of each action.
    """
    from aqa.regress.experiments.compare import compare as run

    config = configured(CompareConfig(), settings, options)
    command = shlex.join(["aqa", *sys.argv[1:]])
    with progress_bar() as progress:
        results = run(
            cache,
            [experiment],
            config,
            out,
            progress,
            also=also,
            command=command,
            strips=None if videos is None else strips_of(videos, cache),
        )
    from rich.console import Console

    from aqa.regress.report.write import joined, print_results

    if as_json:
        print_json(joined([result.report for result in results]))
    elif latex:
        click.echo((out / "tables.tex").read_text("utf-8"), nl=False)
    else:
        print_results(results, Console())
        click.echo(f"report: {out / 'report.html'}")
