"""Winograd's convolutions against direct ones in float64: all layers, both networks."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from aqa.extract import winograd
from aqa.extract.c3d import ARCHITECTURES, build
from aqa.extract.config import ExtractConfig
from aqa.extract.network import C3DExtractor
from aqa.extract.overlap import layers, plain_features, shared_features
from aqa.extract.weights.load import load_weights

NETWORKS = ("c3d-tiny", "c3d-small", "c3d-full")
#: (inputs, outputs, side, pooled) of every layer that is computed this way; the large
#: ones take seconds in float64.
SHAPES = sorted(
    {
        (layer.inputs, layer.outputs, layer.side, layer.pooled)
        for name in NETWORKS
        for layer in layers(ARCHITECTURES[name])
        if winograd.worthwhile(layer)
    }
)


def test_matrices_are_those_of_the_points():
    """A [(G g) * (B d)] is the convolution, for any filter and input."""
    rng = np.random.default_rng(0)
    a, b = winograd.NEAR, winograd.FAR
    points = np.array([0, a, -a, b, -b])
    back = np.vstack([[*points**k, float(k == 3)] for k in range(4)])
    for _ in range(5):
        g, d = rng.normal(size=3), rng.normal(size=6)
        out = torch.empty(6, 1, dtype=torch.float64)
        inputs = torch.from_numpy(d)[:, None]
        winograd._forward(list(inputs), out, winograd.Scratch())
        found = back @ ((np.array(winograd.FILTERS) @ g) * out[:, 0].numpy())
        np.testing.assert_allclose(found, np.correlate(d, g), rtol=1e-12)


@pytest.mark.parametrize(
    "inputs, outputs, side, pooled",
    [
        pytest.param(
            *shape, marks=[pytest.mark.slow] * (math.prod(shape[:3]) * shape[2] > 2e7)
        )
        for shape in SHAPES
    ],
)
@pytest.mark.parametrize("before, after", [(True, True), (True, False), (False, False)])
def test_each_layer_is_the_convolution(inputs, outputs, side, pooled, before, after):
    conv = torch.nn.Conv3d(inputs, outputs, 3)
    x = torch.relu(torch.randn(2, 4, side, side, inputs))
    faster = winograd.Winograd(conv, winograd.Scratch())
    with torch.inference_mode():
        found = faster(x, before=before, after=after, pooled=pooled)
        images = functional.pad(
            x.double().movedim(-1, 1), (1, 1, 1, 1, int(before), int(after))
        )
        y = functional.conv3d(images, conv.weight.double(), conv.bias.double())
        if pooled:
            y = functional.max_pool3d(y, (1, 2, 2))
        expected = torch.relu(y).movedim(1, -1)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-5 * expected.max()


def errors(net, video, starts):
    """Error of features against float64, of the largest: Winograd's and direct.

    Every layer but the first is computed by Winograd, worthwhile or not.
    """
    scratch = winograd.Scratch()
    fast = {
        conv: winograd.Winograd(conv, scratch)
        for group in net.groups[1:]
        for conv in group
    }
    with torch.inference_mode():
        found = (
            shared_features(net, video, starts, faster=fast),
            plain_features(net, video, starts),
        )
        exact = plain_features(net.double(), video.double(), starts)
    return [float((x.double() - exact).abs().max() / exact.max()) for x in found]


@pytest.mark.parametrize(
    "name",
    [
        "c3d-tiny",
        pytest.param("c3d-small", marks=pytest.mark.slow),
        pytest.param("c3d-full", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("weights", ["random", "tiny"])
def test_features_are_as_exact_as_direct_ones(name, weights):
    """Within 2e-5 of the largest and four times the error of direct fp32."""
    if weights == "tiny" and name != "c3d-tiny":
        pytest.skip("the shipped weights are of c3d-tiny")
    state = load_weights(weights, name).state
    net = build(ARCHITECTURES[name], state)
    rng = np.random.default_rng(0)
    video = torch.from_numpy(rng.normal(size=(17, 112, 112, 3)).astype(np.float32) * 60)
    fast, direct = errors(net, video, [0, 1])
    assert fast <= min(2e-5, 4 * direct)


def test_only_plain_extraction_is_all_direct():
    made = [
        C3DExtractor(
            ExtractConfig(weights="random", arch="c3d-small", device="cpu", plain=plain)
        )
        for plain in (False, True)
    ]
    assert made[0]._faster and not made[1]._faster
