"""What a kind of head provides. A new kind is one module and one line in `HEADS`.

Conventions: a head maps clip features to scaled labels. x is float32 (n, clips, D) and
predictions are (n,); `clips` (n,) counts the real clips of each sample, the last ones
(None: all are real). A module of a kind provides two functions:

    fit_heads(features, parts, config, store, progress) -> one head per part
    read_head(arrays, facts) -> the head that gave these `arrays()` and `facts()`

`fit_heads` learns from the rows and labels of a part only; `store` is a folder for
finished work and `progress` counts in units of its own. `read_head` raises `AqaError`
for arrays and facts that no head gave: they come from files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from aqa.cache.console import Progress
from aqa.cache.errors import AqaError
from aqa.regress.config import FitConfig
from aqa.regress.data import FeatureSet, Floats, Rows
from aqa.regress.heads import HEADS

Clips = NDArray[np.int32] | None


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

    def warnings(self) -> list[str]:
        """Return what a user of the head should know."""
        return []


class Kind(Protocol):
    """The functions of a head's module."""

    def fit_heads(
        self,
        features: FeatureSet,
        parts: Sequence[Part],
        config: FitConfig,
        store: Path,
        progress: Progress,
    ) -> Sequence[Head]:
        """Train one head per part."""

    def read_head(
        self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> Head:
        """Make the head of a model file."""


def kind_of(name: str) -> Kind:
    """Import the module of a kind; raises `AqaError` for an unknown name."""
    if name not in HEADS:
        raise AqaError(f"head {name[:60]!r}: expected {', '.join(HEADS)}")
    return cast(Kind, import_module(HEADS[name]))


def averaged(x: NDArray[np.float32], clips: Clips = None) -> Floats:
    """Return the mean over the real clips, (n, clips, D) -> float64 (n, D)."""
    if clips is None:
        return np.asarray(x.mean(axis=-2, dtype=np.float64))
    means = np.empty((len(x), x.shape[-1]))
    for place, real in enumerate(clips):
        means[place] = x[place, -real:].mean(0, dtype=np.float64)
    return means


def check_arrays(
    arrays: Mapping[str, NDArray[Any]],
    expected: Mapping[str, tuple[tuple[int, ...], str]],
) -> None:
    """Raise `AqaError` unless these are the arrays, of (shape, type), and finite."""
    if arrays.keys() != expected.keys():
        raise AqaError(
            f"expected the arrays {', '.join(sorted(expected))}; "
            f"found {', '.join(sorted(arrays))[:200]}"
        )
    for name, (shape, kind) in expected.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != kind:
            raise AqaError(
                f"{name}: expected {kind} {shape}, found {array.dtype} {array.shape}"
            )
        if not np.isfinite(array).all():
            raise AqaError(f"{name}: holds values that are not finite")


def axis_length(arrays: Mapping[str, NDArray[Any]], name: str, axis: int) -> int:
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
