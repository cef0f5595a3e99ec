"""C3D: 3 x 3 x 3 convolutions, max pooling, and FC-6, whose output is the feature.

Conventions: clips are float (B, 3, 16, crop, crop), pre-processed as the weights
require; features are float (B, D), FC-6 after ReLU, no dropout, no normalisation.
Parameters have Caffe's names (`conv1a.weight` ... `fc6.bias`), and Caffe's order
of axes is torch's: (out, in, time, row, column), flattened as C, T, H, W.

Sources: Tran et al., "Learning Spatiotemporal Features with 3D Convolutional
Networks"; facebookarchive/C3D `conv3d_ucf101_train.prototxt` (small),
`c3d_sport1m_feature_extractor_frm.prototxt` (full), `pool3d_layer.cpp`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from aqa.cache.errors import AqaError

#: Frames per clip: four poolings of time leave one.
CLIP = 16

POOL5 = ("ceil", "padded")


@dataclass(frozen=True)
class Architecture:
    """Sizes of a C3D network: channels of each convolution, grouped by pooling.

    `crop` is the side of a frame, an odd multiple of 16 so that both variants of the
    last pooling give the same size.
    """

    name: str
    widths: tuple[tuple[int, ...], ...]
    features: int
    crop: int = 112

    def __post_init__(self) -> None:
        """Raise AqaError for sizes that the poolings cannot halve."""
        if len(self.widths) != 5 or self.crop % 32 != 16:
            raise AqaError(
                "architecture: expected five groups of convolutions and a crop that "
                f"is an odd multiple of 16, found {len(self.widths)} and {self.crop}"
            )

    @property
    def pooled(self) -> int:
        """Inputs of FC-6: 4096 for c3d-small, 8192 for c3d-full."""
        side = (self.crop // 16 + 1) // 2
        return self.widths[-1][-1] * side * side

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter, by Caffe's name."""
        shapes: dict[str, tuple[int, ...]] = {}
        inputs = 3
        for group, widths in enumerate(self.widths, start=1):
            for letter, outputs in zip("abcdefgh", widths, strict=False):
                shapes[f"conv{group}{letter}.weight"] = (outputs, inputs, 3, 3, 3)
                shapes[f"conv{group}{letter}.bias"] = (outputs,)
                inputs = outputs
        shapes["fc6.weight"] = (self.features, self.pooled)
        shapes["fc6.bias"] = (self.features,)
        return shapes


ARCHITECTURES = {
    arch.name: arch
    for arch in (
        # For the demo and for tests: c3d-small, a quarter as wide.
        Architecture("c3d-tiny", ((16,), (32,), (64,), (64,), (64,)), 256),
        # Used by the paper's code: five convolutions, C3D's UCF-101 network.
        Architecture("c3d-small", ((64,), (128,), (256,), (256,), (256,)), 2048),
        # Sports-1M's network: eight convolutions.
        Architecture(
            "c3d-full",
            ((64,), (128,), (256, 256), (512, 512), (512, 512)),
            4096,
        ),
    )
}


