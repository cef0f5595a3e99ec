"""Fine-tuning on few samples of a new action (Table 4 and Figure 3 of the paper).

Conventions: for every action, training size and start (`multi-action`: the head trained
on all other actions; `random`: Gaussian weights) all weights of the head are trained,
rho on the test samples taken before the first iteration, every so often (`curve`) and
after the last. `best` is the highest rho of a curve, so it is chosen on the test
samples, as in the paper; `last` is unbiased, and every interval and comparison is about
it. Labels are scaled by the n training samples.

Samples, with a fixed split: drawn by seed from an action's training and test lists
together, as the paper does; the first ones test, the same for every size, and the next
n train, so that a smaller training set lies inside a larger one. The pre-trained heads
never see the action. In a cross-validation the fold's samples test, and the n are drawn
from its training list. An action with too few samples gets smaller sizes in proportion.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np

from aqa.cache.actions import BY_NAME
from aqa.cache.errors import AqaError, counted
from aqa.regress.config import FineTuneConfig, FineTuneSetting
from aqa.regress.data import LEAST_TEST, LabelScale, Rows
from aqa.regress.evaluation.bootstrap import (
    AVERAGES,
    Cell,
    average,
    covers_zero,
    judge,
)
from aqa.regress.evaluation.metrics import (
    Floats,
    arithmetic_mean,
    defined_mean,
    fisher_z,
    spearman,
)
from aqa.regress.experiments.describe import (
    compare_rows,
    describe,
    describe_average,
    in_words,
    opening,
)
from aqa.regress.experiments.paper import OF_MANY, SOURCE, TABLE_4
from aqa.regress.experiments.result import (
    CellNumbers,
    Cells,
    FineTuneReport,
    FineTuneRow,
    Metrics,
    PrintedSetting,
    PrintedSettings,
    Result,
    StartAverages,
)
from aqa.regress.experiments.rows import (
    Needs,
    Trained,
    all_but,
    as_rows,
    trained_on,
)
from aqa.regress.experiments.study import Fold, Study, title_of
from aqa.regress.heads.tasks import HeadTask

NAME = "fine-tune"
TUNED, SCRATCH = "multi-action", "random"
STARTS = (TUNED, SCRATCH)
ROWS = {
    TUNED: "heads fine-tuned from multi-action",
    SCRATCH: "heads trained from scratch",
}


def needs(studies: Sequence[Study]) -> Needs:
    """Yield every head that the table needs, the pre-trained ones included."""
    study = studies[0]
    if len(study.actions) < 2:
        raise AqaError(
            f"{NAME}: a new action needs another to pre-train on; this cache can "
            f"judge {study.actions[0]} only"
        )
    columns, notes = columns_of(study)
    if not columns:
        raise AqaError(f"{NAME}: too few samples ({'; '.join(notes)})")
    for column in columns:
        for start in STARTS:
            for fold in study.testing(column.action):
                for seed in study.seeds:
                    yield study, head_task(study, column, start, fold, seed)


def evaluate(studies: Sequence[Study], trained: Trained) -> Result:
    """Follow every head's rho over its iterations and judge it at the last."""
    study = studies[0]
    columns, notes = columns_of(study)
    judged = {
        (column, start): _judged(study, trained, column, start)
        for column in columns
        for start in STARTS
    }
    cells = {
        start: {column.name: judged[column, start][0] for column in columns}
        for start in STARTS
    }
    rows = []
    for (column, start), (cell, iterations, curves) in judged.items():
        numbers = describe(cell, study.draws, list(cells[start].values()))
        rows.append(_row(column, start, numbers, iterations, curves))
    tuned, scratch = "fine-tuned from multi-action", "trained from scratch"
    pair = {tuned: cells[TUNED], scratch: cells[SCRATCH]}
    compared = compare_rows(tuned, scratch, pair, study.draws)
    averages = {start: _averages(study, rows, cells, start) for start in STARTS}
    report = FineTuneReport(
        **opening(study, NAME, notes),
        rows=rows,
        averages=averages,
        claims=[compared],
        findings=[compared.words, *_findings(rows, averages)],
        paper=_printed(study, columns),
    )
    return Result(
        report,
        cells,
        study.features.key,
        title="Fine-tuning on a few samples",
        question=(
            "With few samples of a new action, is a head trained on the other actions "
            "a better start than random weights? (Table 4 and Figure 3 of the paper)"
        ),
        table=("table-4", "Fine-tuning on n samples of a new action"),
        pictures=("curves",),
    )


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
class Column:
    """One column of the table: an action and a training size that it allows."""

    sizes: Sizes
    asked: FineTuneSetting
    n_train: int

    @property
    def action(self) -> str:
        """The action that is fine-tuned on."""
        return self.sizes.action

    @property
    def name(self) -> str:
        """The column's name."""
        return f"{self.action} n={self.n_train}"


