"""C3D with the two layers that turn its feature into classes, for training only.

Conventions: clips float (B, 3, 16, crop, crop) -> scores float (B, classes), before
any softmax. Parameters are named as in C3D's prototxt: those of `C3D`, then `fc7`
(as wide as FC-6) and `fc8`. Dropout follows FC-6 and FC-7 in training, and scales
by 1 / (1 - p) as Caffe's does, so that nothing changes at test time.

Caffe's stochastic gradient descent, which is not quite torch's.

Conventions: for each parameter, V = momentum V + rate_i (gradient + decay_i w), then
w = w - V, with rate_i = 2 rate and decay_i = 0 for biases (`lr_mult`, `decay_mult`
of C3D's prototxt). torch multiplies by the rate outside V, which is the same until
the rate drops: Caffe's velocity then still carries the old rate.

Source: facebookarchive/C3D `solver.cpp` (formula), `conv3d_ucf101_train.prototxt`.

How well a classifier tells the test list's clips, and its videos.

Conventions: an accuracy is the part that is right, 0 to 1. A video's class is the
one with the largest probability averaged over its clips.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

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


class CaffeSGD(Optimizer):
    """Stochastic gradient descent with Caffe's velocity.

    Each group has `lr`, `momentum`, `weight_decay`, `lr_mult` and `decay_mult`.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        """Take parameter groups, as `caffe_groups` makes them."""
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(groups, {**defaults, "lr_mult": 1.0, "decay_mult": 1.0})

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


def caffe_groups(named: Iterable[tuple[str, Tensor]]) -> list[dict[str, Any]]:
    """Weights with multipliers 1 and 1, biases with 2 for the rate and no decay."""
    parameters = list(named)
    weights = [value for name, value in parameters if not name.endswith("bias")]
    biases = [value for name, value in parameters if name.endswith("bias")]
    return [
        {"params": weights, "lr_mult": 1.0, "decay_mult": 1.0},
        {"params": biases, "lr_mult": 2.0, "decay_mult": 0.0},
    ]


def rate_at(iteration: int, base: float, step: int, gamma: float) -> float:
    """Rate of an iteration (0-based): multiplied by `gamma` every `step`."""
    return base * gamma ** (iteration // step)


class Accuracy(NamedTuple):
    """Of clips, each on its own, and of videos."""

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
    """Classify clips, of which each process may see its own part.

    Args:
        net: on its device.
        batches: clips and the index of the video that each is of.
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
