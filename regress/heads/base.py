"""What a kind of head provides. A new kind is one module and one line in `HEADS`.

Conventions: a head maps clip features to scaled labels. x is float32 (n, clips, D) and
predictions are (n,); `clips` (n,) counts the real clips of each sample, the last ones
(None: all are real). A module of a kind provides two functions:

    fit_heads(features, parts, config, store, progress) -> one head per part
    read_head(arrays, facts) -> the head that gave these `arrays()` and `facts()`

`fit_heads` learns from the rows and labels of a part only; `store` is a folder for
finished work and `progress` counts in units of its own. `read_head` raises an error
for arrays and facts that no head gave: they come from files. `compare` fits and tries
each head by itself, unless the kind has its own way (see `trials`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aqa.cache.errors import AqaError
from aqa.regress.data import Floats, Rows
from aqa.regress.heads import HEADS

Clips = NDArray[np.int32] | None
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Part:
    """Training rows of one head with their scaled labels, both (n,)."""

    name: str
    rows: Rows
    labels: Floats


class Head:
    """Base class of all heads."""

    #: The name under which a model file finds the head's module in `HEADS`.
    kind: ClassVar[str]

    def predict(self, x: NDArray[np.float32], clips: Clips = None) -> Floats:
        """Return predictions (n,) in scaled labels."""
        raise NotImplementedError

    def course(self, x: NDArray[np.float32], clips: Clips = None) -> Floats:
        """Return the prediction after each clip (n, clips); (n, 0) where none is."""
        return np.empty((len(x), 0))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the numbers of the head, as a model file stores them."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Return what else `read_head` needs, as JSON values without NaN."""
        return {}

    def choices(self) -> dict[str, Any]:
        """Return what the fit chose, as a report has it: JSON values."""
        return {}

    def warnings(self) -> list[str]:
        """Return what a user of the head should know."""
        return []


def kind_of(name: str) -> Any:
    """Import the module of a kind; raises `AqaError` for an unknown name."""
    if name not in HEADS:
        raise AqaError(f"head {name[:60]!r}: expected {', '.join(HEADS)}")
    return import_module(HEADS[name].module)


def averaged(x: NDArray[np.float32], clips: Clips = None) -> Floats:
    """Return the mean over the real clips, (n, clips, D) -> float64 (n, D)."""
    if clips is None:
        return np.asarray(x.mean(axis=-2, dtype=np.float64))
    real = np.arange(x.shape[1]) >= x.shape[1] - clips[:, None]
    return np.asarray(x.mean(1, dtype=np.float64, where=real[..., None]))


def check_arrays(
    arrays: Arrays, expected: Mapping[str, tuple[tuple[int, ...], str]]
) -> None:
    """Raise `AqaError` unless these are the arrays, of (shape, type), and finite."""
    found = {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}
    if found != expected:
        raise AqaError(f"expected the arrays {expected}; found {found}")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise AqaError(f"{name}: holds values that are not finite")


def axis_length(arrays: Arrays, name: str, axis: int) -> int:
    """Return the length of an axis that other shapes follow from."""
    if name not in arrays or arrays[name].ndim <= axis or 0 in arrays[name].shape:
        raise AqaError(f"{name}: no such array, or an empty one")
    return int(arrays[name].shape[axis])


def check_width(x: NDArray[Any], width: int) -> None:
    """Raise `AqaError` unless x is (n, clips, width)."""
    if x.ndim != 3 or x.shape[-1] != width:
        raise AqaError(
            f"the head takes features (videos, clips, {width}); found {x.shape}"
        )
