"""From the cells of a table to the numbers and sentences of its report.

First a row's numbers and comparisons, then what a report says before its rows and the
paper's table beside them.

Conventions: a row's average is formed per seed and then averaged over seeds. Two rows
are compared on the same resamples of test samples and, where both have as many seeds,
the same draws of seeds, so that what they share cancels. A difference is settled when
its 95 % interval does not cover zero, and never with one seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from aqa import __version__
from aqa.regress.config import CompareConfig, Schedule, unlike_paper
from aqa.regress.evaluation import metrics
from aqa.regress.evaluation.bootstrap import (
    AVERAGES,
    WHOLE,
    Cell,
    SeedDraws,
    average,
    covers_zero,
    half_width,
    interval,
    over_seeds,
    probability_better,
    seed_variance,
    standard_deviation,
)
from aqa.regress.evaluation.metrics import Floats, arithmetic_mean, largest_rho
from aqa.regress.experiments.paper import OF_MANY, POSES, SOURCE, PrintedRow
from aqa.regress.experiments.result import (
    Average,
    CellNumbers,
    Cells,
    Comparison,
    Difference,
    FoldNumbers,
    PrintedTable,
    Row,
)
from aqa.regress.experiments.study import SPLITS, Study, title_of

#: Below this many test samples a column is marked: its rho varies widely.
FEW_TESTS = 10


def describe(cell: Cell, draws: SeedDraws, row: Sequence[Cell] = ()) -> CellNumbers:
    """Return a cell's numbers; the cells of its `row` vary alike with seeds."""
    truths = [test.truth for test in cell.tests]
    pairs = list(zip(truths, cell.predicted, strict=True))
    rl2 = [
        metrics.rl2_x100(truth, guess) if cell.units else math.nan
        for truth, guess in pairs
    ]
    drawn = draws.of(len(cell.rho))
    return CellNumbers(
        spearman=cell.rho.tolist(),
        mean=arithmetic_mean(cell.rho),
        sd=standard_deviation(cell.rho),
        ci95=interval(
            cell.rho,
            over_seeds(np.tanh(cell.resampled), drawn),
            float(largest_rho(cell.n)),
            pooled=seed_variance([each.z for each in row or (cell,)]),
            freedom=cell.freedom,
        ),
        n_test=cell.n,
        undefined=metrics.undefined(cell.rho),
        kendall=cell.kendall.tolist(),
        kendall_mean=arithmetic_mean(cell.kendall),
        rl2_x100=rl2,
        rl2_x100_mean=arithmetic_mean(rl2),
        matched=cell.matched,
        per_fold=_by_fold(cell),
    )


def _by_fold(cell: Cell) -> dict[str, FoldNumbers] | None:
    """Return the numbers within each fold, where there are folds."""
    if cell.parts is None:
        return None
    found = {}
    for name in dict.fromkeys(cell.parts.tolist()):
        inside = cell.parts == name
        rho = [
            metrics.spearman(test.truth[inside], guess[inside])
            for test, guess in zip(cell.tests, cell.predicted, strict=True)
        ]
        found[name] = FoldNumbers(rho, arithmetic_mean(rho), int(inside.sum()))
    return found


def describe_average(cells: Sequence[Cell], draws: SeedDraws) -> Average:
    """Return the averages over actions, matched cells left out."""
    unseen = [cell for cell in cells if not cell.matched]
    z = np.stack([cell.z for cell in unseen])  # (actions, seeds)
    resampled = np.stack([cell.resampled for cell in unseen])  # (actions, seeds, count)
    drawn = draws.of(z.shape[1])
    per_seed = {
        "fisher_z": average("fisher_z", z),
        "arithmetic": metrics.defined_mean([cell.rho for cell in unseen]),
    }
    bias = arithmetic_mean(np.stack([cell.bias for cell in unseen]).ravel())
    wider = arithmetic_mean([cell.bias_spread for cell in unseen])
    corrections = {"fisher_z": (0.0, 1.0), "arithmetic": (bias, wider)}
    values = {kind: arithmetic_mean(found) for kind, found in per_seed.items()}
    return Average(
        fisher_z=values["fisher_z"],
        arithmetic=values["arithmetic"],
        sd={kind: standard_deviation(found) for kind, found in per_seed.items()},
        ci95={
            kind: interval(
                found,
                over_seeds(_averaged(kind, z, resampled), drawn),
                WHOLE,
                *corrections[kind],
                freedom=min(cell.freedom for cell in unseen),
            )
            for kind, found in per_seed.items()
        },
        per_seed={kind: found.tolist() for kind, found in per_seed.items()},
        actions=len(unseen),
        undefined=metrics.undefined(z),
    )


