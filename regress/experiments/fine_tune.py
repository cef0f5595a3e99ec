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

import numpy as np

from aqa.cache.actions import BY_NAME
from aqa.cache.errors import AqaError, counted
from aqa.regress.config import FineTuneSetting
from aqa.regress.data import LEAST_TEST, LabelScale, Rows
from aqa.regress.evaluation.bootstrap import (
    AVERAGES,
    Cell,
    HeldOut,
    average,
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
    Metrics,
    compare_rows,
    describe,
    describe_average,
    in_words,
)
from aqa.regress.experiments.paper import OF_MANY, SOURCE, TABLE_4, released, whole
from aqa.regress.experiments.result import (
    FineTuneReport,
    FineTuneRow,
    PrintedSetting,
    PrintedSettings,
    Result,
    StartAverages,
    column_of,
    opening,
)
from aqa.regress.experiments.rows import (
    Needs,
    Trained,
    all_but,
    near_random,
    task_of,
)
from aqa.regress.experiments.study import ScaledFold, Study, title_of
from aqa.regress.heads.tasks import HeadTask, action_groups

NAME = "fine-tune"
TUNED, SCRATCH = "multi-action", "random"
#: The starts of a head, and what the heads are called in sentences.
STARTS = {TUNED: "fine-tuned from multi-action", SCRATCH: "trained from scratch"}


@dataclass(frozen=True)
class Column:
    """One column of the table: an action, its training and its test samples.

    `asked` is the setting that `n_train` stands for, `size` its place among the small,
    the middle and the large one.
    """

    action: str
    asked: FineTuneSetting
    size: int
    n_train: int
    n_test: int

    @property
    def name(self) -> str:
        """The column's name."""
        return column_of(self.action, self.n_train)


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
    cells: dict[str, dict[str, Cell]] = {start: {} for start in STARTS}
    curves = {}
    for column in columns:
        for start in STARTS:
            cell, curves[column, start] = _judged(study, trained, column, start)
            cells[start][column.name] = cell
    rows = [
        _row(study, trained, column, start, cells[start], rho)
        for (column, start), rho in curves.items()
    ]
    pair = {words: cells[start] for start, words in STARTS.items()}
    compared = compare_rows(STARTS[TUNED], STARTS[SCRATCH], pair, study.draws)
    averages = {
        start: StartAverages(
            **_averages([row for row in rows if row.init == start]),
            last_over_samples=describe_average(list(own.values()), study.draws),
        )
        for start, own in cells.items()
    }
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


def columns_of(study: Study) -> tuple[list[Column], list[str]]:
    """Return the columns that the samples allow, and notes on the sizes."""
    columns: dict[str, Column] = {}
    reduced, skipped = [], []
    for action in study.actions:
        sizes = _sizes(study, action)
        if any(column.n_train < column.asked.n_train for column in sizes):
            train = ", ".join(str(column.n_train) for column in sizes)
            tests = sizes[0].n_test
            reduced.append(f"{title_of(action)} tests on {tests} and trains on {train}")
        for column in sizes:
            if column.name in columns:
                missing = f"it would be n = {column.n_train} again"
            else:
                missing = _shortage(study, column)
            if missing:
                asked = column.asked.n_train
                skipped.append(f"skipped {title_of(action)} for n = {asked}: {missing}")
            else:
                columns[column.name] = column
    notes = [
        "fewer samples than the paper's sizes need, so all sizes of an action are "
        f"reduced in proportion: {'; '.join(reduced)}"
    ]
    return list(columns.values()), [*(notes if reduced else ()), *skipped]


