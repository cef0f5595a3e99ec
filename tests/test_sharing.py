"""Shared features against the network run on each clip, for any way of cutting."""

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from aqa.extract.c3d import ARCHITECTURES, Architecture, build, random_state
from aqa.extract.config import ClipConfig
from aqa.extract.overlap import (
    CPU,
    BatchSize,
    layers,
    multiplications,
    plain_features,
    shared_features,
    shared_layers,
)
from aqa.extract.preprocessing import clip_starts

PAPER = sorted(clip_starts(ClipConfig()).ravel().tolist())

#: One convolution before the first pooling and two; an odd end before a pooling.
SHAPES = (
    ((8,), (8,), (8,), (8,), (8,)),
    ((8,), (8,), (8, 8), (8, 8), (8, 8)),
    ((8, 8), (8, 8), (8,), (8,), (8,)),
    ((8, 8), (8,), (8,), (8,), (8,)),
)


def network(arch, seed=0):
    state = random_state(arch, seed)
    for name, value in state.items():
        if name.endswith("bias"):
            value.normal_()  # so that a padded frame is not the same as a zero one
    return build(arch, state).to(memory_format=torch.channels_last_3d)


def clip_by_clip(net, video, starts):
    clips = [video[start : start + 16].movedim(-1, 0) for start in starts]
    return torch.stack([net(clip[None])[0] for clip in clips])


def close(found, expected, tolerance):
    return (found - expected).abs().max() <= tolerance * expected.abs().max()


@settings(max_examples=25, deadline=None)
@given(
    widths=st.sampled_from(SHAPES),
    length=st.integers(16, 40),
    offsets=st.integers(1, 9),
    stride=st.integers(1, 20),
    black=st.integers(0, 40),
    batch=st.sampled_from((CPU, BatchSize(1 << 18, 2), BatchSize(1, 1))),
)
@example(SHAPES[0], 103, 6, 16, 40, CPU)
def test_shared_features_are_those_of_each_clip(
    widths, length, offsets, stride, black, batch
):
    assume(length >= 16 + offsets - 1)
    config = ClipConfig(length=length, offsets=offsets, stride=stride)
    starts = np.unique(clip_starts(config)).tolist()
    # In double precision, where a rounding is no excuse for a wrong frame.
    net = network(Architecture("toy", widths, features=16, crop=16)).double()
    video = torch.rand(length, 16, 16, 3, dtype=torch.float64) * 255 - 100
    video[:black] = -100
    black = min(black, length)
    expected = clip_by_clip(net, video, starts)
    found = shared_features(net, video, starts, black=black, batch=batch)
    assert expected.max() > 0
    assert close(found, expected, 1e-12)
    assert close(plain_features(net, video, starts, batch=batch), expected, 1e-12)


@pytest.mark.parametrize(
    "name", ["c3d-tiny", pytest.param("c3d-small", marks=pytest.mark.slow)]
)
def test_in_fp32_sharing_differs_by_rounding_only(name):
    starts = list(range(6))  # the first clip of each copy
    net = network(ARCHITECTURES[name])
    video = torch.rand(starts[-1] + 16, 112, 112, 3) * 255 - 100
    assert shared_layers(net.arch, starts)
    plain = plain_features(net, video, starts)
    for batch in (CPU, BatchSize(1 << 20, 2)):
        assert close(shared_features(net, video, starts, batch=batch), plain, 5e-6)


BF16 = [Architecture("toy", widths, features=16, crop=16) for widths in SHAPES]


@pytest.mark.parametrize("arch", BF16)
def test_in_bf16_sharing_differs_by_single_roundings(arch):
    """Kernels for other shapes sum in another order: one value in 200 differs."""
    net = network(arch).bfloat16()
    video = (torch.rand(37, arch.crop, arch.crop, 3) * 255 - 100).bfloat16()
    starts = [0, 1, 3, 4, 5, 20, 21]
    shared = shared_features(net, video, starts)
    plain = plain_features(net, video, starts)
    assert close(shared, plain, 2**-7)
    assert (shared != plain).double().mean() < 0.02


def test_a_black_beginning_changes_nothing():
    net = network(ARCHITECTURES["c3d-tiny"])
    video = torch.rand(40, 112, 112, 3) * 255 - 100
    video[:14] = -100
    starts = list(range(8))
    assert torch.equal(
        shared_features(net, video, starts, black=14),
        shared_features(net, video, starts, black=0),
    )


def names(found):
    return [f"conv{layer.group + 1}{'ab'[layer.index]}" for layer in found]


@pytest.mark.parametrize(
    ("arch", "shared", "before", "after"),
    [
        ("c3d-small", ["conv1a", "conv2a", "conv3a"], 19.3, 10.1),
        ("c3d-full", ["conv1a", "conv2a", "conv3a"], 38.5, 29.3),
    ],
)
def test_the_arithmetic_saved_is_what_was_computed_by_hand(arch, shared, before, after):
    arch = ARCHITECTURES[arch]
    found = shared_layers(arch, PAPER)
    assert names(found) == shared
    # 99 + 36 x 4/3, 97 + 36 x 10/3, and the same ends with two tracks of 46.
    assert [round(frames) for frames in found.values()] == [147, 217, 212]
    for plain, expected in ((True, before), (False, after)):
        gmac = multiplications(arch, PAPER, plain) / len(PAPER) / 1e9
        assert gmac == pytest.approx(expected, abs=0.06)


def test_clips_that_do_not_overlap_share_nothing():
    arch = ARCHITECTURES["c3d-small"]
    assert not shared_layers(arch, [0, 16, 32, 48, 64, 80])
    assert names(shared_layers(arch, [0, 4, 8, 12, 16, 20]))


def test_layers_know_their_sizes():
    small = list(layers(ARCHITECTURES["c3d-small"]))
    assert [layer.side for layer in small] == [112, 56, 28, 14, 7]
    assert [layer.length for layer in small] == [16, 16, 8, 4, 2]
    assert [layer.halved for layer in small] == [False, False, True, True, True]


def test_batches_halve_until_one_clip_is_left():
    batch, sizes = BatchSize(8, 6), []
    while batch:
        sizes.append(batch.clips)
        batch = batch.halved()
    assert sizes == [6, 3, 1]
