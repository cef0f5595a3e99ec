"""Fit models from a cache, test them, and write them to files.

Conventions: a model learns from the labelled rows of the training list alone: label
scale, standardisation, choices, calibration, everything. Further heads of the same
kind, each trained without one fold, predict that fold; these held-out predictions
calibrate the model's intervals. With the cache's own split the folds divide the
training list and the model is tested on the test list; with a cross-validation the
folds are those of the split, the results are those of the held-out predictions (each
sample predicted once), and the model itself learns from all labelled rows. Predictions
are made from copy 0, results are in judges' units, undefined values are None.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.regress.config import (
    LABEL_SCALES,
    LABELS,
    LOSSES,
    MODES,
    FitConfig,
    SplitConfig,
    unlike_paper,
)
from aqa.regress.data import FeatureSet, Floats, LabelScale, Rows, deal, load
from aqa.regress.evaluation.metrics import (
    arithmetic_mean,
    fisher_mean,
    kendall,
    rl2_x100,
    spearman,
    undefined,
)
from aqa.regress.heads import HEADS
from aqa.regress.heads.model_file import (
    Calibration,
    Model,
    residual_bounds,
    save_model,
)
from aqa.regress.heads.plausibility import Plausibility
from aqa.regress.heads.registry import Head, Part, kind_of
from aqa.regress.report.text_table import Entry, Line, Table, number
from aqa.regress.splits import Split, split_features

#: A rank correlation over fewer test samples is not reported: of two it is 1 or -1.
LEAST_TEST = 3
#: Libraries that a model depends on, named in it.
LIBRARIES = ("torch", "scikit-learn", "numpy")


@dataclass(frozen=True, eq=False)
class Group:
    """The actions of one model, its training rows, and the folds of the others.

    `folds` has (training rows, held-out rows) of each further head.
    """

    name: str
    actions: tuple[str, ...]
    rows: Rows
    folds: tuple[tuple[Rows, Rows], ...]


@dataclass(frozen=True)
class ActionResult:
    """How well a model predicts the test samples of an action; None where undefined."""

    spearman: float | None
    kendall: float | None
    rl2_x100: float | None
    n_train: int
    n_test: int


@dataclass(frozen=True)
class FitReport:
    """Models that were written and their results on test samples by action.

    `average`: the `fisher_z` and `arithmetic` mean of Spearman's rho over actions, and
    in how many it is `undefined`. `split` says what was tested, `warnings` are for
    whoever relies on the numbers.
    """

    models: tuple[Path, ...]
    results: Mapping[str, ActionResult]
    average: Mapping[str, float | None]
    split: str
    warnings: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "models": [str(path) for path in self.models],
            "results": {name: asdict(found) for name, found in self.results.items()},
            "average": dict(self.average),
            "split": self.split,
            "warnings": list(self.warnings),
        }

    def table(self) -> Table:
        """Return Spearman's rho by action, and both averages of it."""
        lines = [
            Line(action, (Entry(number(found.spearman)), Entry(str(found.n_test))))
            for action, found in self.results.items()
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

    Finished heads are kept in `out`/heads, so that an interrupted fit continues.
    Raises `AqaError` for settings that do not exist and actions that cannot be fitted.
    """
    _check(config)
    features = load(cache, config.actions)
    split = split_features(features, config.split)
    groups = _groups(features, split, config)
    parts: list[Part] = []
    scales: list[LabelScale] = []
    for group in groups:
        scale = LabelScale.learn(features, group.rows, config.label_scale)
        own = config.split != SplitConfig()
        for number_of, rows in enumerate([group.rows, *(r for r, _ in group.folds)]):
            if own and number_of:
                scale = LabelScale.learn(features, rows, config.label_scale)
            name = group.name + (f" without fold {number_of}" if number_of else "")
            labels = scale.to_scaled(features.score[rows], features.action[rows])
            parts.append(Part(name, rows, labels))
            scales.append(scale)
    # Only now is torch loaded: what is wrong with the cache is said at once.
    heads = kind_of(config.head).fit_heads(
        features, parts, config, out / "heads", progress
    )
    if config.loss == "rank":
        scales = [
            _units_of_ranks(features, head, part)
            for head, part in zip(heads, parts, strict=True)
        ]
    fitted = iter(zip(heads, scales, strict=True))
    models, warnings = [], []
    for group in groups:
        head, scale = next(fitted)
        held_out = np.full(len(features.x), np.nan)
        for _, outside in group.folds:
            fold_head, fold_scale = next(fitted)
            held_out[outside] = _predict(features, fold_head, fold_scale, outside)
        models.append(_model(features, group, head, scale, held_out, split, config))
        warnings += [f"{group.name}: {warning}" for warning in head.warnings()]
        warnings += _biases(models[-1])
    paths = [out / f"{group.name}-{config.head}.safetensors" for group in groups]
    for path, model in zip(paths, models, strict=True):
        save_model(path, model)
    results = {
        action: ActionResult(**found)
        for model in models
        for action, found in model.results.items()
    }
    return FitReport(
        tuple(paths), results, _averages(results), split.words, tuple(warnings)
    )


def _check(config: FitConfig) -> None:
    """Refuse settings that do not exist or do not go together."""
    for name, values in (
        ("mode", MODES),
        ("head", tuple(HEADS)),
        ("labels", LABELS),
        ("loss", LOSSES),
        ("label_scale", LABEL_SCALES),
    ):
        found = getattr(config, name)
        if found not in values:
            raise AqaError(f"{name}: expected {' or '.join(values)}, found {found!r}")
    if config.head == "nu-svr" and config.mode != "single-action":
        raise AqaError(
            "nu-svr scales nothing, so it learns one action at a time: "
            "--mode single-action"
        )
    if config.loss == "rank" and config.head != "lstm":
        raise AqaError(f"the rank loss is for LSTM heads, not for {config.head}")


def _groups(features: FeatureSet, split: Split, config: FitConfig) -> list[Group]:
    """Return the models to fit, actions in alphabetical order."""
    fixed = config.split == SplitConfig()
    trained = "train" if fixed else None
    if config.actions is None:
        found = np.unique(features.action[features.rows(split=trained)])
        actions = [str(name) for name in found if name != "trampoline"]
    else:
        actions = sorted(set(config.actions))
    for action in actions:
        if len(features.rows(action, trained)) == 0:
            raise AqaError(f"{action}: no labelled training video to fit to")
    if not actions:
        raise AqaError(
            "no labelled training video; `aqa cache relabel` adds labels, --folds "
            "cross-validates samples without a split"
        )
    named = (
        {"all-action": tuple(actions)}
        if config.mode == "all-action"
        else {action: (action,) for action in actions}
    )
    groups = []
    for name, own in named.items():
        rows = features.rows(own, trained)
        folds = []
        if not fixed:
            for fold in split.folds:
                inside = fold.features.rows(own, "train")
                outside = fold.features.rows(own, "test")
                if len(outside):
                    folds.append((inside, outside))
        elif config.calibration_folds > 1 and len(rows) > 1:
            dealt = deal(features.action[rows], config.calibration_folds, config.seed)
            folds = [(rows[dealt != k], rows[dealt == k]) for k in np.unique(dealt)]
        groups.append(Group(name, own, rows, tuple(folds)))
    return groups


def _predict(features: FeatureSet, head: Head, scale: LabelScale, rows: Rows) -> Floats:
    """Return the scores (n,) that a head predicts for rows, in judges' units."""
    clips = None if features.clips is None else features.clips[rows]
    scaled = head.predict(features.x[rows, 0], clips)
    return scale.to_units(scaled, features.action[rows])


def _units_of_ranks(features: FeatureSet, head: Head, part: Part) -> LabelScale:
    """Return the map from the outputs of a ranking head to judges' units.

    Per action it gives the training rows' outputs the mean and the standard deviation
    of their scores.
    """
    clips = None if features.clips is None else features.clips[part.rows]
    outputs = head.predict(features.x[part.rows, 0], clips)
    offset, scale = {}, {}
    for action in np.unique(features.action[part.rows]):
        own = features.action[part.rows] == action
        scores, made = features.score[part.rows[own]], outputs[own]
        spread = float(made.std()) or 1.0
        scale[str(action)] = float(scores.std()) / spread
        offset[str(action)] = float(scores.mean() - scale[str(action)] * made.mean())
    return LabelScale("rank", offset, scale)


def _model(
    features: FeatureSet,
    group: Group,
    head: Head,
    scale: LabelScale,
    held_out: Floats,
    split: Split,
    config: FitConfig,
) -> Model:
    """Assemble a model: units, results, calibration, plausibility."""
    settings = asdict(config)
    for name in ("device", "workers", "actions"):  # they do not change a model
        del settings[name]
    results, calibration, ranges, frames = {}, {}, {}, {}
    for action in group.actions:
        rows = group.rows[features.action[group.rows] == action]
        if config.split == SplitConfig():
            test = features.rows(action, "test")
            predicted = _predict(features, head, scale, test)
        else:
            test = rows[np.isfinite(held_out[rows])]
            predicted = held_out[test]
        results[action] = asdict(_result(features.score[test], predicted, len(rows)))
        if known := _calibration(features, group, head, scale, rows, held_out):
            calibration[action] = known
        scores = features.score[rows]
        ranges[action] = (float(scores.min()), float(scores.max()))
        if features.frames is not None and features.frames[rows].min() > 0:
            lengths = features.frames[rows]
            frames[action] = (int(lengths.min()), int(lengths.max()))
    return Model(
        head=head,
        actions=group.actions,
        label_scale=LabelScale(
            scale.kind,
            {action: scale.offset[action] for action in group.actions},
            {action: scale.scale[action] for action in group.actions},
        ),
        provenance=features.provenance,
        settings={
            "created_with": f"aqa {version('aqa-toolkit')}, "
            + ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
            **settings,
            "tested_on": split.words,
            "unlike_paper": unlike_paper(config, features.kind),
            "warnings": head.warnings(),
        },
        results=results,
        calibration=calibration,
        frames=frames,
        ranges=ranges,
        plausibility=Plausibility.learn(features, group.rows),
    )


def _result(truth: Floats, predicted: Floats, n_train: int) -> ActionResult:
    enough = len(truth) >= LEAST_TEST
    return ActionResult(
        spearman=_defined(spearman(truth, predicted)) if enough else None,
        kendall=_defined(kendall(truth, predicted)) if enough else None,
        rl2_x100=_defined(rl2_x100(truth, predicted)) if enough else None,
        n_train=n_train,
        n_test=len(truth),
    )


def _calibration(
    features: FeatureSet,
    group: Group,
    head: Head,
    scale: LabelScale,
    rows: Rows,
    held_out: Floats,
) -> Calibration | None:
    """Return what held-out predictions of an action's rows say; None for too few."""
    residuals = features.score[rows] - held_out[rows]
    residuals = residuals[np.isfinite(residuals)]
    if len(residuals) < 2:
        return None
    low, high, level = residual_bounds(residuals)
    clips = None if features.clips is None else features.clips[rows]
    courses = head.course(features.x[rows, 0], clips)
    typical: tuple[float, ...] = ()
    if courses.size:
        action = str(features.action[rows[0]])
        typical = tuple(scale.to_units(courses.mean(0), action).tolist())
    return Calibration(low, high, level, len(residuals), len(group.folds), typical)


def _biases(model: Model) -> list[str]:
    """Name the actions whose held-out scores are all off to one side."""
    return [
        f"{action}: held-out predictions are too "
        f"{'low' if known.low == 0 else 'high'} almost throughout, so scores are off "
        "by more than they differ; a model of the action alone (--mode single-action) "
        "or --label-scale zscore may do better"
        for action, known in model.calibration.items()
        if known.low == 0 or known.high == 0
    ]


def _averages(results: Mapping[str, ActionResult]) -> dict[str, float | None]:
    rhos = [
        np.nan if found.spearman is None else found.spearman
        for found in results.values()
    ]
    tests = [found.n_test for found in results.values()]
    return {
        "fisher_z": _defined(fisher_mean(rhos, tests)),
        "arithmetic": _defined(arithmetic_mean(rhos)),
        "undefined": undefined(rhos),
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
