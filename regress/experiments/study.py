"""What the experiments work on: one cache, the actions in it that can be judged.

Conventions: an action is a column of every table. It needs `LEAST_TEST` labelled test
samples and, in every fold, training scores that differ; actions that fall short are
left out and named in `notes`. Labels are scaled per fold, by its training list alone.
A fixed split is one fold without a name; in a cross-validation the predictions of all
folds are judged together. Bootstrap seeds come from an action's name, so that a
column's interval does not depend on the other columns.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa.cache.actions import ACTIONS, BY_NAME, EXPERIMENT_ACTIONS
from aqa.cache.errors import AqaError, counted
from aqa.regress.config import CompareConfig, FitConfig
from aqa.regress.data import FeatureSet, LabelScale, Rows, load
from aqa.regress.evaluation.bootstrap import (
    HeldOut,
    Resamples,
    SeedDraws,
    draw_groups,
    draw_samples,
)
from aqa.regress.evaluation.metrics import Floats, action_means, spearman
from aqa.regress.heads import HEADS
from aqa.regress.splits import (
    Fold,
    Split,
    doubts,
    join_folds,
    shortage,
    split_features,
)


@dataclass(frozen=True, eq=False)
class ScaledFold(Fold):
    """A fold with the label scale that its training list gives."""

    scale: LabelScale

    def targets(self, rows: Rows) -> tuple[float, ...]:
        """Return the scaled labels of rows, as a task takes them."""
        features = self.features
        scaled = self.scale.to_scaled(features.score[rows], features.action[rows])
        return tuple(scaled.tolist())


@dataclass(frozen=True, eq=False)
class Study:
    """One cache as the experiments see it.

    `cache` and `variant` label a further cache and a variant of the settings in the
    names of rows; both are "" for the study itself.
    """

    features: FeatureSet
    config: CompareConfig
    actions: tuple[str, ...]
    split: Split
    notes: tuple[str, ...]
    cache: str = ""
    variant: str = ""

    @property
    def label(self) -> str:
        """What is added to the names of rows, with a comma; empty for the first."""
        return "".join(f", {part}" for part in (self.cache, self.variant) if part)

    @cached_property
    def folds(self) -> tuple[ScaledFold, ...]:
        """The folds, their labels scaled by their training lists."""
        found = []
        for fold in self.split.folds:
            rows = fold.train_rows(self.actions)
            scale = LabelScale.learn(fold.features, rows, self.config.label_scale)
            found.append(ScaledFold(fold.name, fold.features, scale))
        return tuple(found)

    @property
    def fixed(self) -> bool:
        """Whether the samples are split once, as the cache says."""
        return self.split.fixed

    @property
    def seeds(self) -> range:
        """The seeds of heads and of the folds that choose an SVR."""
        first = self.config.first_seed
        return range(first, first + self.config.seeds)

    @property
    def draws(self) -> SeedDraws:
        """The seeds that each resample averages, the same for every row."""
        return SeedDraws(self.config.bootstrap, self.config.bootstrap_seed)

    @cached_property
    def tests(self) -> dict[str, HeldOut]:
        """Each action's test samples, of all folds together."""
        found = {}
        for action in self.actions:
            parts = [fold.test_rows(action) for fold in self.folds]
            rows = np.sort(np.concatenate(parts))
            found[action] = self._held_out(rows, self._drawn(action, rows))
        return found

    @cached_property
    def pools(self) -> dict[str, Floats]:
        """Resamples (count, n) of each action's listed rows, all lists together."""
        return {
            action: self._drawn(action, self.listed_rows(action))
            for action in self.actions
        }

    def testing(self, action: str) -> list[ScaledFold]:
        """Return the folds that test samples of an action."""
        return [fold for fold in self.folds if len(fold.test_rows(action))]

    def fold_of(self, action: str) -> NDArray[Any] | None:
        """Return the name of the fold of each test sample (n,); None if fixed."""
        if self.fixed:
            return None
        names = np.empty(self.tests[action].n, dtype=object)
        for fold in self.testing(action):
            names[self._tested(fold, action)] = fold.name
        return names

    def over_folds(
        self, action: str, predict: Callable[[ScaledFold], Floats]
    ) -> tuple[Floats, Floats]:
        """Return the joined and the aligned predictions of an action's folds.

        `predict` gets a fold and returns what its head predicts for all test rows of
        the action (..., n), those of other folds included. See `splits.join_folds`.
        """
        folds = self.testing(action)
        tested = [self._tested(fold, action) for fold in folds]
        return join_folds([predict(fold) for fold in folds], tested)

    def _tested(self, fold: ScaledFold, action: str) -> NDArray[np.bool_]:
        return np.isin(self.tests[action].rows, fold.test_rows(action))

    @cached_property
    def test_rows(self) -> Rows:
        """The test rows of all actions and folds, sorted."""
        return np.sort(np.concatenate([test.rows for test in self.tests.values()]))

    @property
    def kind(self) -> str:
        """The name of the features in their provenance, as "c3d"."""
        return self.features.kind

    def settings(self, head: str, seed: int) -> FitConfig:
        """Return the settings of a head of this kind, all others by default."""
        names = (*HEADS[head].settings, "device", "workers")
        own = {name: getattr(self.config, name) for name in names}
        return FitConfig(head=head, seed=seed, **own)

    def takes(self, head: str) -> bool:
        """Whether heads of this kind can learn here what they do not elsewhere.

        A sequential one needs more clips than one; a variant of the loss is one of
        heads that have a loss.
        """
        if self.variant and self.config.loss == "rank" and not self.ranks(head):
            return False
        return self.features.x.shape[2] > 1 or not HEADS[head].sequential

    def ranks(self, head: str) -> bool:
        """Whether heads of this kind learn ranks here, and predict no scores."""
        return self.config.loss == "rank" and "loss" in HEADS[head].settings

    @cached_property
    def floor(self) -> float:
        """Pooled rho of predicting each action's mean training score."""
        truth, predicted = [], []
        for fold in self.folds:
            train, test = fold.train_rows(self.actions), fold.test_rows(self.actions)
            action, score = fold.features.action, fold.features.score
            truth.append(score[test])
            predicted.append(action_means(action[train], score[train], action[test]))
        return spearman(np.concatenate(truth), np.concatenate(predicted))

    def listed_rows(self, action: str) -> Rows:
        """Return rows of an action in training and test lists together, sorted."""
        fold = self.folds[0]
        return np.sort([*fold.train_rows([action]), *fold.test_rows(action)])

    def samples(self, action: str) -> Iterable[tuple[str, str, float]]:
        """Yield key, split and score of each listed sample of an action."""
        features = self.features
        for row in self.listed_rows(action):
            yield str(features.key[row]), str(features.split[row]), features.score[row]

    def held_out(self, action: str, rows: Rows) -> HeldOut:
        """Test on these of an action's listed rows, resampled with all of them."""
        places = np.searchsorted(self.listed_rows(action), rows)
        return self._held_out(rows, self.pools[action][:, places])

    def _held_out(self, rows: Rows, counts: Floats) -> HeldOut:
        truth = self.features.score[rows]
        groups = self.split.groups
        number = None if groups is None else len(np.unique(groups[rows]))
        return HeldOut(rows, truth, Resamples(truth, counts), number)

    def _drawn(self, action: str, rows: Rows) -> Floats:
        config = self.config
        if self.split.groups is not None:
            # One draw of groups for all actions: a surgeon is in several of them.
            labelled = self.features.rows()
            seed = (config.bootstrap_seed, 1)
            counts = draw_groups(self.split.groups[labelled], config.bootstrap, seed)
            return counts[:, np.searchsorted(labelled, rows)]
        code = zlib.crc32(action.encode())
        return draw_samples(
            len(rows), config.bootstrap, (config.bootstrap_seed, code, 0)
        )


