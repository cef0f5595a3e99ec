"""Heads for groups of actions, and what they say of videos they did not learn from.

Conventions: a group is the training rows of one model, dealt into folds of whole
videos. Held-out predictions (n,) are in scaled units, of copy 0 of each training row,
by a head that learnt from the other folds alone.

Fit models from a cache, try them on its test list, and write them to files.

Conventions: a model learns from labelled rows of the training list alone: deviations,
standardisation, choice, calibration, everything. It is tried on copy 0 of the test
list, one action at a time, in judges' units. Undefined values are None.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aqa import __version__
from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.regress.config import NU_SVR, FitConfig, Schedule
from aqa.regress.data import (
    FeatureSet,
    Floats,
    Rows,
    deal,
    deviations,
    load,
    scaled_labels,
)
from aqa.regress.evaluation.metrics import (
    arithmetic_mean,
    fisher_mean,
    kendall,
    rl2_x100,
    spearman,
    undefined,
)
from aqa.regress.heads.lstm import LstmHead, course
from aqa.regress.heads.model_file import (
    LEVEL,
    Calibration,
    Model,
    residual_bounds,
    save_model,
)
from aqa.regress.heads.svr import MOST_ITERATIONS, SvrHead, fit_svr
from aqa.regress.heads.tasks import HeadTask
from aqa.regress.heads.workers import train_heads
from aqa.regress.report.tables import Entry, Line, Table, number


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
    trained = train_heads(
        features,
        targets,
        tasks,
        lstm=config.lstm,
        device=config.device,
        workers=config.workers,
        store=store,
        progress=progress,
    )
    heads = iter([trained[task] for task in tasks])
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


MODES = ("all-action", "single-action")
HEADS = ("lstm", "svr", "nu-svr")


@dataclass(frozen=True)
class FitReport:
    """What a fit wrote and how it did on the test list.

    `results` by action: `spearman`, `kendall`, `rl2`, `n_train`, `n_test`. `average`:
    Spearman's `fisher_z` and `arithmetic` mean over actions, and in how many of them
    it is `undefined`. `warnings` are for whoever trusts the numbers.
    """

    models: tuple[Path, ...]
    results: Mapping[str, Mapping[str, float | None]]
    average: Mapping[str, float | None]
    warnings: tuple[str, ...] = ()

    def table(self) -> Table:
        """Spearman's rho by action, and both averages of it."""
        lines = [
            Line(action, (Entry(number(said["spearman"])), Entry(str(said["n_test"]))))
            for action, said in self.results.items()
        ]
        for name, label in (("fisher_z", "Fisher z"), ("arithmetic", "arithmetic")):
            rho = Entry(number(self.average[name]))
            lines.append(Line(f"average ({label})", (rho, Entry(""))))
        columns = ("rho", "test videos")
        return Table("fit", "Spearman's rho", "action", columns, tuple(lines))


def fit(
    cache: Path, config: FitConfig, out: Path, progress: Progress = silent
) -> FitReport:
    """Fit what `config` asks for and write the models into the folder `out`.

    LSTMs are kept in `out`/heads as they are finished, so that a fit that was stopped
    goes on. Raises `AqaError` for a mode or head that does not exist and for actions
    that cannot be fitted.
    """
    if config.mode not in MODES or config.head not in HEADS:
        raise AqaError(
            f"cannot fit {config.mode} {config.head}: modes are {' and '.join(MODES)}, "
            f"heads {' and '.join(HEADS)}"
        )
    if config.head == "nu-svr" and config.mode != "single-action":
        raise AqaError(
            "nu-svr scales nothing, so it learns one action at a time: "
            "--mode single-action"
        )
    features = load(cache, config.actions)
    groups = _groups(features, config)
    scale = deviations(features, np.concatenate([group.rows for group in groups]))
    targets = scaled_labels(features, scale)
    if config.head == "lstm":
        store = out / "heads"
        fitted = fit_lstms(features, targets, groups, config, store, progress)
    else:
        fitted = fit_svrs(features, targets, groups, config, progress)
    models = [
        _model(features, scale, group, result, config)
        for group, result in zip(groups, fitted, strict=True)
    ]
    paths = [out / f"{group.name}-{config.head}.safetensors" for group in groups]
    for path, model in zip(paths, models, strict=True):
        save_model(path, model)
    results = {name: found for model in models for name, found in model.results.items()}
    rhos = [
        np.nan if r["spearman"] is None else r["spearman"] for r in results.values()
    ]
    tests = [r["n_test"] or 0 for r in results.values()]
    average = {
        "fisher_z": _defined(fisher_mean(rhos, tests)),
        "arithmetic": _defined(arithmetic_mean(rhos)),
        "undefined": undefined(rhos),
    }
    warnings = tuple(
        f"{group.name}: the SVR stopped after {MOST_ITERATIONS:,} iterations, before "
        "it converged"
        for group, result in zip(groups, fitted, strict=True)
        if not result.settings.get("converged", True)
    )
    return FitReport(tuple(paths), results, average, warnings)


