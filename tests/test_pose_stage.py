"""Poses through the extraction stage: cached like any features, resumed, judged."""

import json

import h5py
import numpy as np
import pytest

from aqa.cache.errors import AqaError, ProvenanceMismatch
from aqa.cache.store import FeatureCache
from aqa.extract.config import PoseConfig
from aqa.extract.dataset import read_dataset
from aqa.extract.pose_features import pose_features
from aqa.extract.pose_stage import PoseExtractor
from aqa.extract.stage import extract

DCT = PoseConfig()
ROWS = [
    ("dives/a.mp4", "diving", "train", 81.5),
    ("dives/b.mp4", "diving", "test", 40.25),
    ("pairs/c.mp4", "sync_diving_3m", "train", 70.0),
]


def joints(seed, frames=30):
    rng = np.random.default_rng(seed)
    return np.round(rng.normal(100, 20, (frames, 17, 2)), 2)


@pytest.fixture
def videos(tmp_path):
    """A manifest of three videos, which are never opened, and poses beside it."""
    lines = ["video,action,score,split"]
    for seed, (name, action, split, score) in enumerate(ROWS):
        lines.append(f"{name},{action},{score},{split}")
        video = tmp_path / name
        video.parent.mkdir(exist_ok=True)
        video.write_bytes(b"not opened")
        poses = tmp_path / "poses" / f"{name.removesuffix('.mp4')}.npy"
        poses.parent.mkdir(parents=True, exist_ok=True)
        np.save(poses, joints(seed))
    path = tmp_path / "videos.csv"
    path.write_text("\n".join(lines))
    return path


def run(videos, config=DCT, shard=None):
    folder = videos.parent
    extractor = PoseExtractor(folder / "poses", config)
    return extract(read_dataset(videos), folder / "poses.h5", extractor, shard)


@pytest.mark.parametrize("kind", ["pose-dct", "pose-apen"])
def test_pose_features_are_cached_with_labels_and_provenance(videos, kind):
    config = PoseConfig(features=kind)
    result = run(videos, config)
    assert (result.done, result.failures, result.merged) == (3, (), True)
    with h5py.File(result.cache) as file:
        provenance = json.loads(file.attrs["provenance"])
        assert provenance["features"] == kind
        assert [key.decode() for key in file["samples/key"]] == [r[0] for r in ROWS]
        np.testing.assert_array_equal(file["samples/score"], [r[3] for r in ROWS])
        np.testing.assert_array_equal(file["samples/frames"], [30] * 3)
        features = file["features"][:]
    assert features.shape[:3] == (3, 1, 1)
    for seed in range(3):
        expected = pose_features(joints(seed)[None], config)
        np.testing.assert_array_equal(features[seed, 0, 0], expected)


def test_missing_poses_fail_by_name_and_the_next_run_does_what_is_left(videos):
    lost = videos.parent / "poses" / "dives" / "b.npy"
    kept = lost.rename(lost.with_suffix(".away"))
    result = run(videos)
    assert (result.done, len(result.failures)) == (2, 1)
    assert result.failures[0].key == "dives/b.mp4"
    assert "dives/b.mp4.json" in result.failures[0].reason
    kept.rename(lost)
    again = run(videos)
    assert (again.done, again.skipped, again.failures) == (1, 2, ())
    with FeatureCache.open(again.cache) as cache:
        assert cache.shape == (3, 1, 1, 1600)


def test_interpolation_is_told_in_the_cache(videos):
    path = videos.parent / "poses" / "dives" / "a.npy"
    holey = joints(0)
    holey[3:5] = np.nan
    np.save(path, holey)
    with FeatureCache.open(run(videos).cache) as cache:
        assert list(cache.samples.damage) == [
            "interpolated 34 of 510 joints, in 2 of 30 frames all",
            "",
            "",
        ]


def test_shards_give_the_same_bytes(videos):
    whole = run(videos).cache.read_bytes()
    (videos.parent / "poses.h5").unlink()
    assert not run(videos, shard=(1, 2)).merged
    last = run(videos, shard=(0, 2))
    assert last.merged
    assert last.cache.read_bytes() == whole


def test_other_features_are_not_mixed_in(videos):
    run(videos)
    with pytest.raises(ProvenanceMismatch, match="pose-dct"):
        run(videos, PoseConfig(features="pose-apen"))
    with pytest.raises(ProvenanceMismatch, match="confidence"):
        run(videos, PoseConfig(confidence=0.5))


def test_no_folder_of_poses_is_one_error(tmp_path):
    with pytest.raises(AqaError, match="expected a folder of poses"):
        PoseExtractor(tmp_path / "none", PoseConfig())