def title_of(action: str) -> str:
    """Return an action's name for words and tables."""
    return BY_NAME[action].title if action in BY_NAME else action


def open_study(cache: Path, config: CompareConfig) -> Study:
    """Load a cache and find out which of its actions can be judged.

    Raises `AqaError` when no action can be judged, saying why of each.
    """
    features = load(cache, config.actions)
    split = split_features(features, config.split)
    actions: list[str] = []
    notes: list[str] = []
    if config.actions is None:
        asked, notes = features.unasked_actions()
    else:
        asked = [name for name in config.actions if len(features.rows(name))]
    for action in _in_order(asked):
        if reason := shortage(split, action):
            notes.append(f"left out: {reason}")
        else:
            actions.append(action)
    if not actions:
        reasons = "; ".join(notes) or "no action is labelled"
        raise AqaError(f"{cache}: no action can be judged ({reasons})")
    absent = [name for name in EXPERIMENT_ACTIONS if name not in features.action]
    if config.actions is None and 0 < len(absent) < len(EXPERIMENT_ACTIONS):
        notes.append(f"not in this cache: {', '.join(absent)}")
    unlabelled = int(np.isnan(features.score).sum())
    if unlabelled:
        verb = "is" if unlabelled == 1 else "are"
        notes.append(f"{counted(unlabelled, 'sample')} without a score {verb} not used")
    notes += doubts(features, split.folds, actions)
    return Study(features, config, tuple(actions), split, tuple(notes))


#: Settings of label scale and loss to compare, by the label of their rows.
VARIANTS = {
    "std labels": {"label_scale": "std", "loss": "squared"},
    "z-scored labels": {"label_scale": "zscore", "loss": "squared"},
    "rank loss": {"loss": "rank"},
}


def variants_of(study: Study) -> list[Study]:
    """Return the study under every other label scale and loss, where asked for."""
    if not study.config.variants:
        return []
    configs = {
        name: replace(study.config, **settings)  # type: ignore[arg-type]
        for name, settings in VARIANTS.items()
    }
    return [
        replace(study, config=config, variant=name)
        for name, config in configs.items()
        if config != study.config
    ]


def _in_order(actions: Sequence[str]) -> list[str]:
    """Return actions in AQA-7's order, then by name."""
    known = [action.name for action in ACTIONS if action.name in actions]
    return known + sorted({*actions} - {*known})


def open_others(study: Study, cache: Path, paths: Sequence[Path]) -> list[Study]:
    """Open further caches of the same samples, labelled by their features or file."""
    others: list[Study] = []
    for path in paths:
        other = open_study(path, replace(study.config, actions=study.actions))
        _require_same_samples(study, cache, other, path)
        taken = {study.kind, *(each.cache for each in others)}
        names = (other.kind, path.stem, str(path))
        free = [name for name in names if name not in taken]
        if not free:
            raise AqaError(f"{path}: given twice")
        others.append(replace(other, cache=free[0]))
    return others


def _require_same_samples(study: Study, cache: Path, other: Study, path: Path) -> None:
    """Refuse a cache whose samples, splits or scores are not those of the first."""
    expected, found = (
        {sample for action in study.actions for sample in each.samples(action)}
        for each in (study, other)
    )
    differing = sorted({key for key, *_ in expected ^ found})
    if differing:
        raise AqaError(
            f"{path}: its samples are not those of {cache}: {len(differing)} are "
            "missing in one or differ in split or score (first "
            f"{', '.join(differing[:3])}); extract or relabel it from the same lists"
        )
