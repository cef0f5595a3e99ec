"""Real videos from files to the table of the paper, through the command line.

AQA-7 itself cannot be had here: clips of other real videos are cut to sixteen frames,
so that five of six clips are black and shared, and stand for two of its actions. The
network is the paper's with random weights: scores mean nothing, features are exact.
"""

import json

import av
import numpy as np
import pytest
import torch
from fakes import encode
from scipy.io import savemat
from torch.nn import functional

from aqa.cache.store import FeatureCache
from aqa.extract.weights.load import load_weights

pytestmark = pytest.mark.slow

ACTIONS = {"diving": 1, "ski_big_air": 3}
SOURCES = ("v_BaseballPitch_g01_c01.avi", "part_0.mp4", "test.mp4", "demo.mp4")
FRAMES = 16


def frames_of(path):
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def release(shared_data, tmp_path_factory):
    """Two actions, three training and three test videos each, in AQA-7's layout."""
    root = tmp_path_factory.mktemp("release") / "AQA-7"
    pieces = [
        frames[begin : begin + FRAMES]
        for frames in (frames_of(shared_data / "videos" / name) for name in SOURCES)
        for begin in (0, 8, len(frames) - FRAMES)
    ]
    lists = {"train": [], "test": []}
    for place, piece in enumerate(pieces):
        action, number = list(ACTIONS)[place % 2], place // 2 + 1
        encode(root / "Actions" / action / f"{number:03d}.avi", piece)
        split = "train" if number <= 3 else "test"
        lists[split].append((ACTIONS[action], number, 30 + 1.5 * place))
    (root / "Split_4").mkdir()
    for split, rows in lists.items():
        path = root / "Split_4" / f"split_4_{split}_list.mat"
        savemat(path, {f"consolidated_{split}_list": np.array(rows)})
    return root


def by_the_book(video):
    """Feature of one clip: (16, 112, 112, 3) RGB 0 to 255 -> (2048,)."""
    state = load_weights("random:3", "c3d-small").state
    x = torch.from_numpy(video[..., ::-1] - [90.25, 97.66, 101.41]).float()
    x = x.permute(3, 0, 1, 2)[None]
    for group in range(1, 6):
        parameters = (state[f"conv{group}a.{of}"] for of in ("weight", "bias"))
        x = functional.relu(functional.conv3d(x, *parameters, padding=1))
        x = functional.max_pool3d(x, (1, 2, 2) if group == 1 else 2, ceil_mode=True)
    return functional.relu(state["fc6.weight"] @ x.flatten() + state["fc6.bias"])


def test_real_videos_become_a_table(aqa, release, tmp_path):
    cache, models, report = (tmp_path / name for name in ("f.h5", "models", "report"))
    network = ["--weights", "random:3", "--arch", "c3d-small", "--device", "cpu"]
    ran = aqa("extract", "--videos", release, "--cache", cache, "--json", *network)
    said = json.loads(ran.stdout)
    assert (said["done"], said["merged"], said["failures"]) == (12, True, [])

    with FeatureCache.open(cache) as opened:
        assert opened.shape == (12, 6, 6, 2048)
        samples = opened.samples
        assert sorted(samples.split) == ["test"] * 6 + ["train"] * 6
        found = opened.read([samples.key.index("diving/002")])[0]
    frames = np.stack(frames_of(release / "Actions" / "diving" / "002.avi"))
    images = torch.from_numpy(frames).permute(0, 3, 1, 2)
    images = functional.interpolate(images, (128, 171), mode="bilinear")
    cropped = images[:, :, 8:120, 29:141].permute(0, 2, 3, 1).numpy()
    video = np.concatenate([np.zeros((103 - FRAMES, 112, 112, 3)), cropped])
    for offset, clip in ((0, 0), (0, 5), (3, 5), (5, 5)):
        start = 16 * clip + offset
        expected = by_the_book(video[start : start + 16]).numpy()
        error = np.abs(found[offset, clip] - expected).max() / expected.max()
        assert error < 1e-4, (offset, clip)

    short = ("--cache", cache, "--iterations", 4)
    fitted = aqa("fit", *short, "--out", models, "--json")
    (model,) = json.loads(fitted.stdout)["models"]
    known = json.loads(aqa("model", "info", model).stdout)["actions"]
    assert set(known) == set(ACTIONS)
    aqa("compare", "single-vs-all", *short, "--out", report, "--seeds", 1)
    assert (report / "report.json").is_file()
    video = release / "Actions" / "ski_big_air" / "006.avi"
    asked = ("--model", model, "--action", "ski_big_air", "--json", *network)
    (scored,) = json.loads(aqa("score", video, *asked).stdout)
    assert len(scored["course"]) == 6


def test_the_demo_ends_with_a_command_that_works(aqa, tmp_path, monkeypatch):
    """Two of its six actions."""
    monkeypatch.setattr("aqa.cli.EXPERIMENT_ACTIONS", tuple(ACTIONS))
    options = ("--scale", 0.001, "--fewest", 3, "--iterations", 10)
    ran = aqa("demo", "--out", tmp_path / "demo", *options)
    done, score, own = ran.stdout.splitlines()[-3:]
    assert "12 rendered videos" in done and "report.html" in done
    assert (tmp_path / "demo" / "report" / "report.html").is_file()
    command = score.removeprefix("Score a video: aqa ").split(" ")
    assert 0 <= json.loads(aqa(*command, "--json").stdout)[0]["score"] <= 200
    assert "aqa extract --videos" in own and "aqa compare all" in own
