"""Winograd's convolutions against direct ones in float64: all layers, both networks."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from aqa.extract import winograd
from aqa.extract.c3d import ARCHITECTURES, build, random_state
from aqa.extract.config import ExtractConfig
from aqa.extract.network import C3DExtractor
from aqa.extract.overlap import layers, plain_features, shared_features

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


@pytest.mark.parametrize(
    "name",
    [
        "c3d-tiny",
        pytest.param("c3d-small", marks=pytest.mark.slow),
        pytest.param("c3d-full", marks=pytest.mark.slow),
    ],
)
def test_features_are_as_exact_as_direct_ones(name):
    """Within 2e-5 of the largest and four times the error of direct fp32."""
    arch = ARCHITECTURES[name]
    rng = np.random.default_rng(0)
    net = build(arch, random_state(arch, 0)).eval()
    video = torch.from_numpy(rng.normal(size=(17, 112, 112, 3)).astype(np.float32) * 60)
    starts = [0, 1]
    with torch.inference_mode():
        fast = shared_features(net, video, starts, faster=winograd.prepare(net))
        direct = plain_features(net, video, starts)
        exact = plain_features(net.double(), video.double(), starts)
    errors = [(x.double() - exact).abs().max() / exact.max() for x in (fast, direct)]
    assert errors[0] <= 2e-5
    assert errors[0] <= 4 * max(errors[1], torch.tensor(2.5e-7))


def test_shipped_weights_and_plain_agree():
    frames = np.random.default_rng(1).integers(0, 256, (103, 112, 112, 3), np.uint8)
    made = [
        C3DExtractor(ExtractConfig(weights="tiny", device="cpu", plain=plain))
        for plain in (False, True)
    ]
    assert made[0]._faster and not made[1]._faster
    fast, plain = (each.features(frames) for each in made)
    assert np.abs(fast - plain).max() <= 2e-5 * plain.max()