def _averaged(kind: str, z: Floats, resampled: Floats) -> Floats:
    """Average resamples of z over actions; nan where an action is too small for it."""
    if (np.isnan(resampled).all(-1) & ~np.isnan(z)).any():
        return np.full(resampled.shape[1:], np.nan)
    return average(kind, resampled)


def describe_row(
    name: str,
    mode: str,
    head: str,
    cells: Mapping[str, Cell],
    draws: SeedDraws,
    **more: Any,
) -> Row:
    """Return one row of a table whose columns are actions."""
    row = list(cells.values())
    return Row(
        name=name,
        mode=mode,
        head=head,
        per_action={
            action: describe(cell, draws, row) for action, cell in cells.items()
        },
        average=describe_average(row, draws),
        **more,
    )


def compare_rows(better: str, other: str, cells: Cells, draws: SeedDraws) -> Comparison:
    """Compare two rows, column by column and on average.

    Where rho is undefined for one row, the other's is left out too. Seeds are paired
    where both rows have as many.
    """
    columns = list(cells[better])
    a, b = ([cells[name][column] for column in columns] for name in (better, other))
    per_column = {
        column: _difference("arithmetic", [a[place]], [b[place]], draws)
        for place, column in enumerate(columns)
    }
    overall = {kind: _difference(kind, a, b, draws) for kind in AVERAGES}
    seeds = min(len(a[0].rho), len(b[0].rho))
    words = _words(better, other, overall["fisher_z"], seeds)
    return Comparison(better, other, per_column, overall, words)


def _difference(
    kind: str, a: Sequence[Cell], b: Sequence[Cell], draws: SeedDraws
) -> Difference:
    """Return the difference of two rows' averages over some columns."""
    z = _both([cell.z for cell in a], [cell.z for cell in b])
    resampled = _both([cell.resampled for cell in a], [cell.resampled for cell in b])
    per_seed = [average(kind, side) for side in z]
    x, y = (
        over_seeds(_averaged(kind, *side), draws.of(side[0].shape[1]))
        for side in zip(z, resampled, strict=True)
    )
    value = arithmetic_mean(per_seed[0]) - arithmetic_mean(per_seed[1])
    paired = len(per_seed[0]) == len(per_seed[1])
    seeds = [per_seed[0] - per_seed[1]] if paired else per_seed
    freedom = min(cell.freedom for cell in (*a, *b))
    half = half_width(seeds, x - y, freedom=freedom)
    return Difference(value, (value - half, value + half), probability_better(x, y))


