"""The network against c3d.md's numbers and a literal NumPy convolution."""

import itertools

import numpy as np
import pytest
import torch

from aqa.cache.errors import AqaError
from aqa.extract.c3d import ARCHITECTURES, C3D, Architecture, build, random_state


def convolve(x, weight, bias):
    """Cross-correlation, 3 x 3 x 3, zero padding: (C, T, H, W) -> (O, T, H, W)."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1)))
    out = np.zeros((len(weight), *x.shape[1:])) + bias[:, None, None, None]
    for t, i, j in itertools.product(range(x.shape[1]), *map(range, x.shape[2:])):
        window = padded[:, t : t + 3, i : i + 3, j : j + 3]
        out[:, t, i, j] += np.tensordot(weight, window, axes=4)
    return out


def pool(x, kernel, pad=0):
    """Caffe's pooling: windows from -pad on, the last one cut off at the edge."""
    sizes = [
        (n + 2 * p - k) // k + 1 if p else -(-n // k)
        for n, k, p in zip(x.shape[1:], kernel, (0, pad, pad), strict=True)
    ]
    out = np.empty((len(x), *sizes))
    for index in itertools.product(*map(range, sizes)):
        window = tuple(
            slice(max(i * k - p, 0), i * k - p + k)
            for i, k, p in zip(index, kernel, (0, pad, pad), strict=True)
        )
        out[:, *index] = x[:, *window].max(axis=(1, 2, 3))
    return out


def literal_features(arch, state, clip, pool5):
    """The network as Caffe's prototxt spells it, in float64."""
    state = {name: value.double().numpy() for name, value in state.items()}
    x = clip
    for group, widths in enumerate(arch.widths, start=1):
        for letter in "ab"[: len(widths)]:
            name = f"conv{group}{letter}"
            x = convolve(x, state[f"{name}.weight"], state[f"{name}.bias"])
            x = np.maximum(x, 0)
        kernel = (1, 2, 2) if group == 1 else (2, 2, 2)
        x = pool(x, kernel, pad=int(group == 5 and pool5 == "padded"))
    return np.maximum(state["fc6.weight"] @ x.ravel() + state["fc6.bias"], 0)


@pytest.mark.parametrize("pool5", ["ceil", "padded"])
def test_features_equal_a_literal_convolution_and_pooling(pool5):
    arch = Architecture("toy", ((2,), (3,), (2, 3), (3,), (4,)), features=5, crop=48)
    state = random_state(arch, seed=1)
    rng = np.random.default_rng(0)
    for name in state:
        if name.endswith("bias"):
            state[name] = torch.from_numpy(rng.normal(size=state[name].shape)).float()
    clip = rng.normal(size=(3, 16, 48, 48))
    expected = literal_features(arch, state, clip, pool5)
    found = build(arch, state, pool5)(torch.from_numpy(clip).float()[None])[0]
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


SMALL = {
    "conv1a": 5184 + 64,
    "conv2a": 221184 + 128,
    "conv3a": 884736 + 256,
    "conv4a": 1769472 + 256,
    "conv5a": 1769472 + 256,
    "fc6": 8388608 + 2048,
}


def test_the_small_network_has_the_published_parameters():
    with torch.device("meta"):
        net = C3D(ARCHITECTURES["c3d-small"])
    found = {
        name: sum(p.numel() for p in layer.parameters())
        for name, layer in net.named_children()
    }
    assert found == SMALL
    # With fc7 and fc8 of c3d.md: "17.5 millions" in the C3D paper.
    assert sum(SMALL.values()) + 4194304 + 2048 + 206848 + 101 == 17_444_965


def test_the_full_network_has_eight_convolutions_and_4096_features():
    shapes = ARCHITECTURES["c3d-full"].shapes()
    assert {name[:-7]: s[:2] for name, s in shapes.items() if "weight" in name} == {
        **{"conv1a": (64, 3), "conv2a": (128, 64), "conv3a": (256, 128)},
        **{"conv3b": (256, 256), "conv4a": (512, 256), "conv4b": (512, 512)},
        **{"conv5a": (512, 512), "conv5b": (512, 512), "fc6": (4096, 8192)},
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sizes_after_each_pooling_are_those_of_the_reference(name):
    arch = ARCHITECTURES[name]
    with torch.device("meta"):
        net = C3D(arch)
        x = torch.empty(1, 3, 16, 112, 112)
        sides = []
        for group, convolutions in enumerate(net.groups):
            for conv in convolutions:
                x = conv(x)
            x = net.pool(x, group)
            sides.append(x.shape[2:])
            assert x.shape[1] == arch.widths[group][-1]
        assert sides == [(16, 56, 56), (8, 28, 28), (4, 14, 14), (2, 7, 7), (1, 4, 4)]
        assert net(torch.empty(2, 3, 16, 112, 112)).shape == (2, arch.features)


def test_random_weights_are_he_normal_and_follow_the_seed():
    arch = ARCHITECTURES["c3d-tiny"]
    one, same, other = random_state(arch, 7), random_state(arch, 7), random_state(arch)
    assert one.keys() == arch.shapes().keys()
    for name, shape in arch.shapes().items():
        assert one[name].shape == shape
        assert torch.equal(one[name], same[name])
        if name.endswith("bias"):
            assert not one[name].any()
        else:
            assert not torch.equal(one[name], other[name])
    std = one["conv5a.weight"].std().item()
    assert std == pytest.approx((2 / (64 * 27)) ** 0.5, rel=0.01)


def test_a_missing_or_foreign_parameter_is_an_error():
    arch = ARCHITECTURES["c3d-tiny"]
    state = random_state(arch)
    state["fc6-1.weight"] = state.pop("fc6.weight")
    with pytest.raises(RuntimeError, match="fc6"):
        build(arch, state)


def test_bad_architectures_and_poolings_are_refused():
    with pytest.raises(AqaError, match="odd multiple of 16"):
        Architecture("even", ((2,),) * 5, features=4, crop=64)
    with pytest.raises(AqaError, match="pool5"):
        C3D(ARCHITECTURES["c3d-tiny"], "same")
