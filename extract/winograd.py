"""3 x 3 x 3 convolutions by Winograd's F(4 x 4, 3 x 3), fp32 on CPU.

Four outputs y of a 3-tap filter g over six inputs d take six multiplications, in place
of twelve, when both are transformed first:

    y = A [(G g) * (B d)]

and a tile of 4 x 4 outputs takes 36, in place of 144: A [(G g G') * (B d B')] A' (Lavin
and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). A filter of C3D
also has channels and three taps in time. Both are summed while transformed: each of
the 36 points is one product of three times the depth,

    (frames x tiles, 3 x channels) @ (3 x channels, outputs),

computed as a convolution in time of images whose columns are the tiles. A and B follow
from the points 0, a, -a, b, -b and infinity, at which polynomials are multiplied:

        1  1   1   1   1   0        a2b2    0  -a2-b2    0    1  0
    A = 0  a  -a   b  -b   0    B =   0   -ab2   -b2     a    1  0
        0  a2  a2  b2  b2  0          0    ab2   -b2    -a    1  0
        0  a3 -a3  b3 -b3  1          0   -a2b   -a2     b    1  0
                                      0    a2b   -a2    -b    1  0
                                      0   a2b2    0  -a2-b2   0  1

With a = 3/4 and b = 3/2, exact in binary, errors are half those with the usual 1 and 2.
Points in time too, F(2, 3), would gain less than a tenth by a count of operations.

Which layers are computed this way follows from their sizes, never from a timing, so
that features do not depend on how busy the machine is. Against float64, the error of
features is 0.6 to 1.3 times that of direct fp32, 5e-7 to 1.5e-6 of the largest; another
processor changes them as much. So both may be mixed, and the provenance tells neither.

Conventions: activations are (N, T, row, column, channel) in memory. Transformed weights
take four times the memory of the weights, and are computed once, in float64.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aqa.extract.c3d import C3D
from aqa.extract.overlap import Layer, layers, slices

#: The points a and b; then all but infinity.
NEAR, FAR = 0.75, 1.5
POINTS = (0, NEAR, -NEAR, FAR, -FAR)

#: Rows of G: a filter's value at a point, over the distances to the other points.
FILTERS = [
    [1 / math.prod(p - q for q in POINTS if q != p) * p**k for k in range(3)]
    for p in POINTS
] + [[0, 0, 1]]

#: Rows of a product, frames x tiles, and frames at most where time can be cut: few rows
#: are slow to multiply, many do not stay in the cache.
BLOCK_ROWS, BLOCK_FRAMES = 1024, 24


def worthwhile(layer: Layer) -> bool:
    """Return whether a layer is faster so: few channels do not repay transforms."""
    return layer.inputs >= 64 and layer.outputs >= 128


def prepare(net: C3D) -> dict[nn.Conv3d, "Winograd"]:
    """Transform the weights of the layers of a network that are faster this way."""
    scratch = Scratch()
    chosen = [layer for layer in layers(net.arch) if worthwhile(layer)]
    convolutions = [net.groups[layer.group][layer.index] for layer in chosen]
    return {conv: Winograd(conv, scratch) for conv in convolutions}


class Scratch(dict[str, Tensor]):
    """Buffers that all layers share: fresh pages cost as much as the transforms."""

    def take(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Return a tensor of this shape whose content is undefined."""
        count = math.prod(shape)
        if name not in self or self[name].numel() < count:
            self[name] = like.new_empty(count)
        return self[name][:count].view(shape)


