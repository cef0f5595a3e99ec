"""What a training run begins with: a network, its values, and how it is to be fed.

Conventions: values up to FC-6 are C3D's own Gaussian ones, or those of `init`, which
then also brings its last pooling and, where none is asked for, its pre-processing.
Random crops leave no place for a mean that is an image, so such a mean is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from aqa.cache.errors import AqaError
from aqa.extract.c3d import ARCHITECTURES, Architecture
from aqa.extract.preprocessing import PRESETS, Preprocessing
from aqa.extract.pretraining.config import PretrainConfig
from aqa.extract.weights.loaded import DEFAULT_ARCH, load_weights


@dataclass(frozen=True)
class Start:
    """`state` is up to FC-6, None for C3D's own values; `origin` names it."""

    arch: Architecture
    pool5: str
    preprocessing: Preprocessing
    state: Mapping[str, Tensor] | None
    origin: str

    def record(self) -> dict[str, Any]:
        """Everything that decides a run, as JSON values."""
        return {
            "arch": self.arch.name,
            "pool5": self.pool5,
            "preprocessing": self.preprocessing.record(),
            "init": self.origin,
        }


def choose_start(config: PretrainConfig) -> Start:
    """Find what `config` begins with.

    Raises:
        AqaError: for weights that cannot be loaded, or whose mean is an image.
    """
    if config.init is None:
        arch = ARCHITECTURES[config.arch or DEFAULT_ARCH]
        preprocessing = PRESETS[config.preprocessing or "c3d"]
        return Start(arch, "ceil", preprocessing, None, "C3D's Gaussian values")
    weights = load_weights(config.init, config.arch, preprocessing=config.preprocessing)
    if isinstance(weights.preprocessing.mean, np.ndarray):
        raise AqaError(
            f"{config.init}: its mean is an image, which random crops have no place "
            "for; ask for a preset's pre-processing"
        )
    return Start(
        arch=ARCHITECTURES[weights.arch],
        pool5=weights.pool5,
        preprocessing=weights.preprocessing,
        state=weights.state,
        origin=f"{weights.name} {weights.sha256}",
    )
