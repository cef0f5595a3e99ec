"""A row of a table whose columns are actions: what it trains, how it is judged.

Conventions: a row names the kind of head ("lstm", "svr", "nu-svr") and, for each judged
action, the actions that the head is trained on. Equal tasks of several rows or
experiments are one head. Testing uses the copy at offset 0, or the mean of `copies`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from aqa.cache.errors import AqaError
from aqa.regress.config import SVR_PRESETS, SvrConfig
from aqa.regress.data import Rows
from aqa.regress.evaluation import metrics
from aqa.regress.evaluation.bootstrap import Cell, covers_zero, judge
from aqa.regress.evaluation.metrics import Floats
from aqa.regress.experiments.describe import describe_row
from aqa.regress.experiments.result import Pooled, Row
from aqa.regress.experiments.study import Fold, Study
from aqa.regress.experiments.svr_tasks import SvrTask, TriedSvr
from aqa.regress.heads.lstm import predict
from aqa.regress.heads.tasks import HeadTask, TrainedHead

HEADS = {"lstm": "LSTM", "svr": "SVR", "nu-svr": "nu-SVR"}
#: What an experiment asks for: tasks beside the study whose features they train on.
Needs = Iterator[tuple[Study, HeadTask | SvrTask]]


@dataclass(frozen=True)
class Trained:
    """Every head and SVR of a run; heads by the label of their cache."""

    heads: Mapping[str, Mapping[HeadTask, TrainedHead]]
    svrs: Mapping[SvrTask, TriedSvr]

    def head(self, study: Study, task: HeadTask) -> TrainedHead:
        """Return a study's head."""
        return self.heads[study.cache][task]


def as_rows(rows: Iterable[int]) -> tuple[int, ...]:
    """Return rows as a task takes them."""
    return tuple(int(row) for row in rows)


def trained_on(study: Study, fold: Fold, actions: Iterable[str], seed: int) -> HeadTask:
    """Return the LSTM head of a fold's training lists of these actions."""
    wanted = [action for action in study.actions if action in set(actions)]
    rows = fold.train_rows(wanted)
    if not len(rows):
        raise AqaError(f"{fold.name}: no training sample of {', '.join(wanted)}")
    return HeadTask(
        name=f"LSTM on {_described(study, wanted)}{_in(fold)}, seed {seed}",
        rows=as_rows(rows),
        targets=fold.targets(rows),
        seed=seed,
        schedule=study.config.schedule.scaled(study.config.scale),
        loss=study.config.loss,
        groups=_groups(study, rows) if study.config.loss == "rank" else None,
        standardise=study.config.standardises(study.kind),
    )


def _groups(study: Study, rows: Rows) -> tuple[int, ...]:
    """Return the number of each row's action: only within one are scores ranked."""
    return tuple(study.actions.index(name) for name in study.features.action[rows])


def untrained(study: Study, seed: int) -> HeadTask:
    """Return the head as it is drawn, before any training, with its predictions."""
    whole = trained_on(study, study.folds[0], study.actions, seed)
    tests = np.concatenate([study.tests[action].rows for action in study.actions])
    return replace(
        whole,
        name=f"untrained head, seed {seed}",
        schedule=replace(whole.schedule, iterations=0),
        watch=as_rows(np.sort(tests)),
        keep_parameters=False,
    )


def all_but(study: Study, action: str) -> tuple[str, ...]:
    """Return every action but one."""
    return tuple(name for name in study.actions if name != action)


def _described(study: Study, actions: list[str]) -> str:
    left_out = [name for name in study.actions if name not in actions]
    if len(actions) == 1:
        return actions[0]
    return f"all but {left_out[0]}" if len(left_out) == 1 else "all actions"


def _in(fold: Fold) -> str:
    return f", {fold.name}" if fold.name else ""


def preset_of(study: Study) -> SvrConfig | None:
    """Return the named nu-SVR that goes with features of this kind, if any."""
    preset = SVR_PRESETS.get(study.kind)
    return preset if preset and preset.nu is not None else None


