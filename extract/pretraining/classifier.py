"""C3D with the layers that classify its feature, Caffe's SGD, and accuracies.

Conventions: clips float (B, 3, 16, crop, crop) -> scores float (B, classes), before the
softmax. Parameters are named as in C3D's prototxt: those of `C3D`, then `fc7` (as wide
as FC-6) and `fc8`. Dropout follows FC-6 and FC-7 and scales by 1 / (1 - p) in training,
as Caffe's. An accuracy is a share, 0 to 1.

The solver: V = momentum V + rate_i (gradient + decay_i w), w = w - V, with rate_i = 2
rate and decay_i = 0 for biases (`lr_mult`, `decay_mult` in C3D's prototxt). torch's SGD
multiplies by the rate outside V, which differs when the rate drops.

Source: facebookarchive/C3D `solver.cpp`, `conv3d_ucf101_train.prototxt`.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.optim import Optimizer

from aqa.extract.c3d import C3D, Architecture
from aqa.extract.preprocessing import Preprocessing, normalise
from aqa.extract.pretraining.clips import Batch


class Classifier(nn.Module):
    """The network of the pre-training."""

    def __init__(
        self, arch: Architecture, classes: int, dropout: float, pool5: str = "ceil"
    ) -> None:
        """Create the layers with torch's initial values."""
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

    def caffe_parameters(self) -> dict[str, Tensor]:
        """Return the parameters by Caffe's names."""
        return {
            name.removeprefix("c3d."): value for name, value in self.named_parameters()
        }

    def caffe_state(self) -> dict[str, Tensor]:
        """Return the parameters by Caffe's names, contiguous copies on the CPU."""
        return {
            name: value.detach().cpu().contiguous()
            for name, value in self.caffe_parameters().items()
        }

    def load_caffe_state(self, state: Mapping[str, Tensor]) -> None:
        """Load all parameters by Caffe's names."""
        own = {name.removeprefix("c3d."): name for name in self.state_dict()}
        self.load_state_dict({theirs: state[ours] for ours, theirs in own.items()})


def initial_state(
    arch: Architecture, classes: int, seed: int, start: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Return initial values, the same for a seed on every machine.

    Without `start` they are C3D's: Gaussian with standard deviation 0.01, or 0.005 for
    FC-6 and FC-7; biases 1, or 0 in the first and last layer. With `start` up to FC-6,
    FC-7 is He-normal without biases, so that its scale fits its width.
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


class CaffeSGD(Optimizer):
    """Caffe's stochastic gradient descent.

    Groups have `lr`, `momentum`, `weight_decay`, `lr_mult` and `decay_mult`.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, Tensor]],
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        """Take named parameters; those that end in "bias" are biases."""
        parameters = list(named)
        weights = [value for name, value in parameters if not name.endswith("bias")]
        biases = [value for name, value in parameters if name.endswith("bias")]
        groups = [
            {"params": weights, "lr_mult": 1.0, "decay_mult": 1.0},
            {"params": biases, "lr_mult": 2.0, "decay_mult": 0.0},
        ]
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            rate = group["lr"] * group["lr_mult"]
            decay = group["weight_decay"] * group["decay_mult"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(parameter)
                push = parameter.grad.add(parameter, alpha=decay)
                velocity: Tensor = state["velocity"]
                velocity.mul_(group["momentum"]).add_(push, alpha=rate)
                parameter.sub_(velocity)


def rate_at(iteration: int, base: float, step: int, gamma: float) -> float:
    """Return the rate of an iteration (0-based), multiplied by `gamma` every `step`."""
    return base * gamma ** (iteration // step)


class Accuracy(NamedTuple):
    """Accuracy over clips, and over videos by mean probability of their clips."""

    clip: float
    video: float


def as_input(frames: Tensor, pre: Preprocessing) -> Tensor:
    """Prepare clips: uint8 (B, 16, crop, crop, 3) -> float (B, 3, 16, crop, crop)."""
    batch, length, crop = frames.shape[:3]
    values = normalise(frames.flatten(0, 1), pre)  # (3, B * 16, crop, crop)
    return values.view(3, batch, length, crop, crop).movedim(1, 0)


@torch.no_grad()
def evaluate(
    net: Classifier,
    batches: Iterable[Batch],
    labels: Tensor,
    pre: Preprocessing,
    autocast: torch.autocast,
) -> Accuracy:
    """Classify clips, of which each process may get its own part.

    Args:
        net: on its device.
        batches: clips and the indices of their videos.
        labels: the class of each video, (videos,).
        pre: of the network.
        autocast: the precision to compute in.
    """
    device = net.fc8.weight.device
    labels = labels.to(device)
    right = torch.zeros(2, dtype=torch.float64, device=device)  # clips right, clips
    summed = torch.zeros(
        len(labels), net.fc8.out_features, dtype=torch.float64, device=device
    )
    net.eval()
    for frames, videos in batches:
        index = torch.from_numpy(videos).to(device)
        with autocast:
            scores = net(as_input(torch.from_numpy(frames).to(device), pre))
        summed.index_add_(0, index, scores.double().softmax(1))
        hits = (scores.argmax(1) == labels[index]).sum()
        right += torch.stack([hits.double(), hits.new_tensor(len(index)).double()])
    net.train()
    if distributed.is_initialized():
        distributed.all_reduce(right)
        distributed.all_reduce(summed)
    video = (summed.argmax(1) == labels).double().mean()
    return Accuracy(float(right[0] / right[1]), float(video))
