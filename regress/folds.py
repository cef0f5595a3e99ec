"""Videos dealt into folds, for what is learnt inside the training rows.

Conventions: a fold is a set of whole videos, all copies together; folds are numbered
from 0 and as even as can be, within each action and in all.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def deal(actions: NDArray[Any], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold number (n,) of videos with these actions (n,), shuffled by `seed`."""
    order = np.random.default_rng([seed, 2]).permutation(len(actions))
    order = order[np.argsort(actions[order], kind="stable")]
    numbers = np.empty(len(actions), np.int64)
    numbers[order] = np.arange(len(actions)) % min(folds, len(actions))
    return numbers
