"""Features of the overlapping clips of one video, without computing anything twice.

Copies of a video start one frame apart, so a frame lies in up to six clips. The output
of a convolution at a frame depends on its neighbours only, and differs between clips
only where a clip's zero padding in time reaches: one frame at each end of the clip
after the first convolution, two after the second. These frames are a clip's edges.

So the leading layers run once over the whole video, without padding in time; the
result is called a track. Edges are computed per clip, from the kernel taps that lie
inside the clip, which is what zero padding amounts to. Pooling time by two splits a
track in two: one for clips that start at even frames, one for odd. Layers are shared
as long as that saves work; then each clip is assembled from its edges and its piece of
the track, and the remaining layers run clip by clip. Clips that begin with enough
black padding have the same first edge, which is computed once.

Conventions: activations are (..., time, row, column, channel) in memory, the layout
that convolutions are fastest in on CPU and GPU. `starts` are the first frames of the
clips, distinct and ascending. Work is counted in output frames of a layer or in
multiplications; an edge frame that sees two taps in time of three counts as two
thirds. A batch never spans videos and its size follows from the network alone, so that
features depend on their own video only.

Exactness: sharing changes no sum, but kernels for batches of other shapes round in
another order. In fp32 on CPU, shared and plain features differed by 1e-6 to 2.1e-6 of
the largest where it was measured, whether layers are direct or computed by `winograd`,
and for videos that are black in part, too. Either way their error against float64 is
about 1e-6.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from aqa.extract.c3d import C3D, CLIP, Architecture, convolve

#: Share a layer if at most this fraction of its frames is left to compute.
SHARING_THRESHOLD = 0.9

#: A convolution with zero padding in space, max pooling of rows and columns by two if
#: `pooled`, and ReLU: (N, T, H, W, C) -> (N, T', H', W', O). `before` and `after` ask
#: for zero padding at that end of time, so that T' = T - 2 + before + after.
Convolution = Callable[..., Tensor]

#: Kernel taps in time that the first and the last frame of a clip see.
FIRST_FRAME, LAST_FRAME = slice(1, None), slice(0, -1)


@dataclass(frozen=True)
class Layer:
    """Sizes of one convolution of the network."""

    group: int
    index: int
    inputs: int
    outputs: int
    #: Rows, and columns.
    side: int
    #: Frames per clip.
    length: int
    #: Whether time is pooled before this layer; whether rows and columns are after it,
    #: but for the last pooling, of which the network has two variants.
    halved: bool
    pooled: bool

    @property
    def multiplications(self) -> int:
        """Multiplications per output frame."""
        return 27 * self.inputs * self.outputs * self.side**2

    @property
    def values(self) -> int:
        """Values per output frame."""
        return self.outputs * self.side**2


def layers(arch: Architecture) -> Iterator[Layer]:
    """Yield the convolutions of a network in order."""
    inputs, side, length = 3, arch.crop, CLIP
    for group, widths in enumerate(arch.widths):
        if halved := group > 1:
            length = math.ceil(length / 2)
        for index, outputs in enumerate(widths):
            first, last = index == 0, index == len(widths) - 1
            pooled = last and group < len(arch.widths) - 1
            yield Layer(
                group, index, inputs, outputs, side, length, halved and first, pooled
            )
            inputs = outputs
        side = math.ceil(side / 2)


def shared_layers(arch: Architecture, starts: Sequence[int]) -> dict[Layer, float]:
    """Return the leading layers to share, each with the frames left to compute."""
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
        for same in _by_remainder(starts, step).values():
            frames += (same[-1] - same[0]) // step + inside
        if frames > SHARING_THRESHOLD * len(starts) * layer.length:
            break
        shared[layer] = frames
    return shared


def multiplications(arch: Architecture, starts: Sequence[int], plain: bool) -> float:
    """Count the multiplications in the convolutions of all clips.

    `plain` counts each clip in full; otherwise shared layers are counted once.
    """
    shared = {} if plain else shared_layers(arch, starts)
    return sum(
        layer.multiplications * shared.get(layer, len(starts) * layer.length)
        for layer in layers(arch)
    )


@dataclass(frozen=True)
class BatchSize:
    """How much is computed at once.

    `track_bytes` bounds the output of one convolution; `clips` is the number of clips
    that go through the layers together which are not shared.
    """

    track_bytes: int
    clips: int

    def halved(self) -> "BatchSize | None":
        """Return half the size, for a device out of memory; None below one clip."""
        if self.clips == 1:
            return None
        return BatchSize(self.track_bytes // 2, self.clips // 2)


#: Above 32 MB, malloc on Linux requests fresh pages for each block, which takes longer
#: than the first convolution.
CPU = BatchSize(track_bytes=13 << 20, clips=6)
CUDA = BatchSize(track_bytes=1 << 29, clips=64)


def shared_features(
    net: C3D,
    video: Tensor,
    starts: Sequence[int],
    *,
    black: int = 0,
    batch: BatchSize = CPU,
    faster: Mapping[nn.Conv3d, Convolution] | None = None,
) -> Tensor:
    """Return features of the clips at `starts`: video (T, crop, crop, 3) -> (clips, D).

    The first `black` frames are known to be black padding. `faster` has the layers of
    the network that are computed otherwise than directly (`aqa.extract.winograd`).
    """
    convolutions = [
        (layer, (faster or {}).get(conv) or partial(_direct, conv))
        for layer in layers(net.arch)
        for conv in [net.groups[layer.group][layer.index]]
    ]
    shared = shared_layers(net.arch, starts)
    # The first edges of clips that see only black frames are equal: compute the last.
    dark = [start for start in starts if start + _seen_by_edge(shared) <= black]
    edge_of = [dark[-1] if start in dark else start for start in starts]
    clips = ClipActivations(video, starts, edge_of)
    for layer, convolution in convolutions[: len(shared)]:
        if layer.halved:
            clips.pool_time()
        frames = batch.track_bytes // (layer.values * video.element_size())
        clips.convolve(partial(convolution, pooled=layer.pooled), frames)
    inputs = []
    for some in slices(len(starts), batch.clips):
        x = clips.assembled(some)  # (N, T, H, W, C)
        for layer, convolution in convolutions[len(shared) :]:
            if layer.halved:
                x = _max_of_pairs(x, 1)
            size = layer.length * layer.values * x.element_size()
            x = _joined(
                [
                    convolution(x[few], before=True, after=True, pooled=layer.pooled)
                    for few in slices(len(x), batch.track_bytes // size)
                ]
            )
        inputs.append(net.pool(x.movedim(-1, 1), len(net.groups) - 1).flatten(1))
    return net.feature(torch.cat(inputs))


def plain_features(
    net: C3D, video: Tensor, starts: Sequence[int], *, batch: BatchSize = CPU
) -> Tensor:
    """Return the same clip by clip, sharing nothing: the reference."""
    first = next(layers(net.arch))
    at_once = batch.track_bytes // (first.values * CLIP * video.element_size())
    inputs = []
    for some in slices(len(starts), at_once):
        clips = [video[start : start + CLIP].movedim(-1, 0) for start in starts[some]]
        inputs.append(net.pooled(torch.stack(clips)))
    return net.feature(torch.cat(inputs))


def _seen_by_edge(shared: Iterable[Layer]) -> int:
    """Return how many frames of a clip its first edge depends on."""
    step, edge, seen = 1, 0, 1
    for layer in shared:
        if layer.halved:
            seen += step
            step, edge = 2 * step, edge // 2
        seen += step
        edge += 1
    return seen + step * (edge - 1)


class ClipActivations:
    """Activations of all clips of a video, after some of the layers.

    Item i of a clip that starts at frame s stands for frame s + i `step`. The first
    and the last `edge` items of a clip are its own; those between are a piece of the
    track whose frames have the same remainder modulo `step` as s.
    """

    def __init__(
        self, video: Tensor, starts: Sequence[int], edge_of: Sequence[int]
    ) -> None:
        """Start from frames (T, H, W, 3).

        `edge_of` gives, for each clip, a start that has the same first edge.
        """
        self.starts = starts
        self._step, self._edge, self._length = 1, 0, CLIP
        begin, end = starts[0], starts[-1] + CLIP
        #: By remainder: the frame that the first item stands for, and the items.
        self._tracks = {0: (begin, video[begin:end])}
        self._first_starts = sorted(set(edge_of))
        self._first_of = [self._first_starts.index(start) for start in edge_of]
        self._firsts = video.new_empty(len(self._first_starts), 0, *video.shape[1:])
        self._lasts = video.new_empty(len(starts), 0, *video.shape[1:])

    def convolve(self, convolution: Convolution, frames: int) -> None:
        """Apply a convolution with zero padding at both ends of each clip.

        About `frames` output frames are computed at once; time is pooled by
        `pool_time`.
        """
        at_once = frames // (self._edge + 1)
        firsts, lasts = [], []
        for some in slices(len(self._first_starts), at_once):
            inside = self._pieces(self._first_starts[some], self._edge, 2)
            x = torch.cat([self._firsts[some], inside], dim=1)  # (B, edge + 2, ...)
            firsts.append(convolution(x, before=True, after=False))
        for some in slices(len(self.starts), at_once):
            inside = self._pieces(self.starts[some], self._length - self._edge - 2, 2)
            x = torch.cat([inside, self._lasts[some]], dim=1)
            lasts.append(convolution(x, before=False, after=True))
        self._firsts, self._lasts = _joined(firsts), _joined(lasts)
        self._edge += 1
        for remainder, (origin, items) in self._tracks.items():
            pieces = [
                convolution(
                    items[None, some.start : some.stop + 2], before=False, after=False
                )[0]
                for some in slices(len(items) - 2, frames)
            ]
            self._tracks[remainder] = origin + self._step, _joined(pieces)

    def pool_time(self) -> None:
        """Pool time by two; `edge` must be even."""
        step, edge, length = 2 * self._step, self._edge // 2, self._length // 2
        tracks = {}
        for remainder, same in _by_remainder(self.starts, step).items():
            first = same[0] + step * edge
            count = (same[-1] - same[0]) // step + length - 2 * edge
            origin, items = self._tracks[remainder % self._step]
            begin = (first - origin) // self._step
            pooled = _max_of_pairs(items[begin : begin + 2 * count], 0)
            tracks[remainder] = first, pooled
        self._tracks = tracks
        self._firsts = _max_of_pairs(self._firsts, 1)
        self._lasts = _max_of_pairs(self._lasts, 1)
        self._step, self._edge, self._length = step, edge, length

    def assembled(self, some: slice) -> Tensor:
        """Return some of the clips whole: (B, T, H, W, C)."""
        count = self._length - 2 * self._edge
        inside = self._pieces(self.starts[some], self._edge, count)
        first = self._firsts[self._first_of[some]]
        return torch.cat([first, inside, self._lasts[some]], dim=1)

    def _pieces(self, starts: Sequence[int], item: int, count: int) -> Tensor:
        """Return `count` items from `item` on of the clips at `starts`, stacked."""
        pieces = []
        for start in starts:
            origin, items = self._tracks[start % self._step]
            first = (start - origin) // self._step + item
            pieces.append(items[first : first + count])
        return torch.stack(pieces)


def _direct(
    conv: nn.Conv3d, x: Tensor, *, before: bool, after: bool, pooled: bool
) -> Tensor:
    """Compute a `Convolution` as it is defined."""
    if before and after:
        y = _pooled(conv, x, pooled, pad=1)
    else:
        # An end that sees two taps apart from what sees all three.
        parts = [_pooled(conv, x, pooled)] if x.shape[1] > 2 else []
        if before:
            parts.insert(0, _pooled(conv, x[:, :2], pooled, FIRST_FRAME))
        if after:
            parts.append(_pooled(conv, x[:, -2:], pooled, LAST_FRAME))
        y = _joined(parts, dim=1)
    return functional.relu_(y)


def _pooled(
    conv: nn.Conv3d,
    x: Tensor,
    pooled: bool,
    taps: slice = slice(None),
    pad: int = 0,
) -> Tensor:
    """Convolve, and pool rows and columns if asked: (N, T, H, W, C) in and out."""
    y = convolve(conv, x.movedim(-1, 1), taps, pad).movedim(1, -1)
    if pooled:
        y = torch.maximum(y[:, :, ::2], y[:, :, 1::2])
        y = torch.maximum(y[:, :, :, ::2], y[:, :, :, 1::2])
    return y


def _joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def _max_of_pairs(x: Tensor, dim: int) -> Tensor:
    """Return the maxima of items 0 and 1, of 2 and 3, and so on."""
    even, odd = x.unfold(dim, 2, 2).unbind(-1)
    return torch.maximum(even, odd)


def _by_remainder(starts: Sequence[int], step: int) -> dict[int, list[int]]:
    """Group `starts` by their remainder modulo `step`."""
    groups: dict[int, list[int]] = {}
    for start in starts:
        groups.setdefault(start % step, []).append(start)
    return groups


def slices(length: int, most: int) -> Iterator[slice]:
    """Split a range into nearly equal slices of at most `most`.

    A small remainder would take other kernels, which are slower and round differently.
    """
    count = -(-length // max(most, 1))
    for i in range(count):
        yield slice(i * length // count, (i + 1) * length // count)
