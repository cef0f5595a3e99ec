"""What the paper printed, and how to recognise the released lists of AQA-7.

Conventions: `paper.json` holds the numbers of Tables 2 to 4 (Spearman's rho, one value
per action in the order of `EXPERIMENT_ACTIONS`, null where the table has none) and a
digest of each released sample: the first four hexadecimal digits of the SHA-256 of its
line (key, split, score with two decimals), in the order of the sample numbers from 1.
One digest tells little, a list of them tells whose list it is; counts alone would not
do, since other data sets may have the same. Printed numbers are shown only beside
samples of the released lists.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from math import nan
from typing import Any

from aqa.cache.actions import EXPERIMENT_ACTIONS

Sample = tuple[str, str, float]

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


def listed(action: str) -> int:
    """Return how many samples of an action were released."""
    return len(DIGESTS.get(action, "")) // DIGITS


def unlisted(action: str, samples: Iterable[Sample]) -> list[str]:
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
