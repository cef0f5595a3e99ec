"""From predictions to the numbers of a table.

Conventions: a cell is one row of a table on one action, with one prediction a test
sample and seed, in judges' units. `rho` is (seeds,), `resampled` (seeds, count), both
nan where undefined. An average over actions is formed for each seed and then averaged
over seeds; undefined values are left out of both and counted. Descriptions are plain
dicts for report.json.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa.regress import metrics
from aqa.regress.metrics import Floats, defined_mean
from aqa.regress.statistics import interval, over_seeds, standard_deviation
from aqa.regress.study import HeldOut

#: Averages over actions, along the first axis of an array of rho.
AVERAGES: dict[str, Callable[[Floats], Floats]] = {
    "fisher_z": lambda rho: np.tanh(defined_mean(metrics.fisher_z(rho))),
    "arithmetic": defined_mean,
}


@dataclass(frozen=True, eq=False)
class Cell:
    """One row of a table on one action: what each of its numbers comes from.

    `tests` and `predicted` hold one entry a seed; `matched` marks a model tested on
    the action that it was trained on where the others are not.
    """

    rows: tuple[NDArray[np.int64], ...]
    truth: tuple[Floats, ...]
    predicted: tuple[Floats, ...]
    rho: Floats
    resampled: Floats
    matched: bool = False


def judge(
    tests: Sequence[HeldOut], predicted: Sequence[Floats], *, matched: bool = False
) -> Cell:
    """Judge the predictions of each seed on its test set."""
    pairs = list(zip(tests, predicted, strict=True))
    return Cell(
        rows=tuple(test.rows for test in tests),
        truth=tuple(test.truth for test in tests),
        predicted=tuple(predicted),
        rho=np.array([metrics.spearman(test.truth, guess) for test, guess in pairs]),
        resampled=np.stack([test.resamples.spearman(guess) for test, guess in pairs]),
        matched=matched,
    )


def describe(cell: Cell) -> dict[str, Any]:
    """A cell's numbers; the interval is over test samples, of the mean over seeds."""
    pairs = list(zip(cell.truth, cell.predicted, strict=True))
    kendall = [metrics.kendall(truth, guess) for truth, guess in pairs]
    rl2_x100 = [100 * metrics.rl2(truth, guess) for truth, guess in pairs]
    return {
        "spearman": cell.rho.tolist(),
        "mean": metrics.arithmetic_mean(cell.rho),
        "sd": standard_deviation(cell.rho),
        "ci95": list(interval(defined_mean(cell.resampled))),
        "n_test": len(cell.truth[0]),
        "undefined": metrics.undefined(cell.rho),
        "kendall": kendall,
        "kendall_mean": metrics.arithmetic_mean(kendall),
        "rl2_x100": rl2_x100,
        "rl2_x100_mean": metrics.arithmetic_mean(rl2_x100),
        "matched": cell.matched,
    }


def describe_average(cells: Sequence[Cell], drawn: NDArray[np.intp]) -> dict[str, Any]:
    """The averages over actions; intervals over seeds and test samples together.

    `drawn` (count, seeds) says which seeds each resample averages.
    """
    unseen = [cell for cell in cells if not cell.matched]
    rho = np.stack([cell.rho for cell in unseen])  # (actions, seeds)
    resampled = np.stack([cell.resampled for cell in unseen])  # (actions, seeds, count)
    per_seed = {name: average(rho) for name, average in AVERAGES.items()}
    return {
        **{name: metrics.arithmetic_mean(values) for name, values in per_seed.items()},
        "sd": {name: standard_deviation(values) for name, values in per_seed.items()},
        "ci95": {
            name: list(interval(over_seeds(average(resampled), drawn)))
            for name, average in AVERAGES.items()
        },
        "per_seed": {name: values.tolist() for name, values in per_seed.items()},
        "actions": len(unseen),
        "undefined": metrics.undefined(rho),
    }


def describe_row(
    name: str,
    mode: str,
    head: str,
    cells: Mapping[str, Cell],
    drawn: NDArray[np.intp],
    **more: Any,
) -> dict[str, Any]:
    """One row of a table whose columns are actions."""
    return {
        "name": name,
        "mode": mode,
        "head": head,
        **more,
        "per_action": {action: describe(cell) for action, cell in cells.items()},
        "average": describe_average(list(cells.values()), drawn),
    }
