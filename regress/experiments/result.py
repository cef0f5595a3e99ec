"""What an experiment hands over: its report.json object and the cells behind it.

Conventions: a report is plain dicts, lists, strings and numbers; nan stands for
"undefined" until `strict` turns it into None, since JSON has no nan. `cells` are kept
for the figures and the CSV of predictions: by row name, then by column.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa import __version__
from aqa.cache.actions import EXPERIMENT_ACTIONS
from aqa.regress.config import Schedule
from aqa.regress.evaluation.bootstrap import Cell, draw_seeds
from aqa.regress.experiments.paper import OF_MANY, POSES, SOURCE, Printed
from aqa.regress.experiments.study import Study

#: From here on the bootstrap over seeds sees nine tenths of their variance or more.
MANY_SEEDS = 10


@dataclass(frozen=True, eq=False)
class Result:
    """One finished experiment; `keys` (N,) name the rows that its cells index."""

    report: dict[str, Any]
    cells: Mapping[str, Mapping[str, Cell]]
    keys: NDArray[Any]


def opening(
    study: Study, experiment: str, also: Iterable[Study] = ()
) -> dict[str, Any]:
    """What every report says before its rows; `also` are further caches behind them."""
    config = study.config
    schedule = config.schedule.scaled(config.scale)
    lists = study.features.rows
    return {
        "experiment": experiment,
        "created_with": {
            "aqa": __version__,
            **{name: version(name) for name in ("numpy", "torch", "scikit-learn")},
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
        "notes": [
            *study.notes,
            *_length(schedule),
            *filter(None, (_about_seeds(config.seeds), study.paper_note)),
            *_about_poses([study, *also]),
        ],
    }


def drawn_seeds(study: Study) -> NDArray[np.intp]:
    """Which seeds each resample averages (count, seeds), the same for every row."""
    config = study.config
    return draw_seeds(config.seeds, config.bootstrap, [config.bootstrap_seed])


def printed(
    study: Study,
    number: int,
    table: Mapping[str, Printed],
    ours: Mapping[str, str],
) -> dict[str, Any] | None:
    """The paper's table beside ours; None unless these are the released lists.

    `ours` maps a row of the paper to that of ours which it stands beside, by name; the
    others keep apart. Of a part of the actions only those rows are given whose heads
    learnt from none or one.
    """
    if not study.released:
        return None
    return {
        "source": SOURCE.format(number),
        "rows": {
            ours.get(name, _apart(name)): {
                "per_action": {
                    action: row.per_action[EXPERIMENT_ACTIONS.index(action)]
                    for action in study.actions
                },
                "average": row.average if study.whole else math.nan,
            }
            for name, row in table.items()
            if study.whole or name not in OF_MANY
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


def _apart(name: str) -> str:
    """A row of the paper that has none of ours beside it: its features in its name."""
    return name if name == POSES else f"C3D {name}"


def _about_seeds(seeds: int) -> str:
    """What intervals leave out where seeds are few."""
    if seeds == 1:
        return (
            "one seed: intervals cover test samples only, not what another seed would "
            "give; --seeds N repeats everything with N of them"
        )
    if seeds < MANY_SEEDS:
        return (
            f"few seeds: a bootstrap over {seeds} of them sees about "
            f"{(seeds - 1) / seeds:.0%} of their variance, so intervals of averages "
            "and claims are somewhat too narrow"
        )
    return ""


def _about_poses(studies: Iterable[Study]) -> list[str]:
    """Which protocol rows of poses follow, where there are any."""
    if not any(study.kind.startswith("pose-") for study in studies):
        return []
    return [
        "rows of pose features follow the split and the metric of all other rows; the "
        "protocol of Pirsiavash et al. (2014), the mean rho of random splits, is not "
        "rebuilt"
    ]


def _length(schedule: Schedule) -> list[str]:
    """The warning that numbers come from a shorter, or longer, training."""
    asked, paper = schedule.iterations, Schedule().iterations
    if asked == paper:
        return []
    return [
        f"not the paper's length: heads train for {asked:,} iterations where the paper "
        f"trains for {paper:,}, and every other schedule is scaled alike"
    ]
