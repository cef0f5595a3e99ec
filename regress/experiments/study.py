"""What the experiments work on: one cache, the actions in it that can be judged.

Conventions: an action is a column of every table. It needs `LEAST_TEST` labelled test
samples and training scores that differ; actions that fall short are left out and
named in `notes`, never in silence. `scale` holds each action's label deviation, from
its training list alone; `targets` (N,) are scores over that deviation. Bootstrap
seeds come from an action's name, so that a column's interval does not depend on which
other columns stand beside it.

The LSTM heads that the experiments ask for: two that need the same head ask here and
get equal tasks. The single-action heads serve Tables 2 and 3, the heads of all actions
but one serve zero-shot and fine-tuning.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from aqa.cache.actions import ACTIONS, BY_NAME, EXPERIMENT_ACTIONS
from aqa.cache.errors import AqaError
from aqa.regress.config import CompareConfig
from aqa.regress.data import FeatureSet, Rows, deviations, load, scaled_labels
from aqa.regress.evaluation.bootstrap import HeldOut, Resamples, draw_samples
from aqa.regress.evaluation.metrics import Floats, action_mean_floor
from aqa.regress.experiments.paper import listed, strangers
from aqa.regress.heads.lstm import predict
from aqa.regress.heads.tasks import HeadTask, TrainedHead

#: With two samples rho can only be 1 or -1.
LEAST_TEST = 3


@dataclass(frozen=True, eq=False)
class Study:
    """One cache as the experiments see it."""

    features: FeatureSet
    config: CompareConfig
    actions: tuple[str, ...]
    scale: dict[str, float]
    notes: tuple[str, ...]

    @cached_property
    def targets(self) -> Floats:
        """Scaled labels (N,); nan where there is none."""
        return scaled_labels(self.features, self.scale)

    @cached_property
    def tests(self) -> dict[str, HeldOut]:
        """Each action's test list."""
        found = {}
        for action in self.actions:
            rows = self.features.rows(action, "test")
            found[action] = self._held_out(action, rows, self._drawn(action, rows))
        return found

    @cached_property
    def pools(self) -> dict[str, Floats]:
        """Resamples (count, n) of each action's listed rows, all lists together."""
        return {
            action: self._drawn(action, self.listed_rows(action))
            for action in self.actions
        }

    @property
    def kind(self) -> str:
        """The name of the features in their provenance, as "c3d"."""
        return str(self.features.provenance.record.get("features", "unnamed"))

    @property
    def whole(self) -> bool:
        """Whether all actions of the paper's experiments are judged, and no others."""
        return set(self.actions) == set(EXPERIMENT_ACTIONS)

    @cached_property
    def released(self) -> bool:
        """Whether samples are of AQA-7 in the paper's split; some may be missing."""
        return not self._strangers

    @cached_property
    def paper_note(self) -> str:
        """What keeps the paper's numbers away, or is to be said of them; else empty."""
        asked = sum(map(listed, self.actions))
        found = sum(len(self.listed_rows(action)) for action in self.actions)
        if self.released and found < asked:
            return (
                f"{asked - found} of the {asked} released samples of these actions "
                "are missing; the paper's numbers are of all of them"
            )
        # Nobody expects the paper's numbers beside a data set of another kind.
        if self.released or len(self._strangers) > found / 2:
            return ""
        return (
            f"the paper's numbers are not shown: {len(self._strangers)} of {found} "
            f"samples are not in the released lists or differ in split or score "
            f"(first {self._strangers[0]})"
        )

    @cached_property
    def _strangers(self) -> list[str]:
        """Keys of samples that are not in AQA-7's released lists as they are here."""
        return [
            key
            for action in self.actions
            for key in strangers(action, self.samples(action))
        ]

    @cached_property
    def floor(self) -> float:
        """Pooled rho of a predictor that knows only which sport it watches."""
        train = self.train_rows(self.actions)
        test = self.features.rows(self.actions, "test")
        action, score = self.features.action, self.features.score
        return action_mean_floor(action[train], score[train], action[test], score[test])

    def train_rows(self, actions: Sequence[str]) -> Rows:
        """Labelled training rows of these actions, in the cache's order."""
        return self.features.rows(actions, "train")

    def listed_rows(self, action: str) -> Rows:
        """Rows of an action in its training and test lists together."""
        lists = [self.features.rows(action, split) for split in ("train", "test")]
        return np.sort(np.concatenate(lists))

    def samples(self, action: str) -> Iterable[tuple[str, str, float]]:
        """Key, split and score of each listed sample of an action."""
        features = self.features
        for row in self.listed_rows(action):
            yield str(features.key[row]), str(features.split[row]), features.score[row]

    def held_out(self, action: str, rows: Rows) -> HeldOut:
        """Test on these of an action's listed rows, resampled with all of them."""
        places = np.searchsorted(self.listed_rows(action), rows)
        return self._held_out(action, rows, self.pools[action][:, places])

    def _held_out(self, action: str, rows: Rows, counts: Floats) -> HeldOut:
        truth = self.features.score[rows]
        return HeldOut(action, rows, truth, Resamples(truth, counts))

    def _drawn(self, action: str, rows: Rows) -> Floats:
        seed = (self.config.bootstrap_seed, zlib.crc32(action.encode()), 0)
        return draw_samples(len(rows), self.config.bootstrap, seed)


