"""Poses through the extraction stage: cached like any features, resumed, judged."""

import json
import time

import h5py
import numpy as np
import pytest

from aqa.cache.errors import AqaError, ProvenanceMismatch
from aqa.cache.store import FeatureCache
from aqa.extract.config import PoseConfig
from aqa.extract.datasets import read_dataset
from aqa.extract.poses.conventions import PoseFile
from aqa.extract.poses.features import (
    PoseExtractor,
    pose_features,
    pose_features_of_file,
    pose_record,
)
from aqa.extract.poses.layouts import named_layout
from aqa.extract.poses.read import PoseError
from aqa.extract.poses.tracks import Poses, read_poses
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


def described(joints, config):
    """Features (D,) of one athlete's joints (frames, 17, 2), without any file."""
    file = PoseFile(np.empty(0), named_layout("coco17"), {"units": "pixels"}, ())
    return pose_features(Poses(joints[None], file, ""), config)[0, 0]


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
    dataset = read_dataset(videos)
    extractor = PoseExtractor(folder / "poses", config, dataset.videos)
    return extract(dataset, folder / "poses.h5", extractor, shard)


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
        expected = described(joints(seed), config)
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


def test_poses_that_were_replaced_are_done_again(videos):
    run(videos)
    time.sleep(0.02)  # the file system's clock is a coarse one
    np.save(videos.parent / "poses" / "dives" / "b.npy", joints(7))
    np.save(videos.parent / "poses" / "pairs" / "c.npy", joints(2))
    again = run(videos)
    assert (again.done, again.skipped) == (1, 2)
    with FeatureCache.open(again.cache) as cache:
        features = cache.read()[:, 0, 0]
    for row, seed in enumerate((0, 7, 2)):
        np.testing.assert_array_equal(features[row], described(joints(seed), DCT))
    assert run(videos).done == 0


def test_a_replaced_frame_of_a_folder_is_done_again(videos):
    folder = videos.parent / "poses" / "dives" / "a"
    (folder.parent / "a.npy").unlink()
    folder.mkdir()

    def write(frame, seed):
        keypoints = np.column_stack([joints(seed)[frame], np.ones(17)])
        openpose = np.insert(keypoints, 1, 0, axis=0)  # a neck that nobody looks at
        person = {"pose_keypoints_2d": openpose.ravel().tolist()}
        path = folder / f"a_{frame:012d}_keypoints.json"
        path.write_text(json.dumps({"people": [person]}))

    for frame in range(10):
        write(frame, seed=0)
    assert run(videos).done == 3
    time.sleep(0.02)
    assert run(videos).done == 0
    write(4, seed=1)
    assert run(videos).done == 1


def test_features_outlive_their_poses_and_videos_are_not_looked_at(videos):
    run(videos)
    time.sleep(0.02)
    (videos.parent / "poses" / "dives" / "b.npy").unlink()
    (videos.parent / "dives" / "a.mp4").write_bytes(b"another video")
    assert run(videos).skipped == 3


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
        PoseExtractor(tmp_path / "none", PoseConfig(), ())


def test_poses_that_two_detectors_found_do_not_mix(videos):
    def found(name, seed, detector):
        """What `aqa poses` would have written, had it seen one person."""
        (videos.parent / "poses" / f"{name}.npy").unlink(missing_ok=True)
        record = {
            "info": {"made_with": {"model": detector}},
            "images": [{"id": frame} for frame in range(30)],
            "annotations": [
                {"image_id": frame, "keypoints": np.insert(one, 2, 1, 1).tolist()}
                for frame, one in enumerate(joints(seed))
            ],
        }
        path = videos.parent / "poses" / f"{name}.json"
        path.write_text(json.dumps(record))

    found("dives/a", 0, "rtmo")
    found("dives/b", 1, "rtmpose")
    mixed = run(videos)
    assert [failure.key for failure in mixed.failures] == ["dives/b.mp4", "pairs/c.mp4"]
    assert 'found "rtmpose", asked for "rtmo"' in mixed.failures[0].reason
    found("dives/b", 1, "rtmo")
    found("pairs/c", 2, "rtmo")
    assert run(videos).done == 2
    with FeatureCache.open(mixed.cache) as cache:
        assert cache.provenance.record["found_with"] == {"model": "rtmo"}
    for name, seed in (("dives/a", 0), ("dives/b", 1), ("pairs/c", 2)):
        found(name, seed, "rtmpose")
    with pytest.raises(ProvenanceMismatch, match="rtmpose"):
        run(videos)


