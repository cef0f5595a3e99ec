"""What the paper printed, and beside which samples it is shown.

Conventions: `paper.json` holds the numbers of Tables 2 to 4 (Spearman's rho, one value
per action in the order of `EXPERIMENT_ACTIONS`, null where the table has none) and a
digest of each released sample: the first four hexadecimal digits of the SHA-256 of its
line (key, split, score with two decimals), in the order of the sample numbers from 1.
One digest tells little, a list of them tells whose list it is; counts alone would not
do, since other data sets may have the same. Printed numbers are shown only beside
samples of the released lists; some of these may be missing.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from math import nan
from typing import Any

from aqa.cache.actions import EXPERIMENT_ACTIONS
from aqa.regress.experiments.study import Study

_RECORD: dict[str, Any] = json.loads(
    files("aqa.regress.experiments").joinpath("paper.json").read_text("utf-8")
)
SOURCE = _RECORD["source"] + ", Table {}"
DIGESTS: Mapping[str, str] = _RECORD["digests"]
DIGITS = 4
#: Rows whose heads learnt from several actions: with other actions they are others.
OF_MANY = ("all-action LSTM", "multi-action")
#: The row of Table 2 that no C3D feature went into.
POSES = "Pose+DCT"


@dataclass(frozen=True)
class PrintedRow:
    """A row of a table of the paper; `average` as printed, however it was formed."""

    per_action: Mapping[str, float]
    average: float


@dataclass(frozen=True)
class PrintedTable:
    """The paper's Table 2 or 3, by the corresponding row of ours."""

    source: str
    rows: Mapping[str, PrintedRow]


def _table(name: str) -> dict[str, PrintedRow]:
    found = {}
    for row, cells in _RECORD[name].items():
        *values, average = (
            nan if value is None else value
            for value in (*cells["per_action"], cells["average"])
        )
        by_action = dict(zip(EXPERIMENT_ACTIONS, values, strict=True))
        found[row] = PrintedRow(by_action, average)
    return found


#: Averages of Table 2 are Fisher's z; those of Table 3 are arithmetic, whatever its
#: caption says, and leave the diagonal (trained and tested on the same action) out.
TABLE_2, TABLE_3 = _table("table_2"), _table("table_3")
#: By start and action, for the small, the middle and the large training set; each the
#: best over all evaluated iterations, chosen on the test samples.
TABLE_4: Mapping[str, Mapping[str, list[float]]] = _RECORD["table_4"]


def printed(
    study: Study, number: int, table: Mapping[str, PrintedRow], ours: Mapping[str, str]
) -> PrintedTable | None:
    """Return the paper's table; None unless the samples are the released lists.

    `ours` maps names of the paper's rows to ours that correspond; others are listed
    separately. With a part of the actions only rows of heads that were trained on none
    or one of them are given.
    """
    if not released(study):
        return None
    rows = {
        ours.get(name, name if name == POSES else f"C3D {name}"): PrintedRow(
            per_action={action: row.per_action[action] for action in study.actions},
            average=row.average if whole(study) else nan,
        )
        for name, row in table.items()
        if whole(study) or name not in OF_MANY
    }
    return PrintedTable(SOURCE.format(number), rows)


def whole(study: Study) -> bool:
    """Return whether all actions of the paper are judged, and no others."""
    return set(study.actions) == set(EXPERIMENT_ACTIONS)


def released(study: Study) -> bool:
    """Return whether the samples are of AQA-7 in the paper's split."""
    return study.fixed and not _others(study)


def about_lists(study: Study) -> list[str]:
    """Say why the paper's numbers are not shown, or of which samples they are."""
    if not study.fixed:
        return []
    others = _others(study)
    found = sum(len(study.listed_rows(action)) for action in study.actions)
    asked = sum(map(listed, study.actions))
    if not others and found < asked:
        return [
            f"{asked - found} of the {asked} released samples of these actions "
            "are missing; the paper's numbers are of all of them"
        ]
    # On a data set of another kind nobody expects the paper's numbers.
    if not others or len(others) > found / 2:
        return []
    return [
        f"the paper's numbers are not shown: {len(others)} of {found} samples are not "
        f"in the released lists or differ in split or score (first {others[0]})"
    ]


def _others(study: Study) -> list[str]:
    """Return keys of samples that differ from AQA-7's released lists."""
    return [
        key for name in study.actions for key in unlisted(name, study.samples(name))
    ]


def listed(action: str) -> int:
    """Return how many samples of an action were released."""
    return len(DIGESTS.get(action, "")) // DIGITS


def unlisted(action: str, samples: Iterable[tuple[str, str, float]]) -> list[str]:
    """Return the keys of samples (key, split, score) not in the released lists."""
    return [sample[0] for sample in samples if not _is_listed(action, *sample)]


def _is_listed(action: str, key: str, split: str, score: float) -> bool:
    name, _, number = key.rpartition("/")
    if name != action or not (number.isdecimal() and len(number) < 5):
        return False
    place = DIGITS * (int(number) - 1)
    known = DIGESTS.get(action, "")[max(place, 0) : place + DIGITS]
    line = f"{key},{split},{score:.2f}\n"
    return known == hashlib.sha256(line.encode()).hexdigest()[:DIGITS]
