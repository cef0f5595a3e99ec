"""What an experiment hands over: the typed report behind report.json, and its cells.

Conventions: the fields of these classes are the keys of report.json. nan stands for
"undefined" and becomes null in JSON (`to_json`); fields marked `OPTIONAL` are left out
where they are None. Lists "one per seed" are in the order of the seeds. Averages over
actions come in two kinds, "fisher_z" and "arithmetic" (see `bootstrap.AVERAGES`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from numpy.typing import NDArray

from aqa.regress.evaluation.bootstrap import Cell, Interval
from aqa.regress.experiments.paper import PrintedRow

OPTIONAL = {"optional": True}
ByKind = Mapping[str, float]


@dataclass(frozen=True)
class FoldNumbers:
    """A cell within one fold: rho per seed, its mean, and the samples tested."""

    spearman: list[float]
    mean: float
    n_test: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Numbers of predictions over seeds.

    `sd` is the standard deviation of rho over seeds, the interval that of its mean;
    `kendall` and `rl2_x100` (times 100) are per seed, beside their means; `undefined`
    counts seeds without a rho. In a cross-validation all this is over all folds'
    predictions together, each sample predicted once, and `per_fold` within each fold.
    """

    sd: float
    ci95: Interval
    n_test: int
    undefined: int
    kendall: list[float]
    kendall_mean: float
    rl2_x100: list[float]
    rl2_x100_mean: float
    per_fold: dict[str, FoldNumbers] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class CellNumbers(Metrics):
    """One row on one action: rho per seed and its mean."""

    spearman: list[float]
    mean: float
    matched: bool


@dataclass(frozen=True)
class Average:
    """The averages of a row over `actions` actions, formed per seed, then averaged."""

    fisher_z: float
    arithmetic: float
    sd: ByKind
    ci95: Mapping[str, Interval]
    per_seed: Mapping[str, list[float]]
    actions: int
    undefined: int

    def of(self, kind: str) -> float:
        """Return the average of a kind."""
        return self.fisher_z if kind == "fisher_z" else self.arithmetic


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


@dataclass(frozen=True)
class Difference:
    """Better minus other in rho, its interval, and the share of resamples above 0."""

    difference: float
    ci95: Interval
    probability: float


@dataclass(frozen=True)
class Comparison:
    """Two rows compared on the same resamples of test samples, `words` the outcome."""

    better: str
    other: str
    per_column: Mapping[str, Difference]
    average: Mapping[str, Difference]
    words: str


@dataclass(frozen=True)
class StartAverages:
    """Averages over all fine-tuning settings: before, after, and at best."""

    start: ByKind
    last: ByKind
    best: ByKind
    last_over_samples: Average


@dataclass(frozen=True)
class PrintedTable:
    """The paper's Table 2 or 3, by the corresponding row of ours."""

    source: str
    rows: Mapping[str, PrintedRow]


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
    """What every report says before its rows.

    `samples`: training and test samples by action; in a cross-validation all train
    and all test, and `splits` counts them by fold.
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
#: By row, then by column.
Cells = Mapping[str, Mapping[str, Cell]]


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


def to_json(value: Any) -> Any:
    """Return a report as JSON takes it: None for every number that is not finite."""
    if is_dataclass(value):
        found = {each.name: (getattr(value, each.name), each) for each in fields(value)}
        return {
            name: to_json(item)
            for name, (item, each) in found.items()
            if not (item is None and each.metadata.get("optional"))
        }
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
