"""What a weights file is, said without using it.

Conventions: an inspection never fails for a file that can be opened: what cannot be
used is described by the reason. Names are made safe to print. Mean files are told as
such, with their channel means in the order of the file (Caffe's: blue, green, red).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aqa.cache.errors import brief
from aqa.extract.weights.formats import WeightsError, kind_of, open_tensors
from aqa.extract.weights.load import Weights, load_weights, read_mean


@dataclass(frozen=True)
class Inspection:
    """A file, and either the weights or the mean in it or why there are none.

    `shapes` are all arrays as the file names them, in its order.
    """

    path: Path
    size: int
    sha256: str
    kind: str
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    weights: Weights | None = None
    channel_means: tuple[float, ...] | None = None
    problem: str | None = None

    def record(self) -> dict[str, Any]:
        """Everything as JSON values."""
        record: dict[str, Any] = {
            "path": str(self.path),
            "bytes": self.size,
            "sha256": self.sha256,
            "kind": self.kind,
            "arrays": {name: list(shape) for name, shape in self.shapes.items()},
        }
        if self.weights is not None:
            record |= {
                "arch": self.weights.arch,
                "name": self.weights.name,
                "origin": self.weights.origin,
                "pool5": self.weights.pool5,
                "preprocessing": self.weights.preprocessing.record(),
                "left_aside": list(self.weights.left_aside),
                "notes": dict(self.weights.notes),
            }
        if self.channel_means is not None:
            record["channel_means"] = list(self.channel_means)
        if self.problem is not None:
            record["problem"] = self.problem
        return record


def inspect(path: Path) -> Inspection:
    """Say what a file is: its format, its arrays, its preset, or its problem.

    Raises:
        WeightsError: only if there is no file to read.
    """
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    size = path.stat().st_size
    kind, shapes = "unknown", {}
    weights = means = problem = None
    try:
        kind = kind_of(path)
        if kind == "npy" or _is_mean(path, kind):
            kind = "mean"
            volume = read_mean(path)
            shapes = {"mean": volume.shape}
            means = tuple(volume.mean((1, 2, 3), dtype=float).round(4).tolist())
        else:
            with open_tensors(path, kind) as tensors:
                kind = tensors.container
                shapes = {brief(name): tensors.shapes[name] for name in tensors.shapes}
            weights = load_weights(path)
    except WeightsError as error:
        problem = str(error).removeprefix(f"{path}: ")
    return Inspection(path, size, sha256, kind, shapes, weights, means, problem)


def _is_mean(path: Path, kind: str) -> bool:
    """Tell Caffe's mean from its network: one blob and nothing around it."""
    if kind != "caffe":
        return False
    try:
        read_mean(path)
    except WeightsError:
        return False
    return True