def _both(a: Sequence[Floats], b: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Stack the columns (columns, seeds, ...) of two rows, nan in both for either."""
    left, right = np.stack(a), np.stack(b)
    if left.shape == right.shape:
        either = np.isnan(left) | np.isnan(right)
    else:
        either = np.asarray(np.isnan(left).all(1) | np.isnan(right).all(1))[:, None]
    return np.where(either, np.nan, left), np.where(either, np.nan, right)


def in_words(rho: float) -> str:
    """Return a correlation as it stands in a sentence."""
    return "undefined" if np.isnan(rho) else f"{rho:.3f}"


def capital(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _words(better: str, other: str, found: Difference, seeds: int) -> str:
    """Return the outcome of a comparison in one or two sentences."""
    if np.isnan(found.difference):
        return f"{capital(better)} against {other}: undefined, nothing can be said."
    on_average = f"{found.difference:+.3f} on average (Fisher z; "
    low, high = found.ci95
    if np.isnan(low):
        return (
            f"{capital(better)} against {other}: {on_average}no interval). The test "
            "lists are too short, or rho is undefined in most resamples: these data do "
            "not settle which is better."
        )
    numbers = (
        f"{on_average}95 % interval {low:+.3f} to {high:+.3f}, bootstrap probability "
        f"that it is better {found.probability:.2f})"
    )
    if seeds == 1:
        return (
            f"{capital(better)} against {other}: {numbers}. One seed only, and another "
            "may reverse the order: no verdict."
        )
    if covers_zero(found.ci95):
        return (
            f"{capital(better)} against {other}: {numbers}. The interval covers zero: "
            "these data do not settle which is better."
        )
    verdict = "better than" if found.difference > 0 else "worse than"
    return f"{capital(better)} is {verdict} {other}: {numbers}."


def opening(
    study: Study,
    experiment: str,
    notes: Sequence[str] = (),
    others: Sequence[Study] = (),
) -> dict[str, Any]:
    """Return the fields of a report that precede its rows (see `result.Opening`).

    `notes` follow those on the study; `others` are further studies behind its rows.
    """
    config = study.config
    schedule = config.schedule.scaled(config.scale)
    return {
        "experiment": experiment,
        "created_with": {
            "aqa": __version__,
            **{name: version(name) for name in ("numpy", "torch", "scikit-learn")},
        },
        "provenance": dict(study.features.provenance.record),
        "samples": {action: _counts(study, action) for action in study.actions},
        "seeds": list(study.seeds),
        "settings": {
            "schedule": asdict(schedule),
            "paper_length": schedule == Schedule(),
            "lstm": asdict(config.lstm),
            "svr": asdict(config.svr),
            "label_scale": config.label_scale,
            "label_deviations": _deviations(study),
            "loss": config.loss,
            "standardise": config.standardises(study.kind),
            "split": study.split.words,
            "differs_from_paper": [
                *([] if study.fixed else [f"split: {study.split.words}"]),
                *unlike_paper(config, study.kind),
            ],
            "bootstrap": {"resamples": config.bootstrap, "seed": config.bootstrap_seed},
        },
        "floor": {"pooled_action_mean": study.floor},
        "notes": [
            *study.notes,
            *_about_length(config),
            *_about_split(study),
            *filter(None, (_about_seeds(config.seeds), study.paper_note)),
            *_about_few_tests(study),
            *_about_poses([study, *others]),
            *notes,
        ],
    }


def printed(
    study: Study, number: int, table: Mapping[str, PrintedRow], ours: Mapping[str, str]
) -> PrintedTable | None:
    """Return the paper's table; None unless the samples are the released lists.

    `ours` maps names of the paper's rows to ours that correspond; others are listed
    separately. With a part of the actions only rows of heads that were trained on none
    or one of them are given.
    """
    if not study.released:
        return None
    rows = {
        ours.get(name, name if name == POSES else f"C3D {name}"): PrintedRow(
            per_action={action: row.per_action[action] for action in study.actions},
            average=row.average if study.whole else math.nan,
        )
        for name, row in table.items()
        if study.whole or name not in OF_MANY
    }
    return PrintedTable(SOURCE.format(number), rows)


def _counts(study: Study, action: str) -> dict[str, int]:
    """Return training and test samples; in a cross-validation, the mean to train."""
    folds = [
        [len(fold.features.rows(action, name)) for name in SPLITS]
        for fold in study.folds
    ]
    train = round(sum(train for train, _ in folds) / len(folds))
    return {"train": train, "test": sum(test for _, test in folds)}


def _deviations(study: Study) -> dict[str, Any]:
    if study.fixed:
        return dict(study.folds[0].scale.scale)
    return {fold.name: dict(fold.scale.scale) for fold in study.folds}


def _about_split(study: Study) -> list[str]:
    """Say what a cross-validation's numbers and intervals mean."""
    if study.fixed:
        return []
    meaning = (
        "intervals resample whole groups: they speak of other groups like these"
        if study.split.groups is not None
        else "intervals resample samples, and take the folds' models as given"
    )
    return [
        f"{study.split.words}: each sample is predicted once, by heads that saw "
        f"nothing of its fold, and all predictions are judged together; {meaning}"
    ]


def _about_seeds(seeds: int) -> str:
    """Say what intervals leave out with one seed."""
    if seeds > 1:
        return ""
    return (
        "one seed: intervals cover test samples only, not what another seed would "
        "give; --seeds N repeats everything with N of them"
    )


def _about_few_tests(study: Study) -> list[str]:
    """Name the columns with few test samples, and what a perfect ranking counts as."""
    sizes = {action: study.tests[action].n for action in study.actions}
    few = [
        f"{title_of(action)} (n = {n}: 1 counts as {largest_rho(n):.3f})"
        for action, n in sizes.items()
        if n < FEW_TESTS
    ]
    if not few:
        return []
    return [
        f"few test samples, so rho varies widely and a perfect ranking is limited in "
        f"Fisher's z: {', '.join(few)}"
    ]


def _about_poses(studies: Sequence[Study]) -> list[str]:
    """Say which protocol rows of poses follow, where there are any."""
    if not any(study.kind.startswith("pose-") for study in studies):
        return []
    return [
        "rows of pose features follow the split and the metric of all other rows, not "
        "the protocol of Pirsiavash et al. (2014), the mean rho over random splits"
    ]


def _about_length(config: CompareConfig) -> list[str]:
    """Warn that numbers come from a shorter or longer training than the paper's."""
    asked = config.schedule.scaled(config.scale).iterations
    paper = Schedule().iterations
    if asked == paper:
        return []
    alike = "" if config.scale == 1 else ", and every other schedule is scaled alike"
    return [
        f"not the paper's length: heads train for {asked:,} iterations where the paper "
        f"trains for {paper:,}{alike}"
    ]