def _groups(features: FeatureSet, config: FitConfig) -> list[Group]:
    """The actions of each model to fit, in alphabetical order."""
    if config.actions is None:
        trained = features.action[features.rows(split="train")]
        actions = [str(name) for name in np.unique(trained) if name != "trampoline"]
    else:
        actions = sorted(set(config.actions))
    for action in actions:
        if len(features.rows(action, "train")) == 0:
            raise AqaError(f"{action}: no labelled training video to fit to")
    if not actions:
        raise AqaError("no labelled training video; `aqa cache relabel` brings labels")
    if config.mode == "all-action":
        parts = {"all-action": tuple(actions)}
    else:
        parts = {action: (action,) for action in actions}
    return [
        Group(name, names, features.rows(names, "train"))
        for name, names in parts.items()
    ]


def _model(
    features: FeatureSet,
    scale: Mapping[str, float],
    group: Group,
    fitted: Fitted,
    config: FitConfig,
) -> Model:
    """The head with its units, its results on the test list and its calibration."""
    return Model(
        head=fitted.head,
        actions=group.actions,
        deviations={action: scale[action] for action in group.actions},
        provenance=features.provenance,
        settings={
            "created_with": f"aqa {__version__}",
            "mode": config.mode,
            "seed": config.seed,
            **fitted.settings,
        },
        results={
            action: _result(features, scale[action], action, fitted)
            for action in group.actions
        },
        calibration={
            action: _calibration(features, scale[action], action, group, fitted)
            for action in (group.actions if fitted.folds else ())
        },
        frames=_frames(features, group),
    )


def _frames(features: FeatureSet, group: Group) -> dict[str, tuple[int, int]]:
    """The shortest and the longest training video, where lengths are known."""
    if features.frames is None:
        return {}
    frames = {}
    for action in group.actions:
        lengths = features.frames[features.rows(action, "train")]
        if lengths.min() > 0:
            frames[action] = (int(lengths.min()), int(lengths.max()))
    return frames


def _result(
    features: FeatureSet, deviation: float, action: str, fitted: Fitted
) -> dict[str, float | None]:
    """How the head does on an action's test list."""
    test = features.rows(action, "test")
    truth = features.score[test]
    predicted = deviation * np.asarray(fitted.head.predict(features.x[test, 0]), float)
    return {
        "spearman": _defined(spearman(truth, predicted)),
        "kendall": _defined(kendall(truth, predicted)),
        "rl2_x100": _defined(rl2_x100(truth, predicted)),
        "n_train": len(features.rows(action, "train")),
        "n_test": len(test),
    }


def _calibration(
    features: FeatureSet, deviation: float, action: str, group: Group, fitted: Fitted
) -> Calibration:
    """What the held-out predictions of an action's training videos teach."""
    own = features.action[group.rows] == action
    rows = group.rows[own]
    residuals = features.score[rows] - deviation * fitted.held_out[own]
    low, high = residual_bounds(residuals)
    typical: tuple[float, ...] = ()
    if isinstance(fitted.head, LstmHead):
        courses = course(fitted.head.parameters, features.x[rows, 0])
        typical = tuple((deviation * courses.mean(0, dtype=np.float64)).tolist())
    return Calibration(low, high, LEVEL, len(rows), fitted.folds, typical)


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