class Winograd:
    """One layer: a `aqa.extract.overlap.Convolution`."""

    def __init__(self, conv: nn.Conv3d, scratch: Scratch) -> None:
        """Transform the weights."""
        assert conv.bias is not None
        self._bias = conv.bias
        self._scratch = scratch
        filters = torch.tensor(FILTERS, dtype=torch.float64)
        weight = conv.weight.double()
        rows = (row @ weight for row in filters)  # of (O, C, 3, 3)
        #: By row and column of the point.
        self._weights = [[_packed(row @ column) for column in filters] for row in rows]

    def __call__(self, x: Tensor, *, before: bool, after: bool, pooled: bool) -> Tensor:
        """Compute the layer block by block."""
        batch, length, height, width, _ = x.shape
        step = 2 if pooled else 4
        made = length - 2 + before + after
        sides = height * step // 4, width * step // 4
        out = x.new_empty(batch, made, *sides, len(self._bias))
        down, across = -(-height // 4), -(-width // 4)
        # Time is not cut where its ends are padded; there it is short.
        frames = made if before or after else min(made, BLOCK_FRAMES)
        tiles_down = min(down, max(BLOCK_ROWS // (frames * across), 1))
        clips = max(BLOCK_ROWS // (frames * across * tiles_down), 1)
        blocks = slices(batch, clips), slices(down, tiles_down), slices(made, frames)
        for some, rows, at in itertools.product(*blocks):
            seen = x[some, at.start : at.stop + 2 - before - after]
            points = self._points(seen, rows, before, after)
            tiles = self._products(points)
            shape = -1, rows.stop - rows.start, across
            tiles = tiles.unflatten(3, shape)  # type: ignore[no-untyped-call]
            self._store(tiles, out[some, at, step * rows.start :], pooled)
        return out

    def _points(self, x: Tensor, rows: slice, before: bool, after: bool) -> Tensor:
        """Transform the inputs to some rows of tiles: (6, 6, T, N x tiles, C).

        T has a frame of zeros more at each padded end of time.
        """
        take = self._scratch.take
        batch, length, height, width, channels = x.shape
        down, across = rows.stop - rows.start, -(-width // 4)
        sides = 4 * down + 2, 4 * across + 2
        padded = take("padded", x, length, batch, *sides, channels).zero_()
        top = 4 * rows.start - 1
        begin, end = max(top, 0), min(top + sides[0], height)
        seen = x[:, :, begin:end].transpose(0, 1)
        padded[:, :, begin - top : end - top, 1 : width + 1] = seen
        by_row = take("by row", x, 6, length, batch, down, sides[1], channels)
        inputs = [padded[:, :, i : i + 4 * down - 3 : 4] for i in range(6)]
        _forward(inputs, by_row, self._scratch)
        depth = before + length + after
        points = take("points", x, 6, 6, depth, batch, down, across, channels)
        points[:, :, :before] = 0
        points[:, :, before + length :] = 0
        inputs = [by_row[..., j : j + 4 * across - 3 : 4, :] for j in range(6)]
        inside = points[:, :, before : before + length].transpose(0, 1)
        _forward(inputs, inside, self._scratch)
        return points.flatten(3, 5)

    def _products(self, points: Tensor) -> Tensor:
        """Multiply and transform back: (6, 6, T, n, C) -> (4, 4, T', n, O)."""
        length, count = points.shape[2:4]
        shape = length - 2, count, len(self._bias)
        half = self._scratch.take("half", points, 6, 4, *shape)
        for i, weights in enumerate(self._weights):
            pairs = zip(points[i], weights, strict=True)
            _inverse([_product(*pair) for pair in pairs], half[i])
        tiles = self._scratch.take("tiles", points, 4, 4, *shape)
        _inverse(list(half), tiles)
        return tiles

    def _store(self, tiles: Tensor, out: Tensor, pooled: bool) -> None:
        """Pool if asked, add the bias, ReLU: (4, 4, T, N, down, across, O) -> `out`."""
        if pooled:
            tiles = torch.maximum(tiles[::2], tiles[1::2], out=tiles[::2])
            tiles = torch.maximum(tiles[:, ::2], tiles[:, 1::2], out=tiles[:, ::2])
        tiles.add_(self._bias)
        step, down = len(tiles), tiles.shape[4]
        for i, j in itertools.product(range(step), repeat=2):
            target = out[:, :, i : step * down : step, j::step]
            # Outputs beyond the last row or column are dropped.
            tile = tiles[i, j, :, :, : target.shape[2], : target.shape[3]]
            torch.clamp_min(tile.transpose(0, 1), 0, out=target)


def _forward(d: Sequence[Tensor], out: Tensor, scratch: Scratch) -> None:
    """Compute out = B d; both are six tensors."""
    even, odd = (scratch.take(name, out, *out.shape[1:]) for name in ("even", "odd"))
    for point, other, k in ((FAR, NEAR, 3), (NEAR, FAR, 1)):
        torch.sub(d[3], d[1], alpha=other**2, out=odd)
        torch.sub(d[4], d[2], alpha=other**2, out=even)
        torch.add(even, odd, alpha=point, out=out[k])
        torch.sub(even, odd, alpha=point, out=out[k + 1])
    torch.sub(d[2], d[0], alpha=FAR**2, out=out[0])
    torch.sub(even, out[0], alpha=NEAR**2, out=out[0])
    torch.sub(d[5], d[3], alpha=FAR**2, out=out[5]).sub_(odd, alpha=NEAR**2)


def _inverse(m: Sequence[Tensor], out: Tensor) -> None:
    """Compute out = A m, of four and of six tensors; `m` is overwritten."""
    ratio = FAR / NEAR
    even = torch.add(m[1], m[2], out=out[0])
    odd = m[1].sub_(m[2])
    far_even = torch.add(m[3], m[4], out=m[2])
    far_odd = m[3].sub_(m[4])
    torch.add(even, far_even, alpha=ratio**2, out=out[2]).mul_(NEAR**2)
    torch.add(odd, far_odd, alpha=ratio, out=out[1]).mul_(NEAR)
    odd.add_(far_odd, alpha=ratio**3)
    torch.add(m[5], odd, alpha=NEAR**3, out=out[3])
    even.add_(far_even).add_(m[0])


#: Of a product as a convolution: padding, stride, dilation, groups.
SIZES = (0, 0), (1, 1), (1, 1), 1


def _packed(point: Tensor) -> Tensor:
    """Lay out the weights of a point, (O, C, 3), as the product reads them fastest."""
    weight = point.float()[..., None].contiguous(memory_format=torch.channels_last)
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return weight
    reorder: Any = torch.ops.aten.mkldnn_reorder_conv2d_weight
    packed: Tensor = reorder(weight.to_mkldnn(), *SIZES, (1, weight.shape[1], 8, 64))
    return packed


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """Sum over channels and three taps in time: (T, n, C) -> (T', n, O)."""
    image = x[None].movedim(-1, 1)  # (1, C, T, n)
    if weight.is_mkldnn:
        fused: Any = torch.ops.mkldnn._convolution_pointwise
        y: Tensor = fused(image, weight, None, *SIZES, "none", [], "")
    else:
        y = functional.conv2d(image, weight)
    return y.movedim(1, -1)[0]
