"""Fit models from a cache, test them, and write them to files.

Conventions: a model learns from the labelled rows of the training list alone: label
scale, standardisation, choices, calibration, everything. Further heads of the same
kind, each trained without one fold, predict that fold; these held-out predictions
calibrate the model's intervals. With the cache's own split the folds divide the
training list and the model is tested on the test list; with a cross-validation the
folds are those of the split, the results are those of the held-out predictions (each
sample predicted once, heads aligned before they are ranked), and the model itself
learns from all labelled rows. Predictions are made from copy 0, results are in judges'
units, undefined values are None.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.cache.files import make_folder
from aqa.regress.config import FitConfig, SplitConfig, unlike_paper
from aqa.regress.data import (
    LEAST_TEST,
    FeatureSet,
    Floats,
    LabelScale,
    Rows,
    deal,
    load,
)
from aqa.regress.evaluation import metrics
from aqa.regress.heads import HEADS
from aqa.regress.heads.base import Head, Part, kind_of
from aqa.regress.heads.model_file import (
    Calibration,
    Model,
    residual_bounds,
    save_model,
)
from aqa.regress.heads.plausibility import Plausibility
from aqa.regress.report.formats import Entry, Line, Table, number
from aqa.regress.splits import Split, doubts, join_folds, shortage, split_features

#: Settings that change nothing in a model, or stand in it by themselves.
WITHOUT_EFFECT = ("device", "workers", "actions")
#: Libraries that a model depends on, named in it.
LIBRARIES = ("torch", "scikit-learn", "numpy")


@dataclass(frozen=True, eq=False)
class Group:
    """The actions of one model, its training rows, and (training, held-out) folds."""

    name: str
    actions: tuple[str, ...]
    rows: Rows
    folds: list[tuple[Rows, Rows]]


@dataclass(frozen=True)
class FitReport:
    """Models that were written and how well they predict.

    `results` by action: `spearman`, `kendall`, `rl2_x100` on the test samples (None
    where undefined), `n_train`, `n_test`. `average`: Spearman's `fisher_z` and
    `arithmetic` mean over actions, and in how many it is `undefined`. `split` says
    what was tested.
    """

    models: tuple[Path, ...]
    results: Mapping[str, Mapping[str, float | None]]
    average: Mapping[str, float | None]
    split: str
    warnings: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self) | {"models": [str(path) for path in self.models]}

    def table(self) -> Table:
        """Return Spearman's rho by action, and both averages of it."""
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

    Finished heads are kept in `out`/heads, so that an interrupted fit continues.
    Raises `AqaError` for settings that do not exist and actions that cannot be fitted.
    """
    _check(config)
    features = load(cache, config.actions)
    crossed = config.split != SplitConfig()
    split = split_features(features, config.split)
    groups, warnings = _groups(features, split, config, crossed)
    actions = [name for group in groups for name in group.actions]
    parts, scales = [], []
    for group in groups:
        scale = LabelScale.learn(features, group.rows, config.label_scale)
        for place, rows in enumerate([group.rows, *(rows for rows, _ in group.folds)]):
            if place and crossed:  # nothing of the samples that it tests
                scale = LabelScale.learn(features, rows, config.label_scale)
            name = group.name + (f" without fold {place}" if place else "")
            labels = scale.to_scaled(features.score[rows], features.action[rows])
            parts.append(Part(name, rows, labels))
            scales.append(scale)
    make_folder(out)  # what cannot be written is said before hours of training
    # Only now is torch loaded: what is wrong with the cache is said at once.
    heads = kind_of(config.head).fit_heads(
        features, parts, config, out / "heads", progress
    )
    if config.loss == "rank":
        scales = [
            units_of_ranks(features, head, part)
            for head, part in zip(heads, parts, strict=True)
        ]
    fitted = iter(zip(heads, scales, strict=True))
    models: list[Model] = []
    warnings += doubts(features, split.folds, actions)
    for group in groups:
        head, scale = next(fitted)
        each = [_predict(features, *next(fitted), group.rows) for _ in group.folds]
        models.append(_model(features, group, head, scale, each, split.words, config))
        warnings += [f"{group.name}: {warning}" for warning in head.warnings()]
        warnings += _biases(models[-1])
    paths = [out / f"{group.name}-{config.head}.safetensors" for group in groups]
    for path, model in zip(paths, models, strict=True):
        save_model(path, model)
    results = {name: found for model in models for name, found in model.results.items()}
    rhos = [
        np.nan if found["spearman"] is None else found["spearman"]
        for found in results.values()
    ]
    tests = [found["n_test"] for found in results.values()]
    warnings += _untested(results)
    average = {
        "fisher_z": _defined(metrics.fisher_mean(rhos, tests)),
        "arithmetic": _defined(metrics.arithmetic_mean(rhos)),
        "undefined": metrics.undefined(rhos),
    }
    return FitReport(tuple(paths), results, average, split.words, tuple(warnings))


def _check(config: FitConfig) -> None:
    """Refuse settings that do not go together."""
    if config.head not in HEADS:
        raise AqaError(f"head: expected {' or '.join(HEADS)}, found {config.head!r}")
    kind = HEADS[config.head]
    if kind.one_action and config.mode != "single-action":
        raise AqaError(
            f"{config.head} scales no labels, so it learns one action at a time: "
            "--mode single-action"
        )
    if config.loss == "rank" and "loss" not in kind.settings:
        raise AqaError(f"the rank loss is for LSTM heads, not for {config.head}")


def _groups(
    features: FeatureSet, split: Split, config: FitConfig, crossed: bool
) -> tuple[list[Group], list[str]]:
    """Return the models to fit, actions in alphabetical order, and what is left out.

    Unless they were asked for, these are AQA-7's trampoline, and in a cross-validation
    actions that a fold tests and cannot train.
    """
    left_out: list[str] = []
    trained = None if crossed else "train"
    if config.actions is None:
        actions, left_out = features.unasked_actions(trained)
    else:
        actions = sorted(set(config.actions))
    for action in list(actions) if crossed else ():
        if reason := shortage(split, action):
            if config.actions is not None:
                raise AqaError(f"{reason}; without a cross-validation it can be fitted")
            actions.remove(action)
            left_out.append(f"left out: {reason}")
    for action in actions:
        if len(features.rows(action, trained)) == 0:
            raise AqaError(f"{action}: no labelled training video to fit to")
    if not actions:
        raise AqaError(
            "; ".join(left_out)
            or "no labelled training video; `aqa cache relabel` adds labels, --folds "
            "cross-validates samples without a split"
        )
    named = {"all-action": tuple(actions)}
    if config.mode == "single-action":
        named = {action: (action,) for action in actions}
    groups = []
    for name, own in named.items():
        rows = features.rows(own, trained)
        folds = []
        if crossed:
            folds = [(one.train_rows(own), one.test_rows(own)) for one in split.folds]
        elif config.calibration_folds > 1 and len(rows) > 1:
            dealt = deal(features.action[rows], config.calibration_folds, config.seed)
            folds = [(rows[dealt != k], rows[dealt == k]) for k in np.unique(dealt)]
        groups.append(Group(name, own, rows, [each for each in folds if len(each[1])]))
    return groups, left_out


def _predict(features: FeatureSet, head: Head, scale: LabelScale, rows: Rows) -> Floats:
    """Return the scores (n,) that a head predicts for rows, in judges' units."""
    scaled = head.predict(features.x[rows, 0], features.clips_of(rows))
    return scale.to_units(scaled, features.action[rows])


