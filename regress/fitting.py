"""Fit models from a cache, try them on its test list, and write them to files.

Conventions: a model learns from labelled rows of the training list alone: deviations,
standardisation, choice, calibration, everything. It is tried on copy 0 of the test
list, one action at a time, in judges' units. Undefined values are None.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from aqa.cache.errors import AqaError
from aqa.cache.progress import Progress, silent
from aqa.regress.calibration import LEVEL, Calibration, residual_bounds
from aqa.regress.config import FitConfig
from aqa.regress.data import FeatureSet, deviations, load, scaled_labels
from aqa.regress.fitted import Fitted, Group, fit_lstms, fit_svrs
from aqa.regress.lstm import LstmHead, course
from aqa.regress.metrics import (
    arithmetic_mean,
    fisher_mean,
    kendall,
    rl2,
    spearman,
    undefined,
)
from aqa.regress.model import Model
from aqa.regress.model_file import save_model
from aqa.regress.report.table import Entry, Line, Table, number
from aqa.regress.svr_choice import MOST_ITERATIONS

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
    average = {
        "fisher_z": _defined(fisher_mean(rhos)),
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
            "created_with": f"aqa {version('aqa')}",
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
        "rl2": _defined(rl2(truth, predicted)),
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