@pytest.mark.parametrize("kind", ["pose-dct", "pose-apen", "pose-clips"])
def test_one_file_gives_the_features_of_a_cache_of_keys_without_videos(videos, kind):
    folder = videos.parent
    listed = folder / "keys.csv"
    listed.write_text("key,action,score,split\ndives/a,diving,81.5,train\n")
    dataset = read_dataset(listed, labels_only=True)
    config = PoseConfig(features=kind)
    extractor = PoseExtractor(folder / "poses", config, dataset.videos)
    with FeatureCache.open(extract(dataset, folder / "k.h5", extractor).cache) as cache:
        record, features = cache.provenance.record, cache.read()
    path = folder / "poses" / "dives" / "a.npy"
    found, poses = pose_features_of_file(path, record)
    np.testing.assert_array_equal(found, features[0])
    assert poses.joints.shape == (1, 30, 17, 2)
    np.save(folder / "deep.npy", np.dstack([joints(0), joints(1)[..., :1]]))
    with pytest.raises(PoseError, match="poses unlike the model's: axes: found 3"):
        stated = {"layout": "coco17", "third": "depth"}
        pose_features_of_file(folder / "deep.npy", record, **stated)
    with pytest.raises(AqaError, match="expected pose features, found 'c3d'"):
        pose_features_of_file(path, {"features": "c3d"})


def test_a_scored_file_has_as_many_athletes_as_in_extraction(tmp_path):
    """A bystander beside the diver is no second athlete."""
    people = np.stack([joints(0), joints(1)], axis=1)  # (frames, people, joints, 2)
    people = np.pad(people, [(0, 0)] * 3 + [(0, 1)], constant_values=1)  # scores
    frames = [
        [{"keypoints": one.ravel().tolist()} for one in frame] for frame in people
    ]
    path = tmp_path / "two.json"
    path.write_text(json.dumps(frames))
    two = PoseConfig(athletes=2)
    record = pose_record(two) | {"layout": "coco17", "axes": 2, "units": "pixels"}
    for action, athletes in (("sync_diving_3m", 2), ("diving", 1)):
        found, poses = pose_features_of_file(path, record, action)
        assert len(poses.joints) == athletes
        extracted = pose_features(read_poses(path, action, two), two)
        np.testing.assert_array_equal(found, extracted)


@pytest.mark.slow
def test_model_of_poses_scores_a_pose_file(aqa, tmp_path):
    rows = ["key,action,score,split"]
    (tmp_path / "poses").mkdir()
    for seed in range(12):
        np.save(tmp_path / "poses" / f"{seed}.npy", joints(seed) * (1 + seed / 10))
        rows.append(f"{seed},diving,{40 + 4 * seed},{'test' if seed > 7 else 'train'}")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    cache, models = tmp_path / "p.h5", tmp_path / "models"
    asked = ["--features", "pose-dct", "--poses", tmp_path / "poses", "--cache", cache]
    aqa("extract", "--videos", tmp_path / "list.csv", *asked)
    aqa("fit", "--cache", cache, "--head", "svr", "--out", models)
    (model,) = models.glob("*.safetensors")
    file = tmp_path / "poses" / "9.npy"
    ran = aqa("score", "--poses", file, "--model", model, "--json")
    (scored,) = json.loads(ran.stdout)
    assert scored["video"] == str(file) and 40 < scored["score"] < 90
