"""What an experiment hands over: the typed report behind report.json, and its cells.

Conventions: the fields of these classes, and of those in `describe`, are the keys of
report.json. nan stands for "undefined" and becomes null in JSON (`to_json`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib.metadata import version
from typing import Any

from numpy.typing import NDArray

from aqa import __version__
from aqa.regress.config import Schedule, unlike_paper
from aqa.regress.evaluation.bootstrap import AVERAGES, Interval
from aqa.regress.evaluation.metrics import largest_rho
from aqa.regress.experiments.describe import (
    OPTIONAL,
    Average,
    ByKind,
    CellNumbers,
    Cells,
    Comparison,
    Metrics,
)
from aqa.regress.experiments.paper import PrintedTable, about_lists
from aqa.regress.experiments.study import Study, title_of

#: Below this many test samples a column is marked: its rho varies widely.
FEW_TESTS = 10


@dataclass(frozen=True)
class Pooled:
    """rho over the test samples of all actions together, per seed."""

    spearman: list[float]
    mean: float


@dataclass(frozen=True)
class Row:
    """One row of a table whose columns are actions.

    `features` names the cache's features, `copies` how many copies of a video are
    averaged, `choices` what SVRs chose by action and seed.
    """

    name: str
    mode: str
    head: str
    per_action: Mapping[str, CellNumbers]
    average: Average
    features: str | None = field(default=None, metadata=OPTIONAL)
    copies: int | None = field(default=None, metadata=OPTIONAL)
    choices: Mapping[str, list[dict[str, Any]]] | None = field(
        default=None, metadata=OPTIONAL
    )
    pooled: Pooled | None = field(default=None, metadata=OPTIONAL)

    def values(self) -> dict[str, tuple[float, Interval, float]]:
        """Return value, interval, standard deviation by action, then by average."""
        found = {
            action: (cell.mean, cell.ci95, cell.sd)
            for action, cell in self.per_action.items()
        }
        for kind in AVERAGES:
            average = self.average
            found[kind] = average.of(kind), average.ci95[kind], average.sd[kind]
        return found

    def matched(self, column: str) -> bool:
        """Return whether the head was trained on the action that a column judges."""
        cell = self.per_action.get(column)
        return cell is not None and cell.matched


def column_of(action: str, n_train: int) -> str:
    """Return the name of a column of Table 4."""
    return f"{action} n={n_train}"


@dataclass(frozen=True, kw_only=True)
class FineTuneRow(Metrics):
    """One action, training size and start; its metrics are those after the end.

    `curve` is [[iteration, mean rho], ...]; `best` is the highest rho of each seed's
    curve, chosen on the test samples; `last` that after the last iteration.
    """

    action: str
    n_train: int
    asked_n_train: int
    init: str
    iterations: int
    curve: list[tuple[int, float]]
    curve_per_seed: list[list[float]]
    best: float
    best_per_seed: list[float]
    best_iteration: list[int | None]
    last: float
    last_per_seed: list[float]

    @property
    def column(self) -> str:
        """The column of Table 4, as other files name it."""
        return column_of(self.action, self.n_train)


@dataclass(frozen=True)
class StartAverages:
    """Averages over all fine-tuning settings: before, after, and at best."""

    start: ByKind
    last: ByKind
    best: ByKind
    last_over_samples: Average


@dataclass(frozen=True)
class PrintedSetting:
    """A cell of the paper's Table 4."""

    action: str
    n_train: int
    init: str
    best: float


@dataclass(frozen=True)
class PrintedSettings:
    """The paper's Table 4."""

    source: str
    selection: str
    rows: list[PrintedSetting]


@dataclass(frozen=True)
class Opening:
    """What every report says before its rows (see `opening`).

    `samples`: training and test samples by action; in a cross-validation the mean to
    train and all that are tested.
    """

    experiment: str
    created_with: dict[str, str]
    provenance: dict[str, Any]
    samples: dict[str, dict[str, int]]
    seeds: list[int]
    settings: dict[str, Any]
    floor: dict[str, float]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Report(Opening):
    """report.json of an experiment whose table has actions for columns.

    `also` holds the provenance of further caches by their label.
    """

    rows: list[Row]
    claims: list[Comparison]
    findings: list[str]
    paper: PrintedTable | None
    also: dict[str, dict[str, Any]] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class FineTuneReport(Opening):
    """report.json of fine-tuning: rows by action, training size and start."""

    rows: list[FineTuneRow]
    averages: dict[str, StartAverages]
    claims: list[Comparison]
    findings: list[str]
    paper: PrintedSettings | None