def _sizes(study: Study, action: str) -> list[Column]:
    """Return an action's columns, in proportion where it has too few samples."""
    config = study.config.fine_tune
    available = len(study.listed_rows(action))
    # Those for many samples where the full data set has enough of the action.
    full = BY_NAME[action].samples if action in BY_NAME else available
    needed = config.test + max(setting.n_train for setting in config.settings)
    settings = config.settings if full >= needed else config.few
    wanted = max(setting.n_train for setting in settings)
    if study.fixed:
        wanted += config.test
    else:
        available = min(len(fold.train_rows([action])) for fold in study.folds)

    def in_proportion(count: int) -> int:
        return min(count, count * available // wanted)

    tests = in_proportion(config.test) if study.fixed else study.tests[action].n
    return [
        Column(action, asked, size, in_proportion(asked.n_train), tests)
        for size, asked in enumerate(settings)
    ]


def _shortage(study: Study, column: Column) -> str:
    """Say why a column is impossible; empty where it is not."""
    if column.n_test < LEAST_TEST:
        return f"{column.n_test} test samples, at least {LEAST_TEST} are needed"
    if column.n_train < 2:
        return f"{counted(column.n_train, 'training sample')}, 2 are needed"
    try:
        for fold in study.folds:
            for seed in study.seeds:
                scale_of(study, draw(study, column, fold, seed)[0])
    except AqaError as error:
        return str(error)
    return ""


def draw(
    study: Study, column: Column, fold: ScaledFold, seed: int
) -> tuple[Rows, Rows]:
    """Draw a column's training and test rows with one seed."""
    action = column.action
    code = zlib.crc32(action.encode())
    if study.fixed:
        generator = np.random.default_rng([seed, code])
        order = generator.permutation(study.listed_rows(action))
        tests, order = order[: column.n_test], order[column.n_test :]
    else:
        generator = np.random.default_rng([seed, code, study.folds.index(fold) + 1])
        order = generator.permutation(fold.train_rows([action]))
        tests = fold.test_rows(action)
    return order[: column.n_train], tests


def scale_of(study: Study, rows: Rows) -> LabelScale:
    """Return the label scale of training rows, and of no others."""
    return LabelScale.learn(study.features, rows, study.config.label_scale)


def head_task(
    study: Study, column: Column, start: str, fold: ScaledFold, seed: int
) -> HeadTask:
    """Return the task of one head, which watches its test samples."""
    config, asked = study.config, column.asked
    rows, tests = draw(study, column, fold, seed)
    watched = tests if study.fixed else study.tests[column.action].rows
    scores = study.features.score[rows]
    targets = scale_of(study, rows).to_scaled(scores, column.action)
    schedule = replace(config.schedule, iterations=asked.iterations, step=asked.step)
    others = all_but(study, column.action)
    pretrained: HeadTask = task_of(study, fold, "lstm", others, seed)
    return replace(
        pretrained,
        name=f"{column.name} from {start}, {fold.name or 'seed'} {seed}",
        rows=tuple(rows.tolist()),
        targets=tuple(targets.tolist()),
        groups=action_groups(study.features, rows, config.loss),
        schedule=schedule.scaled(config.scale),
        init=pretrained if start == TUNED else None,
        watch=tuple(watched.tolist()),
        watch_every=max(1, round(config.fine_tune.every * config.scale)),
        keep_parameters=False,
    )


def _judged(
    study: Study, trained: Trained, column: Column, start: str
) -> tuple[Cell, Floats]:
    """Return a cell, and rho over the iterations (seeds, evaluations)."""
    seeds = [_watched(study, trained, column, start, seed) for seed in study.seeds]
    curves = [
        [spearman(test.truth, each) for each in aligned] for test, _, aligned in seeds
    ]
    cell = judge(
        [test for test, *_ in seeds],
        [predicted[-1] for _, predicted, _ in seeds],
        [aligned[-1] for *_, aligned in seeds],
        parts=study.fold_of(column.action),
    )
    return cell, np.array(curves)


def _watched(
    study: Study, trained: Trained, column: Column, start: str, seed: int
) -> tuple[HeldOut, Floats, Floats]:
    """Return test samples, their predictions (evaluations, n), and aligned ones."""

    def predict(fold: ScaledFold) -> Floats:
        head = trained.of(study, head_task(study, column, start, fold, seed))
        train, _ = draw(study, column, fold, seed)
        return scale_of(study, train).to_units(head.watched, column.action)

    if not study.fixed:
        return study.tests[column.action], *study.over_folds(column.action, predict)
    [fold] = study.folds
    _, tests = draw(study, column, fold, seed)
    predicted = predict(fold)
    return study.held_out(column.action, tests), predicted, predicted


def _row(
    study: Study,
    trained: Trained,
    column: Column,
    start: str,
    cells: Mapping[str, Cell],
    curves: Floats,
) -> FineTuneRow:
    fold = study.testing(column.action)[0]
    task = head_task(study, column, start, fold, study.seeds[0])
    iterations = trained.of(study, task).iterations
    numbers = describe(cells[column.name], study.draws, list(cells.values()))
    # (seeds,) the highest defined rho, and after how many iterations; nan, None: none
    best = np.fmax.reduce(curves, axis=1)
    places = [
        np.flatnonzero(rho == high) for rho, high in zip(curves, best, strict=True)
    ]
    return FineTuneRow(
        action=column.action,
        n_train=column.n_train,
        asked_n_train=column.asked.n_train,
        init=start,
        iterations=iterations[-1],
        curve=list(zip(iterations, defined_mean(curves).tolist(), strict=True)),
        curve_per_seed=curves.tolist(),
        best=arithmetic_mean(best),
        best_per_seed=best.tolist(),
        best_iteration=[iterations[at[0]] if len(at) else None for at in places],
        last=numbers.mean,
        last_per_seed=numbers.spearman,
        **{each.name: getattr(numbers, each.name) for each in fields(Metrics)},
    )


def _averages(rows: Sequence[FineTuneRow]) -> dict[str, dict[str, float]]:
    """Average the settings of a start before the first iteration, at last, at best."""
    sizes = np.array([[row.n_test] for row in rows])
    found = {
        "start": [[curve[0] for curve in row.curve_per_seed] for row in rows],
        "last": [row.last_per_seed for row in rows],
        "best": [row.best_per_seed for row in rows],
    }
    z = {moment: fisher_z(rho, sizes) for moment, rho in found.items()}
    return {
        moment: {kind: arithmetic_mean(average(kind, each)) for kind in AVERAGES}
        for moment, each in z.items()  # (columns, seeds)
    }


def _findings(
    rows: Sequence[FineTuneRow], averages: Mapping[str, StartAverages]
) -> list[str]:
    """Say what may be noise, where the starts begin, how often the first wins."""
    sides = ([row for row in rows if row.init == start] for start in STARTS)
    pairs = list(zip(*sides, strict=True))
    last = sum(tuned.last > scratch.last for tuned, scratch in pairs)
    best = sum(tuned.best > scratch.best for tuned, scratch in pairs)
    begin = [in_words(averages[start].start["fisher_z"]) for start in STARTS]
    ends = {
        f"heads {words} (last iteration)": averages[start].last_over_samples
        for start, words in STARTS.items()
    }
    return [
        *near_random(ends),
        f"Before the first iteration rho is {begin[0]} on average for the multi-action "
        f"head and {begin[1]} for random weights (Fisher z).",
        f"Fine-tuning ends above training from scratch in {last} of {len(pairs)} "
        f"settings at the last iteration, and in {best} when each takes its best "
        "iteration, chosen on the test samples as in the paper.",
    ]


def _printed(study: Study, columns: Sequence[Column]) -> PrintedSettings | None:
    if not released(study):
        return None
    starts = [start for start in STARTS if whole(study) or start not in OF_MANY]
    return PrintedSettings(
        source=SOURCE.format(4),
        selection="best over all evaluated iterations, chosen on the test samples",
        rows=[
            PrintedSetting(each.action, each.n_train, start, rhos[each.size])
            for each in columns
            for start in starts
            for rhos in [TABLE_4[start][each.action]]
        ],
    )
