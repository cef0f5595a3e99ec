"""Who trains and who tests when an action is fine-tuned on few samples.

Conventions: samples are drawn by seed from an action's training and test lists
together. The first of the drawn order test, the same ones for every training size;
the next n train, so that a smaller training set lies inside a larger one. An action
with too few samples for the paper's sizes gets sizes in the same proportion.

Fine-tuning on few samples of a new action (Table 4 and Figure 3 of the paper).

Conventions: for every action, training size and initialisation (`multi-action`: the
head trained on all other actions; `random`: Gaussian weights) all weights of the head
are trained, rho on the test samples taken before the first iteration, every so often
(`curve`) and after the last. `best` is the highest rho of a curve, so it is chosen on
the test samples, as in the paper; `last` is the honest number, and every interval and
claim is about it. Labels are scaled by the deviation of the n training samples.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aqa.cache.actions import BY_NAME
from aqa.cache.errors import AqaError
from aqa.regress.config import FineTuneConfig, FineTuneSetting
from aqa.regress.data import Rows, deviations
from aqa.regress.evaluation.bootstrap import (
    AVERAGES,
    Cell,
    covers_zero,
    describe,
    describe_average,
    describe_claim,
    in_words,
    judge,
)
from aqa.regress.evaluation.metrics import Floats, defined_mean, spearman
from aqa.regress.experiments.paper import OF_MANY, SOURCE, TABLE_4
from aqa.regress.experiments.result import Result, drawn_seeds, opening
from aqa.regress.experiments.study import (
    LEAST_TEST,
    Heads,
    Study,
    all_but,
    as_rows,
    title_of,
    unique,
)
from aqa.regress.heads.tasks import HeadTask


@dataclass(frozen=True)
class Sizes:
    """What an action's samples allow: `train` beside the settings they stand for."""

    action: str
    asked_test: int
    test: int
    settings: tuple[FineTuneSetting, ...]
    train: tuple[int, ...]

    @property
    def reduced(self) -> str:
        """How the sizes differ from those asked for; empty where they do not."""
        asked = [setting.n_train for setting in self.settings]
        if self.test == self.asked_test and list(self.train) == asked:
            return ""
        train = ", ".join(map(str, self.train))
        return f"{title_of(self.action)} tests on {self.test} and trains on {train}"


@dataclass(frozen=True)
class Setting:
    """One column of the table: an action and a training size that it allows."""

    sizes: Sizes
    asked: FineTuneSetting
    n_train: int

    @property
    def action(self) -> str:
        """The action that is fine-tuned on."""
        return self.sizes.action

    @property
    def column(self) -> str:
        """The column's name."""
        return f"{self.action} n={self.n_train}"


@dataclass(frozen=True, eq=False)
class Draw:
    """One seed's samples: `order` (available,) rows, the first `test` of them test."""

    action: str
    order: Rows
    test: int

    @property
    def test_rows(self) -> Rows:
        """Rows to test on."""
        return self.order[: self.test]

    def train_rows(self, n: int) -> Rows:
        """Rows to train on, disjoint from the test rows."""
        return self.order[self.test : self.test + n]


