"""What an experiment hands over: its report.json object and the cells behind it.

Conventions: a report is plain dicts, lists, strings and numbers; nan stands for
"undefined" until `strict` turns it into None, since JSON has no nan. `cells` are kept
for the figures and the CSV of predictions: by row name, then by column.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa.cache.actions import EXPERIMENT_ACTIONS
from aqa.regress.config import Schedule
from aqa.regress.evaluation import Cell
from aqa.regress.paper import SOURCE, Printed
from aqa.regress.statistics import draw_seeds
from aqa.regress.study import Study


@dataclass(frozen=True, eq=False)
class Result:
    """One finished experiment; `keys` (N,) name the rows that its cells index."""

    report: dict[str, Any]
    cells: Mapping[str, Mapping[str, Cell]]
    keys: NDArray[Any]


def opening(study: Study, experiment: str) -> dict[str, Any]:
    """What every report says before its rows."""
    config = study.config
    schedule = config.schedule.scaled(config.scale)
    lists = study.features.rows
    return {
        "experiment": experiment,
        "created_with": {
            name: version(name) for name in ("aqa", "numpy", "torch", "scikit-learn")
        },
        "provenance": dict(study.features.provenance.record),
        "samples": {
            action: {split: len(lists(action, split)) for split in ("train", "test")}
            for action in study.actions
        },
        "seeds": list(range(config.seeds)),
        "settings": {
            "schedule": asdict(schedule),
            "paper_length": schedule == Schedule(),
            "lstm": asdict(config.lstm),
            "svr": asdict(config.svr),
            "label_deviations": study.scale,
            "bootstrap": {"resamples": config.bootstrap, "seed": config.bootstrap_seed},
        },
        "floor": {"pooled_action_mean": study.floor},
        "notes": [*study.notes, *_length(schedule)],
    }


def drawn_seeds(study: Study) -> NDArray[np.intp]:
    """Which seeds each resample averages (count, seeds), the same for every row."""
    config = study.config
    return draw_seeds(config.seeds, config.bootstrap, [config.bootstrap_seed])


def printed(
    study: Study, number: int, table: Mapping[str, Printed]
) -> dict[str, Any] | None:
    """The paper's table beside ours; None unless these are the released lists.

    Beside other features than C3D's its rows keep apart from ours, by their names.
    """
    if not study.released:
        return None
    whole = set(study.actions) == set(EXPERIMENT_ACTIONS)
    ours = study.kind == "c3d"
    return {
        "source": SOURCE.format(number),
        "rows": {
            name if ours else f"C3D {name}": {
                "per_action": {
                    action: row.per_action[EXPERIMENT_ACTIONS.index(action)]
                    for action in study.actions
                },
                "average": row.average if whole else math.nan,
            }
            for name, row in table.items()
        },
    }


def strict(value: Any) -> Any:
    """The same value with None for every number that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(name): strict(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _length(schedule: Schedule) -> list[str]:
    """The warning that numbers come from a shorter, or longer, training."""
    asked, paper = schedule.iterations, Schedule().iterations
    if asked == paper:
        return []
    return [
        f"not the paper's length: heads train for {asked:,} iterations where the paper "
        f"trains for {paper:,}, and every other schedule is scaled alike"
    ]
