"""A row of a table whose columns are actions: what it trains, how it is judged.

Conventions: a row names the kind of head, of `HEADS`, and, for each judged action, the
actions that the head is trained on. Equal tasks of several rows or experiments are one
head. Testing uses the copy at offset 0, or the mean of `copies`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from aqa.cache.errors import AqaError
from aqa.regress.evaluation import metrics
from aqa.regress.evaluation.bootstrap import Cell, covers_zero, judge
from aqa.regress.evaluation.metrics import Floats
from aqa.regress.experiments.describe import Average, describe, describe_average
from aqa.regress.experiments.result import Pooled, Row
from aqa.regress.experiments.study import ScaledFold, Study
from aqa.regress.heads import HEADS
from aqa.regress.heads.base import Part
from aqa.regress.heads.tasks import HeadTask
from aqa.regress.heads.trials import Trial, trainer_of

#: What an experiment asks for: tasks beside the study whose features they train on.
#: A task is what the kind of its head makes of it (see `heads.trials`).
Needs = Iterator[tuple[Study, Any]]


@dataclass(frozen=True)
class Trained:
    """The outcome of every task of a run, by the label of its cache and its kind."""

    outcomes: Mapping[tuple[str, str], Mapping[Any, Any]]

    def of(self, study: Study, task: Any) -> Any:
        """Return the outcome of a study's task."""
        return self.outcomes[study.cache, task.kind][task]


def all_but(study: Study, action: str) -> tuple[str, ...]:
    """Return every action but one."""
    return tuple(name for name in study.actions if name != action)


def task_of(
    study: Study, fold: ScaledFold, head: str, actions: Iterable[str], seed: int
) -> Any:
    """Return the task of a head of a fold's training lists of these actions."""
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
    within = f", {fold.name}" if fold.name else ""
    name = f"{HEADS[head].title} on {known}{within}, seed {seed}{study.label}"
    return trainer_of(head).task_of(
        study.features,
        Part(name, rows, np.array(fold.targets(rows))),
        study.test_rows,
        study.settings(head, seed),
    )


def untrained(study: Study, seed: int) -> HeadTask:
    """Return the head as it is drawn, before any training, with its predictions."""
    whole: HeadTask = task_of(study, study.folds[0], "lstm", study.actions, seed)
    return replace(
        whole,
        name=f"untrained head, seed {seed}",
        schedule=replace(whole.schedule, iterations=0),
        watch=tuple(study.test_rows.tolist()),
        keep_parameters=False,
    )


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

    def task(self, fold: ScaledFold, action: str, seed: int) -> Any:
        """Return the task of the head that is judged on an action's tests in a fold."""
        return task_of(self.study, fold, self.head, self.train_on(action), seed)

    def tasks(self, action: str) -> Iterator[Any]:
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
        found = [self._predicted(trained, action, seed) for seed in self.seeds]
        return judge(
            [self.study.tests[action]] * len(self.seeds),
            *zip(*found, strict=True),
            matched=self.mark_matched and actions == (action,),
            units=action in actions and not self.study.ranks(self.head),
            parts=self.study.fold_of(action),
        )

    def _predicted(
        self, trained: Trained, action: str, seed: int
    ) -> tuple[Floats, Floats]:
        """Return predictions for an action's test samples (n,), and aligned ones."""
        study, rows = self.study, self.study.tests[action].rows

        def predict_fold(fold: ScaledFold) -> Floats:
            task = self.task(fold, action, seed)
            scaled = trainer_of(self.head).predict_rows(
                study.features, task, trained.of(study, task), rows, self.copies
            )
            return fold.scale.to_units(scaled, action)

        return study.over_folds(action, predict_fold)

    def choices(self, trained: Trained) -> dict[str, list[dict[str, Any]]]:
        """Return what the row's heads chose, by action, per seed and fold."""
        found = {
            action: [
                trained.of(self.study, task).choice
                for task in self.tasks(action)
                if isinstance(task, Trial)
            ]
            for action in self.study.actions
        }
        return {action: chosen for action, chosen in found.items() if any(chosen)}


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
        watched = trained.of(self.study, task).watched[-1, places]
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


def fit_notes(rows: Iterable[Row]) -> list[str]:
    """Say what rows' heads warn of, as SVRs that did not converge do."""
    named: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.copies == 1:
            for action, choices in (row.choices or {}).items():
                notes = [note for each in choices for note in each.get("notes", ())]
                for note in notes:
                    named.setdefault(note, {})[f"{row.name} on {action}"] = None
    return [f"{note}: {', '.join(names)}" for note, names in named.items()]


def near_random(averages: Mapping[str, Average]) -> list[str]:
    """Name the rows that are not distinguishable from a random ranking."""
    ends = {name: average.ci95["fisher_z"] for name, average in averages.items()}
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
