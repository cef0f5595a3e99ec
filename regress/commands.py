"""`aqa fit`, `aqa compare` and `aqa model`: from a cache to models and tables."""

from pathlib import Path
from typing import Any

import click

from aqa.cache.console import (
    PATH,
    actions_option,
    cache_option,
    device_option,
    given,
    json_option,
    print_json,
    progress_bar,
    seed_option,
    workers_option,
)
from aqa.regress.config import PRODUCTS, CompareConfig, FitConfig, LstmConfig, Schedule
from aqa.regress.experiments import ALL, EXPERIMENTS

products_option = click.option(
    "--products",
    type=click.Choice(PRODUCTS),
    default=LstmConfig.products,
    show_default=True,
    help="What an LSTM multiplies in: bf16 is faster where the hardware has it.",
)


@click.command()
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
    type=click.Choice(["lstm", "svr", "nu-svr"]),
    default=FitConfig.head,
    show_default=True,
    help="LSTM over the clips, SVR on their mean, or the nu-SVR of pose features.",
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
@products_option
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
def fit(cache: Path, products: str, out: Path, as_json: bool, **options: Any) -> None:
    """Train heads on the cached features, test them, and write model files.

    Trains on the training list and reports Spearman's rho on the test list. Needs a
    cache and nothing else: no video, no network, no GPU.
    """
    from rich.console import Console

    from aqa.regress.heads.fit import fit as run
    from aqa.regress.report.write import rich_table

    config = FitConfig(**given(**options), lstm=LstmConfig(products=products))
    with progress_bar() as progress:
        report = run(cache, config, out, progress)
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(
            {
                "models": [str(path) for path in report.models],
                "results": dict(report.results),
                "average": dict(report.average),
                "warnings": list(report.warnings),
            }
        )
        return
    Console().print(rich_table(report.table()))
    for path in report.models:
        click.echo(path)


@click.group()
def model() -> None:
    """Look into fitted models."""


@model.command("info")
@click.argument("file", type=PATH)
def model_info(file: Path) -> None:
    """Say what a model knows, how it was fitted, and how good it is."""
    from aqa.regress.heads.model_file import load_model

    print_json(load_model(file).record())


@click.command()
@click.argument(
    "experiment",
    type=click.Choice([*EXPERIMENTS, ALL]),
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
@products_option
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
    products: str,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Run an experiment of the paper: Table 2, Table 3, Table 4, or all three.

    Needs a cache and nothing else. Stopped, it goes on where it was; run again, it
    answers at once. Writes report.json, report.md, report.html and CSV into --out.
    """
    from rich.console import Console

    from aqa.regress.experiments.compare import compare as run
    from aqa.regress.report.write import joined, print_results

    config = CompareConfig(**given(**options), lstm=LstmConfig(products=products))
    with progress_bar() as progress:
        results = run(cache, [experiment], config, out, progress, also=also)
    if as_json:
        print_json(joined([result.report for result in results]))
        return
    print_results(results, Console())
    click.echo(f"report: {out / 'report.html'}")
