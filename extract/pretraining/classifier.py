"""C3D with the two layers that turn its feature into classes, for training only.

Conventions: clips float (B, 3, 16, crop, crop) -> scores float (B, classes), before
any softmax. Parameters are named as in C3D's prototxt: those of `C3D`, then `fc7`
(as wide as FC-6) and `fc8`. Dropout follows FC-6 and FC-7 in training, and scales
by 1 / (1 - p) as Caffe's does, so that nothing changes at test time.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from aqa.extract.c3d import C3D, Architecture


class Classifier(nn.Module):
    """The network of the pre-training."""

    def __init__(
        self, arch: Architecture, classes: int, dropout: float, pool5: str = "ceil"
    ) -> None:
        """Lay out the layers, with torch's own initial values."""
        super().__init__()
        self.c3d = C3D(arch, pool5)
        self.fc7 = nn.Linear(arch.features, arch.features)
        self.fc8 = nn.Linear(arch.features, classes)
        self.dropout = dropout

    def forward(self, clips: Tensor) -> Tensor:
        """Scores of clips: (B, 3, 16, crop, crop) -> (B, classes)."""
        x = self.c3d(clips)  # (B, features)
        x = functional.dropout(x, self.dropout, self.training)
        x = functional.relu(self.fc7(x))
        x = functional.dropout(x, self.dropout, self.training)
        scores: Tensor = self.fc8(x)
        return scores

    def caffe_state(self) -> dict[str, Tensor]:
        """Every parameter under Caffe's name, contiguous, on the CPU."""
        return {
            name.removeprefix("c3d."): value.detach().cpu().contiguous()
            for name, value in self.state_dict().items()
        }

    def load_caffe_state(self, state: Mapping[str, Tensor]) -> None:
        """Take every parameter of `caffe_state` back."""
        own = {name.removeprefix("c3d."): name for name in self.state_dict()}
        self.load_state_dict({theirs: state[ours] for ours, theirs in own.items()})


def initial_state(
    arch: Architecture, classes: int, seed: int, start: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Values to begin with, the same for a seed on every machine.

    Without `start`, C3D's own: Gaussian, of standard deviation 0.01, but 0.005 for
    FC-6 and FC-7; biases 1, but 0 for the first and the last layer. With `start` up
    to FC-6, FC-7 is He-normal without biases: its scale goes with its width.
    """
    rng = np.random.default_rng(seed)
    shapes = dict(arch.shapes()) if start is None else {}
    for layer, width in (("fc7", arch.features), ("fc8", classes)):
        shapes[f"{layer}.weight"] = (width, arch.features)
        shapes[f"{layer}.bias"] = (width,)
    state = dict(start or {})
    for name, shape in shapes.items():
        layer, _, part = name.partition(".")
        if part == "bias":
            one = start is None and layer not in ("conv1a", "fc8")
            state[name] = torch.full(shape, float(one))
        else:
            std = 0.005 if layer in ("fc6", "fc7") else 0.01
            if start is not None and layer == "fc7":
                std = math.sqrt(2 / arch.features)
            values = rng.standard_normal(shape, dtype=np.float32) * np.float32(std)
            state[name] = torch.from_numpy(values)
    return state
