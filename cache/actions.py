"""The seven actions of AQA-7, with the facts of Table 1 of the paper.

Conventions: `ACTIONS` is in the order of the data set's ids, 1 to 7; scores are in
judges' units. Source: Parmar and Morris, "Action Quality Assessment Across
Multiple Actions", Table 1 and section 5.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Action:
    """One action of AQA-7.

    `mean_length` is in frames, `score_range` in judges' units, ends included; `train`
    and `test` count the samples of the released lists (split 4).
    """

    name: str
    title: str
    mean_length: int
    samples: int
    score_range: tuple[float, float]
    participants: int
    view_variation: str
    train: int
    test: int


# fmt: off
ACTIONS = (
    Action("diving", "Diving", 97, 370, (21.60, 102.60), 1, "negligible", 300, 70),
    Action("gym_vault", "Gymvault", 87, 176, (12.30, 16.87), 1, "large", 120, 56),
    Action("ski_big_air", "Skiing", 132, 175, (8, 50), 1, "large", 120, 55),
    Action("snowboard_big_air", "Snowboard", 122, 206, (8, 50), 1, "large", 140, 66),
    Action("sync_diving_3m", "Sync. 3m", 156, 88, (46.20, 104.88), 2, "negligible",
           60, 28),
    Action("sync_diving_10m", "Sync. 10m", 105, 91, (49.80, 99.36), 2, "negligible",
           63, 28),
    Action("trampoline", "Trampoline", 634, 83, (6.72, 62.99), 1, "small", 0, 0),
)
# fmt: on

#: The six actions of the paper's experiments: all but trampoline.
EXPERIMENT_ACTIONS = tuple(action.name for action in ACTIONS[:6])

BY_NAME = {action.name: action for action in ACTIONS}


def paper_omits(action: str, keys: Iterable[str]) -> bool:
    """Tell whether these samples are of AQA-7's trampoline, which the paper leaves out.

    An action of one's own may have that name; its keys are others.

    >>> paper_omits("trampoline", ["trampoline/001"])
    True
    >>> paper_omits("trampoline", ["club/001", "trampoline/001.mp4"])
    False
    """
    if action in EXPERIMENT_ACTIONS or action not in BY_NAME:
        return False
    return all(re.fullmatch(f"{action}/[0-9]{{3}}", key) for key in keys)


def score_problem(action: str, score: float) -> str | None:
    """Return why an action of AQA-7 cannot have this score; None for other actions.

    >>> score_problem("gym_vault", 1458.5)[:52]
    "expected a score of 12.3 to 16.87, as AQA-7's gym_va"
    """
    if action not in BY_NAME or math.isnan(score):
        return None
    low, high = BY_NAME[action].score_range
    if low <= score <= high:
        return None
    return (
        f"expected a score of {low:g} to {high:g}, as AQA-7's {action} has, "
        f"found {score:g}; another scale needs another name for the action"
    )