@dataclass(frozen=True, eq=False)
class Subset:
    """One seed's samples of an action: `test` rows, and the `order` to train in."""

    study: Study
    test: Rows
    order: Rows

    def train(self, n: int) -> Rows:
        """Return the first n rows to train on."""
        return self.order[:n]

    def scale(self, n: int) -> LabelScale:
        """Return the label scale of the first n training rows, and of no others."""
        rows, kind = self.train(n), self.study.config.label_scale
        if len(rows) < 2:
            raise AqaError(f"{counted(len(rows), 'training sample')}, 2 are needed")
        return LabelScale.learn(self.study.features, rows, kind)


def subset(study: Study, sizes: Sizes, fold: Fold, seed: int) -> Subset:
    """Draw an action's samples with one seed."""
    code = zlib.crc32(sizes.action.encode())
    if study.fixed:
        generator = np.random.default_rng([seed, code])
        order = generator.permutation(study.listed_rows(sizes.action))
        return Subset(study, order[: sizes.test], order[sizes.test :])
    number = study.folds.index(fold)
    generator = np.random.default_rng([seed, code, number + 1])
    order = generator.permutation(fold.train_rows([sizes.action]))
    return Subset(study, fold.test_rows(sizes.action), order)


def sizes_of(study: Study, action: str) -> Sizes:
    """Return the sizes of an action, in proportion where it has too few samples."""
    config = study.config.fine_tune
    listed = len(study.listed_rows(action))
    settings = _settings(config, action, listed)
    largest = max(setting.n_train for setting in settings)
    if study.fixed:
        available, wanted, test = listed, config.test + largest, config.test
    else:
        lists = [len(fold.train_rows([action])) for fold in study.folds]
        available, wanted, test = min(lists), largest, study.tests[action].n

    def in_proportion(count: int) -> int:
        return min(count, count * available // wanted)

    return Sizes(
        action=action,
        asked_test=test,
        test=in_proportion(test) if study.fixed else test,
        settings=settings,
        train=tuple(in_proportion(setting.n_train) for setting in settings),
    )


def columns_of(study: Study) -> tuple[list[Column], list[str]]:
    """Return the columns that the samples allow, and notes on the sizes."""
    columns: list[Column] = []
    reduced: list[str] = []
    notes: list[str] = []
    for action in study.actions:
        sizes = sizes_of(study, action)
        if sizes.reduced:
            reduced.append(sizes.reduced)
        for asked, n in zip(sizes.settings, sizes.train, strict=True):
            column = Column(sizes, asked, n)
            if column.name in {other.name for other in columns}:
                missing = f"it would be n = {n} again"
            else:
                missing = _shortage(study, sizes, n)
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


def _shortage(study: Study, sizes: Sizes, n: int) -> str:
    """Say why training on `n` samples is impossible; empty where it is not."""
    if sizes.test < LEAST_TEST:
        return f"{sizes.test} test samples, at least {LEAST_TEST} are needed"
    try:
        for fold in study.folds:
            for seed in study.seeds:
                subset(study, sizes, fold, seed).scale(n)
    except AqaError as error:
        return str(error)
    return ""


def _settings(
    config: FineTuneConfig, action: str, available: int
) -> tuple[FineTuneSetting, ...]:
    """Choose those for many samples where the full data set has enough of an action."""
    full = BY_NAME[action].samples if action in BY_NAME else available
    needed = config.test + max(setting.n_train for setting in config.settings)
    return config.settings if full >= needed else config.few


def head_task(
    study: Study, column: Column, start: str, fold: Fold, seed: int
) -> HeadTask:
    """Return the task of one head, which watches its test samples."""
    config = study.config
    asked = column.asked
    drawn = subset(study, column.sizes, fold, seed)
    rows = drawn.train(column.n_train)
    scores = study.features.score[rows]
    targets = drawn.scale(column.n_train).to_scaled(scores, column.action)
    schedule = replace(config.schedule, iterations=asked.iterations, step=asked.step)
    pretrained = trained_on(study, fold, all_but(study, column.action), seed)
    return replace(
        pretrained,
        name=f"{column.name} from {start}, {fold.name or 'seed'} {seed}",
        rows=as_rows(rows),
        targets=tuple(targets.tolist()),
        schedule=schedule.scaled(config.scale),
        init=pretrained if start == TUNED else None,
        watch=as_rows(drawn.test),
        watch_every=max(1, round(config.fine_tune.every * config.scale)),
        keep_parameters=False,
    )


def _judged(
    study: Study, trained: Trained, column: Column, start: str
) -> tuple[Cell, tuple[int, ...], Floats]:
    """Return a cell, the iterations of its curves, and rho (seeds, evaluations)."""
    tests, last, curves = [], [], []
    for seed in study.seeds:
        watched = partial(_watched, study, trained, column, start, seed)
        if study.fixed:
            [fold] = study.folds
            rows = subset(study, column.sizes, fold, seed).test
            test, predicted = study.held_out(column.action, rows), watched(fold, rows)
        else:
            test = study.tests[column.action]
            predicted = study.over_folds(column.action, watched)
        tests.append(test)
        last.append(predicted[-1])
        curves.append([spearman(test.truth, guess) for guess in predicted])
    cell = judge(tests, last, parts=study.fold_of(column.action))
    fold = study.testing(column.action)[0]
    task = head_task(study, column, start, fold, study.seeds[0])
    return cell, trained.head(study, task).iterations, np.array(curves)


def _watched(
    study: Study,
    trained: Trained,
    column: Column,
    start: str,
    seed: int,
    fold: Fold,
    _: Rows,
) -> Floats:
    """Return predictions of a fold's test rows (evaluations, n), in judges' units."""
    head = trained.head(study, head_task(study, column, start, fold, seed))
    scale = subset(study, column.sizes, fold, seed).scale(column.n_train)
    return scale.to_units(head.watched, column.action)


def _row(
    column: Column,
    start: str,
    numbers: CellNumbers,
    iterations: tuple[int, ...],
    curves: Floats,
) -> FineTuneRow:
    best = [_best(rhos) for rhos in curves]
    return FineTuneRow(
        action=column.action,
        n_train=column.n_train,
        asked_n_train=column.asked.n_train,
        init=start,
        iterations=iterations[-1],
        curve=list(zip(iterations, defined_mean(curves).tolist(), strict=True)),
        curve_per_seed=curves.tolist(),
        best=arithmetic_mean([rho for _, rho in best]),
        best_per_seed=[rho for _, rho in best],
        best_iteration=[iterations[at] if at >= 0 else None for at, _ in best],
        last=numbers.mean,
        last_per_seed=numbers.spearman,
        **{each.name: getattr(numbers, each.name) for each in fields(Metrics)},
    )


def _best(rhos: Floats) -> tuple[int, float]:
    """Return place and value of the highest defined rho; (-1, nan) where none is."""
    place = -1 if np.isnan(rhos).all() else int(np.nanargmax(rhos))
    return place, float(rhos[place])


def _averages(
    study: Study, rows: Sequence[FineTuneRow], cells: Cells, start: str
) -> StartAverages:
    """Average all settings of a start before the first iteration, at last, at best."""
    own = [row for row in rows if row.init == start]
    sizes = np.array([[row.n_test] for row in own])

    def averaged(rho: Sequence[Sequence[float]]) -> dict[str, float]:
        z = fisher_z(np.array(rho, np.float64), sizes)  # (columns, seeds)
        return {kind: arithmetic_mean(average(kind, z)) for kind in AVERAGES}

    return StartAverages(
        start=averaged([[curve[0] for curve in row.curve_per_seed] for row in own]),
        last=averaged([row.last_per_seed for row in own]),
        best=averaged([row.best_per_seed for row in own]),
        last_over_samples=describe_average(list(cells[start].values()), study.draws),
    )


def _findings(
    rows: Sequence[FineTuneRow], averages: Mapping[str, StartAverages]
) -> list[str]:
    """Say what may be noise, where the starts begin, how often the first wins."""
    sides = ([row for row in rows if row.init == start] for start in STARTS)
    pairs = list(zip(*sides, strict=True))
    last = sum(tuned.last > scratch.last for tuned, scratch in pairs)
    best = sum(tuned.best > scratch.best for tuned, scratch in pairs)
    begin = [in_words(averages[start].start["fisher_z"]) for start in STARTS]
    unsure = [
        ROWS[start]
        for start in STARTS
        if covers_zero(averages[start].last_over_samples.ci95["fisher_z"])
    ]
    noise = [
        f"At the last iteration the average's interval covers zero for "
        f"{' and '.join(unsure)}: not distinguishable from a random ranking."
    ]
    return [
        *(noise if unsure else ()),
        f"Before the first iteration rho is {begin[0]} on average for the multi-action "
        f"head and {begin[1]} for random weights (Fisher z).",
        f"Fine-tuning ends above training from scratch in {last} of {len(pairs)} "
        f"settings at the last iteration, and in {best} when each takes its best "
        "iteration, chosen on the test samples as in the paper.",
    ]


def _printed(study: Study, columns: Sequence[Column]) -> PrintedSettings | None:
    if not study.released:
        return None
    return PrintedSettings(
        source=SOURCE.format(4),
        selection="best over all evaluated iterations, chosen on the test samples",
        rows=[
            PrintedSetting(
                column.action,
                column.n_train,
                start,
                TABLE_4[start][column.action][
                    column.sizes.settings.index(column.asked)
                ],
            )
            for column in columns
            for start in STARTS
            if study.whole or start not in OF_MANY
        ],
    )
