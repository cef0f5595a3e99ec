"""What the paper printed: the numbers of its Tables 2 to 4.

Conventions: Spearman's rho, one value an action in the order of
`EXPERIMENT_ACTIONS` (diving, vault, skiing, snowboard, synchronised 3 m and 10 m);
`nan` where the table has none. They are facts about AQA-7 alone: a report shows them
only beside samples of the released lists (`released`).
Source: Parmar and Morris, "Action Quality Assessment Across Multiple Actions".
"""

from dataclasses import dataclass
from math import nan

SOURCE = (
    'Parmar and Morris, "Action Quality Assessment Across Multiple Actions", Table {}'
)


@dataclass(frozen=True)
class Printed:
    """One row of a table: `average` is the number printed, however it was formed."""

    per_action: tuple[float, ...]
    average: float


#: Rows whose heads learnt from several actions: with other actions they are others.
OF_MANY = ("all-action LSTM", "multi-action")

#: The row of Table 2 that no C3D feature went into.
POSES = "Pose+DCT"

#: Their averages are Fisher's z.
TABLE_2 = {
    POSES: Printed((0.5300, nan, nan, nan, nan, nan), nan),
    "single-action SVR": Printed(
        (0.7902, 0.6824, 0.5209, 0.4006, 0.5937, 0.9120), 0.6937
    ),
    "single-action LSTM": Printed(
        (0.6047, 0.5636, 0.4593, 0.5029, 0.7912, 0.6927), 0.6165
    ),
    "all-action LSTM": Printed(
        (0.6177, 0.6746, 0.4955, 0.3648, 0.8410, 0.7343), 0.6478
    ),
}

#: Their averages are arithmetic, whatever the caption says, and leave the diagonal
#: (trained and tested on the same action) out.
TABLE_3 = {
    "random": Printed((0.0590, 0.0280, -0.0602, -0.0703, -0.0146, -0.0729), -0.0218),
    "diving": Printed((0.6997, -0.0162, 0.0425, 0.0172, 0.2337, 0.0221), 0.0599),
    "gym_vault": Printed((0.0906, 0.8472, 0.0517, 0.0418, -0.1642, -0.3200), -0.0600),
    "ski_big_air": Printed((0.2653, -0.1856, 0.6711, 0.1807, 0.1195, 0.2858), 0.1331),
    "snowboard_big_air": Printed(
        (0.2115, -0.2154, 0.3314, 0.6294, 0.0945, 0.1818), 0.1208
    ),
    "sync_diving_3m": Printed(
        (0.1500, -0.0066, -0.0494, -0.1102, 0.8084, 0.0428), 0.0053
    ),
    "sync_diving_10m": Printed(
        (0.0767, -0.1842, 0.0679, 0.0360, 0.4374, 0.7397), 0.0868
    ),
    "multi-action": Printed((0.2258, 0.0538, 0.0139, 0.2259, 0.3517, 0.3512), 0.2037),
}

#: rho by action for the small, the middle and the large training set; each the best
#: over all evaluated iterations, chosen on the test samples.
TABLE_4 = {
    "random": {
        "diving": (0.5633, 0.5952, 0.6935),
        "gym_vault": (0.3197, 0.4231, 0.5278),
        "ski_big_air": (0.0955, 0.5050, 0.5862),
        "snowboard_big_air": (0.1813, 0.4507, 0.4751),
        "sync_diving_3m": (0.2659, 0.3382, 0.4268),
        "sync_diving_10m": (0.3511, 0.4913, 0.6305),
    },
    "multi-action": {
        "diving": (0.5937, 0.6742, 0.7443),
        "gym_vault": (0.4509, 0.5350, 0.5894),
        "ski_big_air": (0.1279, 0.5778, 0.5991),
        "snowboard_big_air": (0.1978, 0.3347, 0.4437),
        "sync_diving_3m": (0.5235, 0.5980, 0.7429),
        "sync_diving_10m": (0.4500, 0.7900, 0.8123),
    },
}