class C3D(nn.Module):
    """The network up to FC-6.

    `pool5` "ceil" is the last pooling of Caffe (windows cut off at the far edge),
    "padded" that of PyTorch ports (windows start one pixel earlier). It belongs to
    the weights: most features differ.
    """

    def __init__(self, arch: Architecture, pool5: str = "ceil") -> None:
        """Create the layers, with torch's default initialisation."""
        super().__init__()
        if pool5 not in POOL5:
            raise AqaError(f"pool5: expected one of {POOL5}, found {pool5!r}")
        self.arch = arch
        self.pool5 = pool5
        groups: list[list[nn.Conv3d]] = [[] for _ in arch.widths]
        for name, shape in arch.shapes().items():
            layer, _, kind = name.partition(".")
            if kind == "weight" and layer != "fc6":
                conv = nn.Conv3d(shape[1], shape[0], kernel_size=3, padding=1)
                self.add_module(layer, conv)
                groups[int(layer[4]) - 1].append(conv)
        #: Convolutions by group; a pooling follows each group.
        self.groups = tuple(map(tuple, groups))
        self.fc6 = nn.Linear(arch.pooled, arch.features)

    def pool(self, x: Tensor, group: int) -> Tensor:
        """Apply the pooling after a group: halves space and, except after 0, time."""
        if group == len(self.groups) - 1 and self.pool5 == "padded":
            return functional.max_pool3d(x, 2, padding=(0, 1, 1))
        kernel = (1, 2, 2) if group == 0 else (2, 2, 2)
        return functional.max_pool3d(x, kernel, ceil_mode=True)

    def forward(self, clips: Tensor) -> Tensor:
        """Return features of clips: (B, 3, 16, crop, crop) -> (B, D)."""
        return self.feature(self.pooled(clips))

    def pooled(self, x: Tensor, group: int = 0, layer: int = 0) -> Tensor:
        """Run from the input of convolution `layer` of `group` to the input of FC-6."""
        for g in range(group, len(self.groups)):
            *before, last = self.groups[g][layer if g == group else 0 :]
            for conv in before:
                x = functional.relu_(convolve(conv, x, pad=1))
            # ReLU commutes with max pooling; after it there are fewer values.
            x = functional.relu_(self.pool(convolve(last, x, pad=1), g))
        return x.flatten(1)  # (B, C, 1, h, w) -> (B, C h w)

    def feature(self, x: Tensor) -> Tensor:
        """Apply FC-6 and ReLU: (B, inputs) -> (B, D)."""
        return functional.relu(self.fc6(x))


def convolve(
    conv: nn.Conv3d, x: Tensor, taps: slice = slice(None), pad: int = 0
) -> Tensor:
    """Convolve with some taps in time: (B, C, T, H, W) -> (B, O, T', H, W).

    Rows and columns are padded by one, time by `pad`; `taps` of the kernel's three
    taps in time are used, so that T' = T + 2 pad - taps + 1. With few input channels,
    the frames under the kernel are stacked as channels of one image and convolved in
    2-D: the same sums, more than twice as fast on CPU.
    """
    weight = conv.weight[:, :, taps]
    if conv.in_channels >= 8:
        return functional.conv3d(x, weight, conv.bias, padding=(pad, 1, 1))
    x = functional.pad(x, (0, 0, 0, 0, pad, pad)).movedim(1, -1)  # (B, T, H, W, C)
    depth = weight.shape[2]
    length = x.shape[1] - depth + 1
    images = torch.cat([x[:, t : t + length] for t in range(depth)], dim=-1)
    stacked = weight.transpose(1, 2).flatten(1, 2)  # (O, taps C, 3, 3), as `images`
    stacked = stacked.contiguous(memory_format=torch.channels_last)
    y = functional.conv2d(
        images.flatten(0, 1).movedim(-1, 1), stacked, conv.bias, padding=1
    )
    return y.view(-1, length, *y.shape[1:]).movedim(1, 2)


def random_state(arch: Architecture, seed: int = 0) -> dict[str, Tensor]:
    """Return He-normal weights and zero biases, the same per seed on every machine."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in arch.shapes().items():
        if name.endswith("bias"):
            state[name] = torch.zeros(shape)
        else:
            values = rng.standard_normal(shape, dtype=np.float32)
            scale = np.float32(math.sqrt(2 / math.prod(shape[1:])))
            state[name] = torch.from_numpy(values * scale)
    return state


def build(arch: Architecture, state: Mapping[str, Tensor], pool5: str = "ceil") -> C3D:
    """Return a network with the parameters of `state`, which must match exactly."""
    with torch.device("meta"):
        net = C3D(arch, pool5)
    net.load_state_dict(state, strict=True, assign=True)
    return net.eval().requires_grad_(False)