def units_of_ranks(features: FeatureSet, head: Head, part: Part) -> LabelScale:
    """Return the map from the outputs of a ranking head to judges' units.

    Per action it gives the training rows' outputs the mean and the standard deviation
    of their scores.
    """
    outputs = head.predict(features.x[part.rows, 0], features.clips_of(part.rows))
    offset, scale = {}, {}
    for action in np.unique(features.action[part.rows]):
        own = features.action[part.rows] == action
        scores, made = features.score[part.rows[own]], outputs[own]
        scale[str(action)] = float(scores.std() / (made.std() or 1.0))
        offset[str(action)] = float(scores.mean() - scale[str(action)] * made.mean())
    return LabelScale("rank", offset, scale)


def _model(
    features: FeatureSet,
    group: Group,
    head: Head,
    scale: LabelScale,
    by_fold: Sequence[Floats],
    split: str,
    config: FitConfig,
) -> Model:
    """Assemble a model: units, results, calibration, plausibility.

    by_fold: what the head without each fold predicts for the group's rows (n,).
    """
    results, calibration, ranges, frames, rates = {}, {}, {}, {}, {}
    for action in group.actions:
        of_action = features.action[group.rows] == action
        rows = group.rows[of_action]
        held_out = aligned = np.full(len(rows), np.nan)
        if group.folds:
            held_out, aligned = join_folds(
                [found[of_action] for found in by_fold],
                [np.isin(rows, outside) for _, outside in group.folds],
            )
        test, predicted, ranked = rows, held_out, aligned
        if config.split == SplitConfig():
            test = features.rows(action, "test")
            predicted = ranked = _predict(features, head, scale, test)
        truth = features.score[test]
        enough = len(test) >= LEAST_TEST
        results[action] = {
            name: _defined(measure(truth, values)) if enough else None
            for name, measure, values in (
                ("spearman", metrics.spearman, ranked),
                ("kendall", metrics.kendall, ranked),
                ("rl2_x100", metrics.rl2_x100, predicted),
            )
        } | {"n_train": len(rows), "n_test": len(test)}
        residuals = features.score[rows] - held_out
        residuals = residuals[np.isfinite(residuals)]
        if len(residuals) > 1:
            courses = head.course(features.x[rows, 0], features.clips_of(rows))
            typical = scale.to_units(courses.mean(0), action).tolist()
            calibration[action] = Calibration(
                *residual_bounds(residuals),
                len(residuals),
                len(group.folds),
                tuple(typical),
            )
        ranges[action] = _ends(features.score[rows])
        if features.frames is not None and features.frames[rows].min() > 0:
            frames[action] = _ends(features.frames[rows])
        if features.rate is not None and features.rate[rows].all():
            rates[action] = float(np.median(features.rate[rows]))
    return Model(
        head=head,
        actions=group.actions,
        label_scale=scale,
        provenance=features.provenance,
        settings={
            "created_with": f"aqa {version('aqa-toolkit')}, "
            + ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
            **{k: v for k, v in asdict(config).items() if k not in WITHOUT_EFFECT},
            "tested_on": split,
            "unlike_paper": unlike_paper(config, features.kind),
            "warnings": head.warnings(),
        },
        results=results,
        calibration=calibration,
        frames=frames,
        rates=rates,
        ranges=ranges,
        plausibility=Plausibility.learn(features, group.rows),
    )


def _ends(values: Any) -> tuple[Any, Any]:
    return values.min().item(), values.max().item()


def _biases(model: Model) -> list[str]:
    """Name the actions whose held-out scores are all off to one side."""
    return [
        f"{action}: held-out predictions are too "
        f"{'low' if known.low == 0 else 'high'} almost throughout; a model of the "
        "action alone (--mode single-action) or --label-scale zscore may do better"
        for action, known in model.calibration.items()
        if known.videos >= 10 and (known.low == 0 or known.high == 0)
    ]


def _untested(results: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """Name the actions with too few test samples for a correlation."""
    few = [
        f"{action} ({said['n_test']})"
        for action, said in results.items()
        if (said["n_test"] or 0) < LEAST_TEST
    ]
    if not few:
        return []
    return [
        f"rho is undefined for {', '.join(few)}: fewer than {LEAST_TEST} labelled test "
        "samples; --folds K tests every sample in a cross-validation"
    ]


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
