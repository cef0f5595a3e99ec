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
from aqa.regress.evaluation import metrics
from aqa.regress.evaluation.bootstrap import Cell, covers_zero, judge
from aqa.regress.evaluation.metrics import Floats
from aqa.regress.experiments.describe import describe, describe_average
from aqa.regress.experiments.result import Pooled, Row
from aqa.regress.experiments.study import ScaledFold, Study
from aqa.regress.experiments.svr_tasks import SvrTask, TriedSvr
from aqa.regress.heads.lstm import predict
from aqa.regress.heads.tasks import HeadTask, TrainedHead, action_groups

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


def all_but(study: Study, action: str) -> tuple[str, ...]:
    """Return every action but one."""
    return tuple(name for name in study.actions if name != action)


def trained_on(
    study: Study, fold: ScaledFold, actions: Iterable[str], seed: int
) -> HeadTask:
    """Return the LSTM head of a fold's training lists of these actions."""
    wanted = [action for action in study.actions if action in set(actions)]
    rows = fold.train_rows(wanted)
    if not len(rows):
        raise AqaError(f"{fold.name}: no training sample of {', '.join(wanted)}")
    left_out = [action for action in study.actions if action not in wanted]
    known = "all actions"
    if len(wanted) == 1:
        known = wanted[0]
    elif len(left_out) == 1:
        known = f"all but {left_out[0]}"
    return HeadTask(
        name=f"LSTM on {known}{_in(fold)}, seed {seed}",
        rows=as_rows(rows),
        targets=fold.targets(rows),
        seed=seed,
        schedule=study.config.schedule.scaled(study.config.scale),
        loss=study.config.loss,
        groups=action_groups(study.features, rows, study.config.loss),
        standardise=study.config.standardises(study.kind),
    )


def untrained(study: Study, seed: int) -> HeadTask:
    """Return the head as it is drawn, before any training, with its predictions."""
    whole = trained_on(study, study.folds[0], study.actions, seed)
    return replace(
        whole,
        name=f"untrained head, seed {seed}",
        schedule=replace(whole.schedule, iterations=0),
        watch=as_rows(study.test_rows),
        keep_parameters=False,
    )


def _in(fold: ScaledFold) -> str:
    return f", {fold.name}" if fold.name else ""


def preset_of(study: Study) -> SvrConfig | None:
    """Return the named nu-SVR that goes with features of this kind, if any."""
    preset = SVR_PRESETS.get(study.kind)
    return preset if preset and preset.nu is not None else None


@dataclass(frozen=True, eq=False)
class RowPlan:
    """A row before it is judged.

    `train_on` gives, for a judged action, the actions that its head is trained on;
    `mark_matched` marks cells where they are the judged one, where others are not.
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

    def task(self, fold: ScaledFold, action: str, seed: int) -> HeadTask | SvrTask:
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
            tests=as_rows(self.study.test_rows),
            config=preset or self.study.config.svr,
            seed=seed,
        )

    def tasks(self, action: str) -> Iterator[HeadTask | SvrTask]:
        """Yield the tasks of an action's cell, by seed and fold."""
        for seed in self.seeds:
            for fold in self.study.testing(action):
                yield self.task(fold, action, seed)

    def needs(self) -> Needs:
        """Yield every task of the row."""
        for action in self.study.actions:
            for task in self.tasks(action):
                yield self.study, task

    def cell(self, trained: Trained, action: str) -> Cell:
        """Judge the row on an action."""
        actions = self.train_on(action)
        ranked = self.head == "lstm" and self.study.config.loss == "rank"
        found = [self._predicted(trained, action, seed) for seed in self.seeds]
        return judge(
            [self.study.tests[action]] * len(self.seeds),
            *zip(*found, strict=True),
            matched=self.mark_matched and actions == (action,),
            units=action in actions and not ranked,
            parts=self.study.fold_of(action),
        )

    def _predicted(
        self, trained: Trained, action: str, seed: int
    ) -> tuple[Floats, Floats]:
        """Return predictions for an action's test samples (n,), and aligned ones."""
        rows = self.study.tests[action].rows

        def predict_fold(fold: ScaledFold) -> Floats:
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
        """Return what the row's SVRs chose, by action, per seed and fold."""
        if self.head == "lstm":
            return {}
        return {
            action: [
                trained.svrs[task].choice
                for task in self.tasks(action)
                if isinstance(task, SvrTask)
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

    def _predicted(
        self, trained: Trained, action: str, seed: int
    ) -> tuple[Floats, Floats]:
        task = untrained(self.study, seed)
        places = np.searchsorted(task.watch, self.study.tests[action].rows)
        watched = trained.head(self.study, task).watched[-1, places]
        predicted = self.study.folds[0].scale.to_units(watched, action)
        return predicted, predicted


def judge_rows(
    plans: Iterable[RowPlan], trained: Trained, *, full: bool = True
) -> tuple[dict[str, dict[str, Cell]], list[Row]]:
    """Judge every row; `full` adds features, copies, choices and pooled rho."""
    table: dict[str, dict[str, Cell]] = {}
    rows = []
    for plan in plans:
        study = plan.study
        cells = {action: plan.cell(trained, action) for action in study.actions}
        together = list(cells.values())
        row = Row(
            name=plan.name,
            mode=plan.mode,
            head=plan.head,
            per_action={
                action: describe(cell, study.draws, together)
                for action, cell in cells.items()
            },
            average=describe_average(together, study.draws),
        )
        if full:
            row = replace(
                row,
                features=study.cache or study.kind,
                copies=plan.copies,
                choices=plan.choices(trained),
                pooled=_pooled(together),
            )
        table[plan.name] = cells
        rows.append(row)
    return table, rows


def _pooled(cells: list[Cell]) -> Pooled:
    """Return rho over the test samples of all actions together, per seed."""
    rho = [
        metrics.spearman(
            np.concatenate([cell.tests[seed].truth for cell in cells]),
            np.concatenate([cell.predicted[seed] for cell in cells]),
        )
        for seed in range(len(cells[0].rho))
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
    ends = {row.name: row.average.ci95["fisher_z"] for row in rows}
    open_sign = [name for name, each in ends.items() if covers_zero(each)]
    without = [name for name, each in ends.items() if np.isnan(each).any()]
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


def _listed(names: list[str]) -> str:
    """Join names of rows; those of a further cache hold a comma themselves."""
    return ("; " if any("," in name for name in names) else ", ").join(names)
