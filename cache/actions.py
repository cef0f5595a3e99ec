"""The seven actions of AQA-7 and what Table 1 of the paper says of them.

Conventions: `ACTIONS` is in the order of the data set's ids, 1 to 7; scores are in
judges' units. Source: Parmar and Morris, "Action Quality Assessment Across
Multiple Actions", Table 1 and section 5.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Action:
    """One sport of AQA-7.

    `mean_length` in frames; `score_range` in judges' units, both ends possible;
    `train` and `test` count the samples of the released lists (split 4).
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
