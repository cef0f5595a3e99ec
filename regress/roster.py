"""The LSTM heads that the experiments ask for, so named that each is trained once.

Conventions: a head is known by its task's name, which says what it was trained on and
with which seed; two experiments that need the same head ask here and get the same
name. The single-action heads serve Tables 2 and 3, the heads of all actions but one
serve zero-shot and fine-tuning.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from aqa.regress.data import Rows
from aqa.regress.metrics import Floats
from aqa.regress.study import Study
from aqa.regress.tasks import HeadTask, TrainedHead
from aqa.regress.training import predict

#: Trained heads by the name of their task.
Heads = Mapping[str, TrainedHead]


class NamedHeads(Mapping[str, TrainedHead]):
    """Trained heads by the name of their task, each fetched when it is asked for."""

    def __init__(self, names: Iterable[str], heads: Sequence[TrainedHead]) -> None:
        """Give each head, in their order, its task's name."""
        self._places = {name: place for place, name in enumerate(names)}
        self._heads = heads

    def __getitem__(self, name: str) -> TrainedHead:
        """The head of a task."""
        return self._heads[self._places[name]]

    def __iter__(self) -> Iterator[str]:
        """The names of all tasks."""
        return iter(self._places)

    def __len__(self) -> int:
        """How many heads there are."""
        return len(self._places)


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
    """One task a name, in the order of their first mention, starts before the rest."""
    found: dict[str, HeadTask] = {}
    for task in tasks:
        if task.init is not None:
            found.setdefault(task.init.name, task.init)
        found.setdefault(task.name, task)
    return list(found.values())


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
