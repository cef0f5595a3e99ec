"""Videos through C3D: against an independent computation, and under bad luck."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.nn import functional

from aqa.cache.errors import AqaError
from aqa.extract import network, overlap
from aqa.extract.config import ClipConfig, ExtractConfig
from aqa.extract.datasets.dataset import Video
from aqa.extract.network import C3DExtractor, HostCopy
from aqa.extract.overlap import BatchSize
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.video import Decoded
from aqa.extract.weights.load import load_weights

#: Short, so that a test takes a second: two copies of two clips.
SHORT = ClipConfig(length=34, offsets=2)


def config(**options):
    options = {"arch": "c3d-tiny", "clips": SHORT, "workers": 1} | options
    return ExtractConfig(weights="random:3", device="cpu", **options)


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 112, 112, 3), np.uint8)


def independent(frames, length, offsets):
    """Features by the book, clip by clip: frames (t, 112, 112, 3) RGB."""
    state = load_weights("random:3", "c3d-tiny").state
    padded = np.concatenate([np.zeros((length, 112, 112, 3)), frames])[-length:]
    video = torch.from_numpy(padded[..., ::-1] - [90.25, 97.66, 101.41]).float()
    features = []
    for offset in range(offsets):
        for start in range(offset, length - (offsets - 1) + offset - 15, 16):
            x = video[start : start + 16].permute(3, 0, 1, 2)[None]
            for group in range(1, 6):
                parameters = (state[f"conv{group}a.{of}"] for of in ("weight", "bias"))
                x = functional.relu(functional.conv3d(x, *parameters, padding=1))
                kernel = (1, 2, 2) if group == 1 else 2
                x = functional.max_pool3d(x, kernel, ceil_mode=True)
            x = state["fc6.weight"] @ x.flatten() + state["fc6.bias"]
            features.append(functional.relu(x))
    return torch.stack(features).reshape(offsets, -1, 256).numpy()


@pytest.mark.parametrize(
    ("count", "plain"), [(40, False), (34, True), (20, False), (12, False), (1, False)]
)
def test_features_agree_with_an_independent_computation(count, plain):
    frames = noise(count)
    found = C3DExtractor(config(plain=plain)).features(frames[-34:])
    expected = independent(frames, 34, 2)
    assert found.shape == (2, 2, 256)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_real_video_agrees_with_an_independent_computation(shared_data):
    path = shared_data / "videos" / "v_BaseballPitch_g01_c01.avi"
    with av.open(path) as container:
        frames = [
            frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)
        ]
    images = torch.from_numpy(np.stack(frames)[-103:]).permute(0, 3, 1, 2)
    images = functional.interpolate(images, (128, 171), mode="bilinear")
    cropped = images[:, :, 8:120, 29:141].permute(0, 2, 3, 1).numpy()
    expected = independent(cropped, 103, 2)
    video = Video("v", path, "", "", float("nan"))
    ((_, found),) = C3DExtractor(config(clips=ClipConfig(offsets=2))).extract([video])
    assert found.frames == len(frames)
    error = np.abs(found.features - expected).max() / expected.max()
    assert error < 1e-5


def test_a_feature_does_not_depend_on_what_came_before():
    first, second = noise(34, seed=1), noise(20, seed=2)
    once, other = C3DExtractor(config()), C3DExtractor(config())
    once.features(second)
    expected = other.features(first)
    np.testing.assert_array_equal(once.features(first), expected)
    np.testing.assert_array_equal(once.features(first), expected)


def test_clips_that_are_all_black_are_computed_once(monkeypatch):
    extractor = C3DExtractor(config())
    of_black = []

    def counted(net, video, starts, **options):
        of_black.append(len(starts))
        return overlap.plain_features(net, video, starts, **options)

    monkeypatch.setattr(network, "plain_features", counted)
    made = [extractor.features(noise(8, seed)) for seed in range(3)]
    assert of_black == [1]
    # Frames 0 to 25 are black: the first clip of both copies.
    assert len({features[0, 0].tobytes() for features in made}) == 1
    assert len({features[0, 1].tobytes() for features in made}) == 3


def test_too_little_memory_halves_the_batches_and_goes_on(monkeypatch):
    frames = noise(34)
    expected = C3DExtractor(config()).features(frames)
    extractor = C3DExtractor(config())
    tried = []

    def small(net, video, starts, *, batch, **options):
        tried.append(batch.clips)
        if batch.clips > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return overlap.shared_features(net, video, starts, batch=batch, **options)

    monkeypatch.setattr(network, "shared_features", small)
    extractor._batch = BatchSize(1 << 29, 8)
    found = extractor.features(frames)
    assert tried == [8, 4, 2]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())
    # Other videos' memory says nothing of this one's.
    np.testing.assert_array_equal(extractor.features(frames), found)
    assert tried == [8, 4, 2] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_values_are_copied_while_the_gpu_goes_on():
    values = torch.full((3,), 7.0, device="cuda")
    copy = HostCopy(values)
    end = torch.cuda.Event()
    torch.cuda._sleep(2_000_000_000)  # cycles: a second or so
    values.zero_()
    end.record()
    np.testing.assert_array_equal(copy.wait(), [7, 7, 7])
    assert not end.query()
    end.synchronize()


def test_no_memory_for_one_clip_is_an_error(monkeypatch):
    def none(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(network, "shared_features", none)
    with pytest.raises(AqaError, match="expected memory for one clip"):
        C3DExtractor(config()).features(noise(34))


def test_features_that_are_not_finite_fail_for_that_video_only():
    extractor = C3DExtractor(config())
    video = Video("v", Path("v.avi"), "", "", 1.0)
    decoded = Decoded(noise(34), 50, ("a sign",), "ab" * 32)
    made = extractor._finish(video, extractor._begin(decoded))
    assert (made.frames, made.damage, made.source_sha256) == (50, "a sign", "ab" * 32)
    with torch.no_grad():
        extractor._net.fc6.bias[7] = float("inf")
    failed = extractor._finish(video, extractor._begin(decoded))
    assert isinstance(failed, AqaError) and "expected finite features" in str(failed)
    error = VideoError("v.avi: expected a video")
    assert extractor._finish(video, extractor._begin(error)) is error


def test_bf16_is_close_and_stands_in_the_provenance():
    frames, one = noise(16), ClipConfig(length=16, offsets=1)
    fine = C3DExtractor(config(clips=one))
    rough = C3DExtractor(config(clips=one, precision="bf16"))
    found, expected = rough.features(frames), fine.features(frames)
    assert found.dtype == np.float32
    cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.999
    assert rough.provenance.differences(fine.provenance) == [
        'precision: found "bf16", asked for "fp32"'
    ]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"clips": ClipConfig(clip=8)}, "sees 16 frames"),
        ({"precision": "fp16"}, "fp32 or bf16 on cpu"),
        ({"arch": "c3d-big"}, "arch"),
    ],
)
def test_what_cannot_be_had_is_refused(bad, message):
    with pytest.raises(AqaError, match=message):
        C3DExtractor(config(**bad))


def test_without_weights_the_message_says_what_to_pass():
    with pytest.raises(AqaError, match=r"random.*\.caffemodel.*aqa pretrain"):
        C3DExtractor(ExtractConfig())
