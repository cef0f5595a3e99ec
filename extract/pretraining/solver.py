"""Caffe's stochastic gradient descent, which is not quite torch's.

Conventions: for each parameter, V = momentum V + rate_i (gradient + decay_i w), then
w = w - V, with rate_i = 2 rate and decay_i = 0 for biases (`lr_mult`, `decay_mult`
of C3D's prototxt). torch multiplies by the rate outside V, which is the same until
the rate drops: Caffe's velocity then still carries the old rate.

Source: facebookarchive/C3D `solver.cpp` (formula), `conv3d_ucf101_train.prototxt`.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


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
