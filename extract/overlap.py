"""The convolutions of C3D in numbers: what they cost, and which are worth sharing.

Conventions: work is counted in frames of a layer's output, and in multiplications; a
frame at the end of a clip, whose kernel has two taps in time of three, counts as two
thirds. `starts` are the first frames of a video's clips, distinct and ascending. How
clips share is told in `aqa.extract.overlap`.

Features of all clips of one video, where clips overlap and nothing is done twice.

Copies of a video start one frame apart, so a frame sits in up to six clips. What a
convolution gives at a frame depends on its neighbours only; it differs between clips
just where the zero padding of a clip's ends is seen: one frame at each end after the
first convolution, two after the second. So the first convolutions run once over the
whole video, without padding in time: that is a track. Each clip's ends are computed
apart, the kernel's taps cut to what lies inside the clip, which is what zero padding
gives. Pooling time by two makes two tracks of one, for clips that start at even and
at odd frames. After the layers for which all this is less work than clip by clip,
the clips are put together from their ends and the track, and go on alone.

Clips that begin with enough black padding have the same first end, computed once.

Conventions: activations lie in memory as (..., time, row, column, channel), which is
what convolutions like best on CPU and GPU; `starts` are the first frames of the
clips, distinct and ascending. A batch never spans videos, and its size follows from
the sizes of the network alone, so that features depend on their video only.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from aqa.extract.c3d import C3D, CLIP, Architecture, convolve

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


#: Taps in time of a frame that is the first, or the last, of its clip.
AT_FIRST, AT_LAST = slice(1, None), slice(0, -1)


@dataclass(frozen=True)
class Batches:
    """How much is computed at once.

    `track_bytes` bounds what one convolution of track or ends gives; `clips` go on
    together afterwards.
    """

    track_bytes: int
    clips: int

    def halved(self) -> "Batches | None":
        """Half as much, for a device whose memory is full; None when none is left."""
        if self.clips == 1:
            return None
        return Batches(self.track_bytes // 2, self.clips // 2)


#: Beyond 32 MB, malloc on Linux asks the system for fresh pages each time, which takes
#: longer than the first convolution.
CPU = Batches(track_bytes=26 << 20, clips=6)
CUDA = Batches(track_bytes=1 << 29, clips=64)


def shared_features(
    net: C3D,
    video: Tensor,
    starts: Sequence[int],
    *,
    black: int = 0,
    batches: Batches = CPU,
) -> Tensor:
    """Features of the clips at `starts`: video (T, crop, crop, 3) -> (clips, D).

    The first `black` frames are known to be black padding.
    """
    shared = worth_sharing(net.arch, starts)
    # Of the clips that begin with nothing but black, the last one's end does for all.
    dark = [start for start in starts if start + seen_by_end(shared) <= black]
    first_ends = [dark[-1] if start in dark else start for start in starts]
    clips = Clips(video, starts, first_ends)
    for layer in shared:
        if layer.halved:
            clips.halve()
        at_once = batches.track_bytes // (layer.values * video.element_size())
        clips.convolve(net.groups[layer.group][layer.index], layer.pooled, at_once)
    return _finish(net, clips, len(shared), batches.clips)


def plain_features(
    net: C3D, video: Tensor, starts: Sequence[int], *, batches: Batches = CPU
) -> Tensor:
    """Give the same, clip by clip: the oracle, which shares nothing but FC-6."""
    return _finish(net, Clips(video, starts, starts), 0, batches.clips)


def _finish(net: C3D, clips: "Clips", done: int, at_once: int) -> Tensor:
    """Features of the clips, given the output of the first `done` layers."""
    layer = list(layers(net.arch))[done]
    inputs = []
    for some in _slices(len(clips.starts), at_once):
        x = clips.whole(some)  # (B, T, H, W, C)
        if layer.halved:
            x = _pairs(x, dim=1)
        inputs.append(net.pooled(x.movedim(-1, 1), layer.group, layer.index))
    return net.feature(torch.cat(inputs))


class Clips:
    """All clips of a video, part way through the network.

    Item i of a clip that starts at frame s stands for frame s + i `step`. The first
    and the last `edge` items of a clip are its own; those between are a piece of the
    track whose frames have the same remainder by `step` as s.
    """

    def __init__(
        self, video: Tensor, starts: Sequence[int], first_ends: Sequence[int]
    ) -> None:
        """Begin with frames (T, H, W, 3).

        `first_ends` gives, for each clip, a start whose first end is the same.
        """
        self.starts = starts
        self._step, self._edge, self._length = 1, 0, CLIP
        begin, end = starts[0], starts[-1] + CLIP
        #: By remainder: the frame that the first item stands for, and the items.
        self._tracks = {0: (begin, video[begin:end])}
        self._firsts_at = sorted(set(first_ends))
        self._first_of = [self._firsts_at.index(start) for start in first_ends]
        self._firsts = video.new_empty(len(self._firsts_at), 0, *video.shape[1:])
        self._lasts = video.new_empty(len(starts), 0, *video.shape[1:])

    def convolve(self, conv: nn.Conv3d, pooled: bool, at_once: int) -> None:
        """Convolve with zeros before and after each clip, pool where asked, and ReLU.

        Pooling is of rows and columns only: that of time is `halve`. About `at_once`
        frames are made at once.
        """
        apply = partial(_apply, conv, pooled)
        firsts, lasts = [], []
        for some in _slices(len(self._firsts_at), at_once // (self._edge + 1)):
            inside = self._pieces(self._firsts_at[some], self._edge, 2)
            x = torch.cat([self._firsts[some], inside], dim=1)  # (B, edge + 2, ...)
            firsts.append(apply(x[:, :2], AT_FIRST))
            if self._edge:
                firsts[-1] = torch.cat([firsts[-1], apply(x)], dim=1)
        for some in _slices(len(self.starts), at_once // (self._edge + 1)):
            inside = self._pieces(self.starts[some], self._length - self._edge - 2, 2)
            x = torch.cat([inside, self._lasts[some]], dim=1)
            lasts.append(apply(x[:, -2:], AT_LAST))
            if self._edge:
                lasts[-1] = torch.cat([apply(x), lasts[-1]], dim=1)
        self._firsts, self._lasts = torch.cat(firsts), torch.cat(lasts)
        self._edge += 1
        for remainder, (origin, items) in self._tracks.items():
            pieces = [
                apply(items[None, some.start : some.stop + 2])[0]
                for some in _slices(len(items) - 2, at_once)
            ]
            self._tracks[remainder] = origin + self._step, torch.cat(pieces)

    def halve(self) -> None:
        """Pool time by two; `edge` is even."""
        step, edge, length = 2 * self._step, self._edge // 2, self._length // 2
        tracks = {}
        for remainder in {start % step for start in self.starts}:
            own = [start for start in self.starts if start % step == remainder]
            first = own[0] + step * edge
            count = (own[-1] - own[0]) // step + length - 2 * edge
            origin, items = self._tracks[remainder % self._step]
            begin = (first - origin) // self._step
            tracks[remainder] = first, _pairs(items[begin : begin + 2 * count], 0)
        self._tracks = tracks
        self._firsts, self._lasts = _pairs(self._firsts, 1), _pairs(self._lasts, 1)
        self._step, self._edge, self._length = step, edge, length

    def whole(self, some: slice) -> Tensor:
        """Put some of the clips together: (B, T, H, W, C)."""
        inside = self._pieces(
            self.starts[some], self._edge, self._length - 2 * self._edge
        )
        first = self._firsts[self._first_of[some]]
        return torch.cat([first, inside, self._lasts[some]], dim=1)

    def _pieces(self, starts: Sequence[int], item: int, count: int) -> Tensor:
        """Items `item` ... of the clips at `starts`, (B, count, H, W, C)."""
        pieces = []
        for start in starts:
            origin, items = self._tracks[start % self._step]
            first = (start - origin) // self._step + item
            pieces.append(items[first : first + count])
        return torch.stack(pieces)


def _apply(
    conv: nn.Conv3d, pooled: bool, x: Tensor, taps: slice = slice(None)
) -> Tensor:
    """Convolution, pooling where it follows, ReLU: (B, T, H, W, C), fewer by taps."""
    y = convolve(conv, x.movedim(-1, 1), taps).movedim(1, -1)  # (B, T, H, W, C)
    if pooled:
        images = y.flatten(0, 1).movedim(-1, 1)
        images = functional.max_pool2d(images, 2, ceil_mode=True).movedim(1, -1)
        y = images.view(*y.shape[:2], *images.shape[1:])
    return functional.relu_(y)


def _pairs(x: Tensor, dim: int) -> Tensor:
    """Maxima of items 0 and 1, of 2 and 3, and so on."""
    even, odd = x.unfold(dim, 2, 2).unbind(-1)
    return torch.maximum(even, odd)


def _slices(length: int, most: int) -> Iterator[slice]:
    """Cut into pieces of at most `most`, of one size or nearly.

    A small rest would take slower kernels, which round differently.
    """
    count = -(-length // max(most, 1))
    for i in range(count):
        yield slice(i * length // count, (i + 1) * length // count)