def sizes_of(study: Study, action: str) -> Sizes:
    """Sizes for an action; in proportion where it has too few samples."""
    config = study.config.fine_tune
    available = len(study.listed_rows(action))
    settings = _settings(config, action, available)
    wanted = config.test + max(setting.n_train for setting in settings)

    def in_proportion(count: int) -> int:
        return min(count, count * available // wanted)

    return Sizes(
        action=action,
        asked_test=config.test,
        test=in_proportion(config.test),
        settings=settings,
        train=tuple(in_proportion(setting.n_train) for setting in settings),
    )


def settings_of(study: Study) -> tuple[list[Setting], list[str]]:
    """The columns that the samples allow, and what is to be said of the sizes."""
    columns: list[Setting] = []
    reduced: list[str] = []
    notes: list[str] = []
    for action in study.actions:
        found = sizes_of(study, action)
        if found.reduced:
            reduced.append(found.reduced)
        for asked, n in zip(found.settings, found.train, strict=True):
            column = Setting(found, asked, n)
            if column.column in {other.column for other in columns}:
                missing = f"it would be n = {n} again"
            else:
                missing = _shortage(study, found, n)
            if missing:
                notes.append(
                    f"skipped {title_of(action)} for n = {asked.n_train}: {missing}"
                )
            else:
                columns.append(column)
    if reduced:
        notes.insert(
            0,
            "fewer samples than the paper's sizes need, so all sizes of an action are "
            f"reduced in proportion: {'; '.join(reduced)}",
        )
    return columns, notes


def draw(study: Study, sizes: Sizes, seed: int) -> Draw:
    """Draw an action's samples with one seed."""
    generator = np.random.default_rng([seed, zlib.crc32(sizes.action.encode())])
    order = generator.permutation(study.listed_rows(sizes.action))
    return Draw(sizes.action, order, sizes.test)


def label_deviation(study: Study, drawn: Draw, n: int) -> float:
    """Deviation of the labels of the `n` training samples, and of no others."""
    rows = drawn.train_rows(n)
    if len(rows) < 2:
        raise AqaError(f"{drawn.action}: {len(rows)} training samples, 2 are needed")
    return deviations(study.features, rows)[drawn.action]


def scaled_labels(study: Study, drawn: Draw, n: int) -> Floats:
    """Labels of the training samples over their own deviation (n,)."""
    score = study.features.score[drawn.train_rows(n)]
    return np.asarray(score / label_deviation(study, drawn, n))


def _shortage(study: Study, sizes: Sizes, n: int) -> str:
    """Why training on `n` samples cannot be had; empty where it can."""
    if sizes.test < LEAST_TEST:
        return f"{sizes.test} test samples, at least {LEAST_TEST} are needed"
    try:
        for seed in range(study.config.seeds):
            label_deviation(study, draw(study, sizes, seed), n)
    except AqaError as error:
        return str(error)
    return ""


def _settings(
    config: FineTuneConfig, action: str, available: int
) -> tuple[FineTuneSetting, ...]:
    """Those for many samples where the full data set has enough of this action."""
    full = BY_NAME[action].samples if action in BY_NAME else available
    needed = config.test + max(setting.n_train for setting in config.settings)
    return config.settings if full >= needed else config.few


NAME = "fine-tune"
STARTS = ("multi-action", "random")
ROWS = {
    "multi-action": "heads fine-tuned from multi-action",
    "random": "heads trained from scratch",
}


def tasks(study: Study) -> list[HeadTask]:
    """Every head that the table needs, the pre-trained ones included."""
    if len(study.actions) < 2:
        raise AqaError(
            f"{NAME}: a new action needs another to pre-train on; this cache can "
            f"judge {study.actions[0]} only"
        )
    settings, notes = settings_of(study)
    if not settings:
        raise AqaError(f"{NAME}: too few samples ({'; '.join(notes)})")
    return unique(
        _head(study, setting, start, seed)
        for setting in settings
        for start in STARTS
        for seed in range(study.config.seeds)
    )


def evaluate(study: Study, heads: Heads) -> Result:
    """Follow every head's rho over its iterations and judge it at the last."""
    settings, notes = settings_of(study)
    drawn = drawn_seeds(study)
    rows: list[dict[str, Any]] = []
    cells: dict[str, dict[str, Cell]] = {start: {} for start in STARTS}
    for setting in settings:
        for start in STARTS:
            cell, curve = _judged(study, heads, setting, start)
            cells[start][setting.column] = cell
            rows.append(_row(study, setting, start, cell, curve))
    claim = describe_claim(
        "fine-tuned from multi-action",
        "trained from scratch",
        {
            column: (cells["multi-action"][column], cells["random"][column])
            for column in cells["random"]
        },
        drawn,
    )
    averages = {
        start: {
            **_averages([row for row in rows if row["init"] == start]),
            "last_over_samples": describe_average(list(cells[start].values()), drawn),
        }
        for start in STARTS
    }
    opened = opening(study, NAME)
    report = {
        **opened,
        "notes": [*opened["notes"], *notes],
        "rows": rows,
        "averages": averages,
        "claims": [claim],
        "findings": [claim["words"], *_findings(rows, averages)],
        "paper": _printed(study, settings),
    }
    return Result(report, cells, study.features.key)


def _head(study: Study, setting: Setting, start: str, seed: int) -> HeadTask:
    config = study.config
    asked = setting.asked
    schedule = replace(config.schedule, iterations=asked.iterations, step=asked.step)
    drawn = draw(study, setting.sizes, seed)
    pretrained = all_but(study, setting.action, seed)
    return HeadTask(
        name=f"{setting.column} from {start}, seed {seed}",
        rows=as_rows(drawn.train_rows(setting.n_train)),
        targets=tuple(scaled_labels(study, drawn, setting.n_train).tolist()),
        seed=seed,
        schedule=schedule.scaled(config.scale),
        init=pretrained if start == "multi-action" else None,
        watch=as_rows(drawn.test_rows),
        watch_every=max(1, round(config.fine_tune.every * config.scale)),
        keep_parameters=False,
    )


@dataclass(frozen=True, eq=False)
class Curve:
    """rho (seeds, evaluations) beside the iterations it was taken at."""

    iterations: tuple[int, ...]
    rho: Floats


def _judged(
    study: Study, heads: Heads, setting: Setting, start: str
) -> tuple[Cell, Curve]:
    tests, last, curves = [], [], []
    for seed in range(study.config.seeds):
        drawn = draw(study, setting.sizes, seed)
        head = heads[_head(study, setting, start, seed)]
        test = study.held_out(setting.action, drawn.test_rows)
        deviation = label_deviation(study, drawn, setting.n_train)
        watched = np.asarray(head.watched, np.float64) * deviation
        tests.append(test)
        last.append(watched[-1])
        curves.append([spearman(test.truth, guess) for guess in watched])
    return judge(tests, last), Curve(head.iterations, np.array(curves))


def _row(
    study: Study, setting: Setting, start: str, cell: Cell, curve: Curve
) -> dict[str, Any]:
    best = [_best(rhos) for rhos in curve.rho]
    at = [curve.iterations[place] if place >= 0 else None for place, _ in best]
    described = describe(cell)
    del described["matched"]
    return {
        "action": setting.action,
        "n_train": setting.n_train,
        "asked_n_train": setting.asked.n_train,
        "init": start,
        "iterations": curve.iterations[-1],
        "curve": [
            [iteration, rho]
            for iteration, rho in zip(
                curve.iterations, defined_mean(curve.rho).tolist(), strict=True
            )
        ],
        "curve_per_seed": curve.rho.tolist(),
        "best": float(defined_mean([rho for _, rho in best])),
        "best_per_seed": [rho for _, rho in best],
        "best_iteration": at,
        "last": described.pop("mean"),
        "last_per_seed": described.pop("spearman"),
        **described,
    }


def _best(rhos: Floats) -> tuple[int, float]:
    """Place and value of the highest defined rho; (-1, nan) where none is."""
    if np.isnan(rhos).all():
        return -1, float("nan")
    place = int(np.nanargmax(rhos))
    return place, float(rhos[place])


def _averages(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Averages over all columns, before the first iteration, at the last, at best."""
    rho = {
        "start": [[curve[0] for curve in row["curve_per_seed"]] for row in rows],
        "last": [row["last_per_seed"] for row in rows],
        "best": [row["best_per_seed"] for row in rows],
    }  # each (columns, seeds)
    return {
        moment: {
            name: float(defined_mean(average(np.array(values))))
            for name, average in AVERAGES.items()
        }
        for moment, values in rho.items()
    }


def _findings(
    rows: Sequence[Mapping[str, Any]], averages: Mapping[str, Any]
) -> list[str]:
    """What may be noise, where the starts begin, how often the first ends higher."""
    tuned, scratch = ([row for row in rows if row["init"] == start] for start in STARTS)
    won = {
        moment: sum(a[moment] > b[moment] for a, b in zip(tuned, scratch, strict=True))
        for moment in ("last", "best")
    }
    begin = [in_words(averages[start]["start"]["fisher_z"]) for start in STARTS]
    unsure = [
        ROWS[start]
        for start in STARTS
        if covers_zero(averages[start]["last_over_samples"]["ci95"]["fisher_z"])
    ]
    noise = [
        f"At the last iteration the average's interval covers zero for "
        f"{' and '.join(unsure)}: nothing here tells that from a ranking at random."
    ]
    return [
        *(noise if unsure else ()),
        f"Before the first iteration rho is {begin[0]} on average for the multi-action "
        f"head and {begin[1]} for random weights (Fisher z).",
        f"Fine-tuning ends above training from scratch in {won['last']} of "
        f"{len(tuned)} settings at the last iteration, and in {won['best']} when each "
        "takes its best iteration, chosen on the test samples as in the paper.",
    ]


def _printed(study: Study, settings: Sequence[Setting]) -> dict[str, Any] | None:
    if not study.released:
        return None
    return {
        "source": SOURCE.format(4),
        "selection": "best over all evaluated iterations, chosen on the test samples",
        "rows": [
            {
                "action": setting.action,
                "n_train": setting.n_train,
                "init": start,
                "best": TABLE_4[start][setting.action][
                    setting.sizes.settings.index(setting.asked)
                ],
            }
            for setting in settings
            for start in STARTS
            if study.whole or start not in OF_MANY
        ],
    }
