"""Who trains and who tests when an action is fine-tuned on few samples.

Conventions: samples are drawn by seed from an action's training and test lists
together. The first of the drawn order test, the same ones for every training size;
the next n train, so that a smaller training set lies inside a larger one. An action
with too few samples for the paper's sizes gets sizes in the same proportion.
"""

import zlib
from dataclasses import dataclass

import numpy as np

from aqa.cache.actions import BY_NAME
from aqa.cache.errors import AqaError
from aqa.regress.config import FineTuneConfig, FineTuneSetting
from aqa.regress.data import Rows, deviations
from aqa.regress.metrics import Floats
from aqa.regress.study import LEAST_TEST, Study, title_of


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