def title_of(action: str) -> str:
    """An action's name in words and tables."""
    return BY_NAME[action].title if action in BY_NAME else action


def open_study(cache: Path, config: CompareConfig) -> Study:
    """Load a cache and find out which of its actions can be judged.

    Raises `AqaError` when none can, saying why of each.
    """
    features = load(cache, config.actions)
    scale: dict[str, float] = {}
    notes: list[str] = []
    for action in _in_order(features, config.actions):
        try:
            scale[action] = _deviation(features, action)
        except AqaError as shortage:
            notes.append(f"left out: {shortage}")
    if not scale:
        reasons = "; ".join(notes) or "no action is labelled"
        raise AqaError(f"{cache}: no action can be judged ({reasons})")
    absent = [name for name in EXPERIMENT_ACTIONS if name not in features.action]
    if config.actions is None and 0 < len(absent) < len(EXPERIMENT_ACTIONS):
        notes.append(f"not in this cache: {', '.join(absent)}")
    unlabelled = int(np.isnan(features.score).sum())
    if unlabelled:
        notes.append(f"{unlabelled} samples without a score are not used")
    return Study(features, config, tuple(scale), scale, tuple(notes))


def _deviation(features: FeatureSet, action: str) -> float:
    """Label deviation of an action, or why it cannot be judged."""
    found = len(features.rows(action, "test"))
    if found < LEAST_TEST:
        raise AqaError(
            f"{action}: {found} labelled test samples; at least {LEAST_TEST} are needed"
        )
    train = features.rows(action, "train")
    if len(train) == 0:
        raise AqaError(f"{action}: no labelled training sample")
    return deviations(features, train)[action]


def _in_order(features: FeatureSet, asked: Sequence[str] | None) -> list[str]:
    """The data set's own order, then by name; trampoline only when asked for."""
    order = [action.name for action in ACTIONS]
    present = {str(action) for action in features.action[features.rows()]}
    wanted = present - {"trampoline"} if asked is None else present & set(asked)
    known = [name for name in order if name in wanted]
    return known + sorted(wanted - set(order))


#: Trained heads by their task.
Heads = Mapping[HeadTask, TrainedHead]


def trained_on(study: Study, actions: Sequence[str], seed: int) -> HeadTask:
    """The head trained on the training lists of these actions, in table order."""
    return HeadTask(
        name=f"{_describe(study, actions)}, seed {seed}",
        rows=as_rows(study.train_rows(actions)),
        seed=seed,
        schedule=study.config.schedule.scaled(study.config.scale),
    )


def all_but(study: Study, action: str, seed: int) -> HeadTask:
    """The head trained on every action but one."""
    rest = [name for name in study.actions if name != action]
    return trained_on(study, rest, seed)


def untrained(study: Study, seed: int) -> HeadTask:
    """The head as it is drawn, before any training."""
    whole = trained_on(study, study.actions, seed)
    schedule = replace(whole.schedule, iterations=0)
    return replace(whole, name=f"random, seed {seed}", schedule=schedule)


def as_rows(rows: Iterable[int]) -> tuple[int, ...]:
    """Rows as a task takes them."""
    return tuple(int(row) for row in rows)


def unique(tasks: Iterable[HeadTask]) -> list[HeadTask]:
    """Each task once, in the order of first mention, starts before the rest."""
    found: dict[HeadTask, None] = {}
    for task in tasks:
        if task.init is not None:
            found.setdefault(task.init)
        found.setdefault(task)
    return list(found)


def predict_scores(
    study: Study, head: TrainedHead, rows: Rows, action: str, copy: int = 0
) -> Floats:
    """Predictions for one copy of an action's rows, in judges' units (n,)."""
    scaled = predict(head.parameters, study.features.x[rows, copy])
    return np.asarray(scaled, np.float64) * study.scale[action]


def _describe(study: Study, actions: Sequence[str]) -> str:
    left_out = [name for name in study.actions if name not in actions]
    if len(actions) == 1:
        return f"LSTM on {actions[0]}"
    if len(left_out) == 1:
        return f"LSTM on all but {left_out[0]}"
    return "LSTM on all actions"
