"""What every report says before its rows, and the paper's table beside it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from aqa import __version__
from aqa.regress.config import CompareConfig, Schedule, unlike_paper
from aqa.regress.evaluation.metrics import largest_rho
from aqa.regress.experiments.paper import OF_MANY, POSES, SOURCE, PrintedRow
from aqa.regress.experiments.result import PrintedTable
from aqa.regress.experiments.study import SPLITS, Study, title_of

#: Below this many test samples a column is marked: its rho varies widely.
FEW_TESTS = 10


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