@dataclass(frozen=True, eq=False)
class RowPlan:
    """A row before it is judged.

    `train_on` gives, for a judged action, the actions that its head is trained on;
    `matched` marks cells where they are the judged one, where others are not.
    """

    name: str
    mode: str
    head: str
    study: Study
    train_on: Callable[[str], tuple[str, ...]]
    copies: int = 1
    mark_matched: bool = False

    @property
    def seeds(self) -> range:
        """The seeds of its heads."""
        return self.study.seeds

    def task(self, fold: Fold, action: str, seed: int) -> HeadTask | SvrTask:
        """Return the task of the head that is judged on an action's tests in a fold."""
        actions = self.train_on(action)
        if self.head == "lstm":
            return trained_on(self.study, fold, actions, seed)
        rows = fold.train_rows(actions)
        preset = preset_of(self.study) if self.head == "nu-svr" else None
        name = f"{HEADS[self.head]} on {', '.join(actions)}{_in(fold)}, seed {seed}"
        return SvrTask(
            name=name + self.study.label,
            cache=self.study.cache,
            rows=as_rows(rows),
            targets=fold.targets(rows),
            tests=as_rows(fold.test_rows(self.study.actions)),
            config=preset or self.study.config.svr,
            seed=seed,
        )

    def needs(self) -> Needs:
        """Yield every task of the row."""
        for action in self.study.actions:
            for fold in self.study.testing(action):
                for seed in self.seeds:
                    yield self.study, self.task(fold, action, seed)

    def cells(self, trained: Trained) -> dict[str, Cell]:
        """Judge the row on every action."""
        found = {}
        for action in self.study.actions:
            test = self.study.tests[action]
            predicted = [self._predicted(trained, action, seed) for seed in self.seeds]
            found[action] = judge(
                [test] * len(predicted),
                predicted,
                matched=self.mark_matched and self.train_on(action) == (action,),
                units=self._in_units(action),
                parts=self.study.fold_of(action),
            )
        return found

    def _in_units(self, action: str) -> bool:
        """Tell whether predictions are scores: of a seen action, by a squared loss."""
        ranked = self.head == "lstm" and self.study.config.loss == "rank"
        return action in self.train_on(action) and not ranked

    def _predicted(self, trained: Trained, action: str, seed: int) -> Floats:
        """Return predictions for an action's test samples, in judges' units (n,)."""

        def predict_fold(fold: Fold, rows: Rows) -> Floats:
            task = self.task(fold, action, seed)
            if isinstance(task, SvrTask):
                places = np.searchsorted(task.tests, rows)
                scaled = trained.svrs[task].predicted[: self.copies, places].mean(0)
                return fold.scale.to_units(scaled, action)
            head = trained.head(self.study, task)
            x, clips = self.study.features.x, self.study.features.clips
            real = None if clips is None else clips[rows]
            copies = [
                predict(head.parameters, x[rows, copy], real)
                for copy in range(self.copies)
            ]
            scaled = np.mean(copies, axis=0, dtype=np.float64)
            return fold.scale.to_units(scaled, action)

        return self.study.over_folds(action, predict_fold)

    def choices(self, trained: Trained) -> dict[str, list[dict[str, Any]]]:
        """Return what the row's SVRs chose, by action, per seed (and fold)."""
        if self.head == "lstm":
            return {}
        return {
            action: [
                trained.svrs[task].choice
                for seed in self.seeds
                for fold in self.study.testing(action)
                if isinstance(task := self.task(fold, action, seed), SvrTask)
            ]
            for action in self.study.actions
        }


class UntrainedPlan(RowPlan):
    """The row of heads as they are drawn: as many draws as the configuration says."""

    @cached_property
    def seeds(self) -> range:
        """The seeds of the draws."""
        return range(max(self.study.config.untrained, self.study.config.seeds))

    def needs(self) -> Needs:
        """Yield every draw; no fold changes them."""
        for seed in self.seeds:
            yield self.study, untrained(self.study, seed)

    def _predicted(self, trained: Trained, action: str, seed: int) -> Floats:
        task = untrained(self.study, seed)
        places = np.searchsorted(task.watch, self.study.tests[action].rows)
        watched = trained.head(self.study, task).watched[-1, places]
        return self.study.folds[0].scale.to_units(watched, action)


def judge_rows(
    plans: Iterable[RowPlan], trained: Trained, *, full: bool = True
) -> tuple[dict[str, dict[str, Cell]], list[Row]]:
    """Judge every row; `full` adds features, copies, choices and pooled rho."""
    table: dict[str, dict[str, Cell]] = {}
    rows = []
    for plan in plans:
        cells = table[plan.name] = plan.cells(trained)
        more: dict[str, Any] = {}
        if full:
            more = {
                "features": plan.study.cache or plan.study.kind,
                "copies": plan.copies,
                "choices": plan.choices(trained),
                "pooled": _pooled(cells),
            }
        draws = plan.study.draws
        rows.append(describe_row(plan.name, plan.mode, plan.head, cells, draws, **more))
    return table, rows


def _pooled(cells: Mapping[str, Cell]) -> Pooled:
    """Return rho over the test samples of all actions together, per seed."""
    each = cells.values()
    rho = [
        metrics.spearman(
            np.concatenate([cell.tests[seed].truth for cell in each]),
            np.concatenate([cell.predicted[seed] for cell in each]),
        )
        for seed in range(len(next(iter(each)).rho))
    ]
    return Pooled(rho, metrics.arithmetic_mean(rho))


def svr_notes(rows: Iterable[Row]) -> list[str]:
    """Say which SVRs did not converge or chose at the edge of their candidates."""
    named: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.copies == 1:
            for action, choices in (row.choices or {}).items():
                for note in {note for choice in choices for note in choice["notes"]}:
                    named.setdefault(note, {})[f"{row.name} on {action}"] = None
    return [f"{note}: {', '.join(names)}" for note, names in named.items()]


def near_random(rows: Iterable[Row]) -> list[str]:
    """Name the rows that are not distinguishable from a random ranking."""
    open_sign: list[str] = []
    without: list[str] = []
    for row in rows:
        ends = row.average.ci95["fisher_z"]
        if np.isnan(ends).any():
            without.append(row.name)
        elif covers_zero(ends):
            open_sign.append(row.name)
    notes = []
    if open_sign:
        notes.append(
            f"The average's interval covers zero for {_listed(open_sign)}: not "
            "distinguishable from a random ranking."
        )
    if without:
        notes.append(
            f"The average has no interval for {_listed(without)}: too few test "
            "samples, or rho is undefined."
        )
    return notes


def _listed(names: Iterable[str]) -> str:
    """Join names of rows; those of a further cache hold a comma themselves."""
    names = list(names)
    return ("; " if any("," in name for name in names) else ", ").join(names)
