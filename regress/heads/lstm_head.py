"""The LSTM over the clips as a kind of head.

Conventions: see `registry` and `lstm`; all parts are trained as one batch of work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa.cache.console import Progress
from aqa.cache.errors import AqaError
from aqa.regress.config import FitConfig
from aqa.regress.data import FeatureSet, Floats
from aqa.regress.heads import lstm
from aqa.regress.heads.registry import Clips, Head, Part, axis_length, check_arrays
from aqa.regress.heads.tasks import HeadTask
from aqa.regress.heads.workers import train_heads


@dataclass(frozen=True, eq=False)
class LstmHead(Head):
    """One trained LSTM; `parameters` as in `lstm.Arrays`."""

    kind = "lstm"
    parameters: lstm.Arrays

    def predict(self, x: NDArray[np.float32], clips: Clips = None) -> Floats:
        """Return the prediction after the last clip (n,)."""
        return np.asarray(lstm.predict(self.parameters, x, clips), np.float64)

    def course(self, x: NDArray[np.float32], clips: Clips = None) -> Floats:
        """Return the prediction after each clip (n, clips)."""
        return np.asarray(lstm.course(self.parameters, x, clips), np.float64)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the parameters."""
        return dict(self.parameters)


def fit_heads(
    features: FeatureSet,
    parts: Sequence[Part],
    config: FitConfig,
    store: Path,
    progress: Progress,
) -> list[Head]:
    """Train one LSTM per part; finished ones are taken from `store`."""
    schedule = config.schedule.scaled(config.scale)
    tasks = [
        HeadTask(
            name=part.name,
            rows=tuple(part.rows.tolist()),
            seed=config.first_seed,
            schedule=schedule,
            labels=config.labels,
            loss=config.loss,
            standardise=config.standardises(features.kind),
            targets=tuple(part.labels.tolist()),
        )
        for part in parts
    ]
    trained = train_heads(
        features,
        features.score,
        tasks,
        lstm=config.lstm,
        device=config.device,
        workers=config.workers,
        store=store,
        progress=progress,
    )
    return [LstmHead(trained[task].parameters) for task in tasks]


def read_head(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> LstmHead:
    """Make the head of a model file."""
    width = axis_length(arrays, "w_x", 0)
    hidden = axis_length(arrays, "v", 0)
    shapes: dict[str, tuple[int, ...]] = {
        "w_x": (width, 4 * hidden),
        "w_h": (hidden, 4 * hidden),
        "b": (4 * hidden,),
        "v": (hidden,),
        "c": (),
    }
    if "x_mean" in arrays:
        shapes |= {"x_mean": (width,), "x_std": (width,)}
    check_arrays(arrays, {name: (shape, "float32") for name, shape in shapes.items()})
    if "x_std" in arrays and not (arrays["x_std"] > 0).all():
        raise AqaError("x_std: a standard deviation is above 0")
    return LstmHead(arrays)