AnyReport = Report | FineTuneReport


@dataclass(frozen=True, eq=False)
class Result:
    """One finished experiment.

    `keys` (N,) name the samples that the cells' rows index; `title`, `question` and
    `table` (its id and title) head the report's section; `pictures` are names in
    `report.figures.PICTURES`.
    """

    report: AnyReport
    cells: Cells
    keys: NDArray[Any]
    title: str
    question: str
    table: tuple[str, str]
    pictures: tuple[str, ...] = ("dots",)


def opening(
    study: Study,
    experiment: str,
    notes: Sequence[str] = (),
    others: Sequence[Study] = (),
) -> dict[str, Any]:
    """Return the fields of `Opening`.

    `notes` follow those on the study; `others` are further studies behind the rows.
    """
    config = study.config
    schedule = config.schedule.scaled(config.scale)
    split = [] if study.fixed else [f"split: {study.split.words}"]
    scales = {fold.name: dict(fold.scale.scale) for fold in study.folds}
    return {
        "experiment": experiment,
        "created_with": {
            "aqa": __version__,
            **{name: version(name) for name in ("numpy", "torch", "scikit-learn")},
        },
        "provenance": dict(study.features.provenance.record),
        "samples": {action: _counts(study, action) for action in study.actions},
        "seeds": list(study.seeds),
        "settings": {
            "schedule": asdict(schedule),
            "paper_length": schedule == Schedule(),
            "lstm": asdict(config.lstm),
            "svr": asdict(config.svr),
            "label_scale": config.label_scale,
            "label_deviations": scales[""] if study.fixed else scales,
            "loss": config.loss,
            "standardise": config.standardises(study.kind),
            "split": study.split.words,
            "differs_from_paper": [*split, *unlike_paper(config, study.kind)],
            "bootstrap": {"resamples": config.bootstrap, "seed": config.bootstrap_seed},
        },
        "floor": {"pooled_action_mean": study.floor},
        "notes": [*study.notes, *_notes(study), *_about_poses(study, *others), *notes],
    }


def _counts(study: Study, action: str) -> dict[str, int]:
    """Return training and test samples; in a cross-validation, the mean to train."""
    train = sum(len(fold.train_rows([action])) for fold in study.folds)
    return {
        "train": round(train / len(study.folds)),
        "test": sum(len(fold.test_rows(action)) for fold in study.folds),
    }


def _notes(study: Study) -> list[str]:
    """Say how length, split, seeds and samples limit what the numbers mean."""
    config = study.config
    notes = []
    asked = config.schedule.scaled(config.scale).iterations
    if asked != Schedule().iterations:
        alike = (
            "" if config.scale == 1 else ", and every other schedule is scaled alike"
        )
        notes.append(
            f"not the paper's length: heads train for {asked:,} iterations where the "
            f"paper trains for {Schedule().iterations:,}{alike}"
        )
    if not study.fixed:
        meaning = (
            "intervals resample whole groups: they speak of other groups like these"
            if study.split.groups is not None
            else "intervals resample samples, and take the folds' models as given"
        )
        notes.append(
            f"{study.split.words}: each sample is predicted once, by heads that saw "
            f"nothing of its fold, and all predictions are ranked together, the heads "
            f"aligned at one mean over the same samples; {meaning}"
        )
    if config.seeds == 1:
        notes.append(
            "one seed: intervals cover test samples only, not what another seed would "
            "give; --seeds N repeats everything with N of them"
        )
    notes += about_lists(study)
    few = [
        f"{title_of(action)} (n = {test.n}: 1 counts as {largest_rho(test.n):.3f})"
        for action, test in study.tests.items()
        if test.n < FEW_TESTS
    ]
    if few:
        notes.append(
            f"few test samples, so rho varies widely and a perfect ranking is limited "
            f"in Fisher's z: {', '.join(few)}"
        )
    return notes


def _about_poses(*studies: Study) -> list[str]:
    """Say which protocol rows of poses follow, where there are any."""
    if not any(study.kind.startswith("pose-") for study in studies):
        return []
    return [
        "rows of pose features follow the split and the metric of all other rows, not "
        "the protocol of Pirsiavash et al. (2014), the mean rho over random splits"
    ]


def to_json(value: Any) -> Any:
    """Return a report as JSON takes it: None for every number that is not finite."""
    if is_dataclass(value):
        found = {each: getattr(value, each.name) for each in fields(value)}
        return {
            each.name: to_json(item)
            for each, item in found.items()
            if not (item is None and each.metadata.get("optional"))
        }
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
