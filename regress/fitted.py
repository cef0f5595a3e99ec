"""Heads for groups of actions, and what they say of videos they did not learn from.

Conventions: a group is the training rows of one model, dealt into folds of whole
videos. Held-out predictions (n,) are in scaled units, of copy 0 of each training row,
by a head that learnt from the other folds alone.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.progress import Progress
from aqa.regress.config import NU_SVR, FitConfig, Schedule
from aqa.regress.data import FeatureSet, Floats, Rows
from aqa.regress.folds import deal
from aqa.regress.lstm import LstmHead
from aqa.regress.svr import SvrHead, fit_svr
from aqa.regress.training import HeadTask, train_heads


@dataclass(frozen=True, eq=False)
class Group:
    """The actions of one model, and the training rows it learns from."""

    name: str
    actions: tuple[str, ...]
    rows: Rows


@dataclass(frozen=True, eq=False)
class Fitted:
    """A head, its held-out predictions, and how it came about, as JSON.

    `held_out` is empty and `folds` 0 where none were asked for.
    """

    head: LstmHead | SvrHead
    held_out: Floats
    folds: int
    settings: dict[str, Any]


def fit_lstms(
    features: FeatureSet,
    targets: Floats,
    groups: Sequence[Group],
    config: FitConfig,
    store: Path,
    progress: Progress,
) -> list[Fitted]:
    """One LSTM a group and one a fold of it, all as one batch of work."""
    schedule = schedule_of(config)
    tasks: list[HeadTask] = []
    dealt = []
    for group in groups:
        tasks.append(_task(group.name, group.rows, (), schedule, config))
        folds = _folds(features, group, config)
        dealt.append(folds)
        for fold in _numbers(folds):
            inside, outside = group.rows[folds != fold], group.rows[folds == fold]
            name = f"{group.name} without fold {fold}"
            tasks.append(_task(name, inside, outside, schedule, config))
    heads = iter(
        train_heads(
            features,
            targets,
            tasks,
            lstm=config.lstm,
            device=config.device,
            workers=config.workers,
            store=store,
            progress=progress,
        )
    )
    settings = {
        "labels": config.labels,
        "lstm": asdict(config.lstm),
        "schedule": asdict(schedule),
    }
    fitted = []
    for folds in dealt:
        head = LstmHead(next(heads).parameters)
        held_out = np.empty(len(folds))
        for fold in _numbers(folds):
            held_out[folds == fold] = next(heads).watched[-1]
        fitted.append(Fitted(head, held_out, len(_numbers(folds)), settings))
    return fitted


def fit_svrs(
    features: FeatureSet,
    targets: Floats,
    groups: Sequence[Group],
    config: FitConfig,
    progress: Progress,
) -> list[Fitted]:
    """One SVR a group; its own cross-validation gives the held-out predictions."""
    fitted = []
    for done, group in enumerate(groups):
        progress(done, len(groups), f"fitting {group.name}")
        wanted = NU_SVR if config.head == "nu-svr" else config.svr
        head = fit_svr(features, targets, group.rows, wanted, config.seed)
        settings = {
            "svr": asdict(wanted),
            "worth": head.worth,
            "converged": head.converged,
        }
        folds = min(wanted.folds, len(group.rows))
        fitted.append(Fitted(head, head.held_out, folds, settings))
    progress(len(groups), len(groups), f"{len(groups)} SVRs fitted")
    return fitted


def schedule_of(config: FitConfig) -> Schedule:
    """The schedule at the length that was asked for."""
    if config.iterations is None:
        return config.schedule
    return config.schedule.scaled(config.iterations / config.schedule.iterations)


def _task(
    name: str,
    rows: Rows,
    watch: Rows | tuple[()],
    schedule: Schedule,
    config: FitConfig,
) -> HeadTask:
    return HeadTask(
        name=name,
        rows=tuple(int(row) for row in rows),
        seed=config.seed,
        schedule=schedule,
        watch=tuple(int(row) for row in watch),
        watch_every=max(1, schedule.iterations),
        labels=config.labels,
        keep_parameters=len(watch) == 0,
    )


def _folds(features: FeatureSet, group: Group, config: FitConfig) -> Rows:
    """The fold of each row (n,); empty where there shall be none."""
    if config.calibration_folds < 2:
        return np.empty(0, np.int64)
    actions = features.action[group.rows]
    return deal(actions, config.calibration_folds, config.seed)


def _numbers(folds: Rows) -> list[int]:
    return [int(fold) for fold in np.unique(folds)]
