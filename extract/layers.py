"""The convolutions of C3D in numbers: what they cost, and which are worth sharing.

Conventions: work is counted in frames of a layer's output, and in multiplications; a
frame at the end of a clip, whose kernel has two taps in time of three, counts as two
thirds. `starts` are the first frames of a video's clips, distinct and ascending. How
clips share is told in `aqa.extract.sharing`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from aqa.extract.c3d import CLIP, Architecture

#: Share a layer if this much of its frames, at most, is left to compute.
WORTH = 0.9


@dataclass(frozen=True)
class Layer:
    """A convolution's place in the network and its sizes."""

    group: int
    index: int
    inputs: int
    outputs: int
    #: Rows, and columns.
    side: int
    #: Frames of a clip.
    length: int
    #: Whether it comes after a pooling of time; whether a pooling comes after it.
    halved: bool
    pooled: bool

    @property
    def multiplications(self) -> int:
        """For one frame of output."""
        return 27 * self.inputs * self.outputs * self.side**2

    @property
    def values(self) -> int:
        """In one frame of output."""
        return self.outputs * self.side**2


def layers(arch: Architecture) -> Iterator[Layer]:
    """Yield the convolutions of a network in order."""
    inputs, side, length = 3, arch.crop, CLIP
    for group, widths in enumerate(arch.widths):
        if halved := group > 1:
            length = math.ceil(length / 2)
        for index, outputs in enumerate(widths):
            first, last = index == 0, index == len(widths) - 1
            yield Layer(
                group, index, inputs, outputs, side, length, halved and first, last
            )
            inputs = outputs
        side = math.ceil(side / 2)


def worth_sharing(arch: Architecture, starts: Sequence[int]) -> dict[Layer, float]:
    """The leading layers to share, each with the frames of output left to compute.

    A frame with two taps of three counts as two thirds.
    """
    shared: dict[Layer, float] = {}
    step, edge = 1, 0
    for layer in layers(arch):
        if layer.halved:
            if edge % 2:
                break
            step, edge = 2 * step, edge // 2
        edge += 1
        if (inside := layer.length - 2 * edge) < 1:
            break
        frames = len(starts) * 2 * (edge - 1 / 3)
        for remainder in {start % step for start in starts}:
            own = [start for start in starts if start % step == remainder]
            frames += (own[-1] - own[0]) // step + inside
        if frames > WORTH * len(starts) * layer.length:
            break
        shared[layer] = frames
    return shared


def multiplications(arch: Architecture, starts: Sequence[int], plain: bool) -> float:
    """What the convolutions of all clips multiply, shared or not."""
    shared = {} if plain else worth_sharing(arch, starts)
    return sum(
        layer.multiplications * shared.get(layer, len(starts) * layer.length)
        for layer in layers(arch)
    )


def seen_by_end(shared: Iterable[Layer]) -> int:
    """Frames at the beginning of a clip that its own first end depends on."""
    step, edge, seen = 1, 0, 1
    for layer in shared:
        if layer.halved:
            seen += step
            step, edge = 2 * step, edge // 2
        seen += step
        edge += 1
    return seen + step * (edge - 1)
