"""Other data sets, from small lists in the form in which theirs are released."""

import os
import pickle

import numpy as np
import pytest
from fakes import touch
from scipy.io import savemat

from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache, write_cache
from aqa.extract.datasets import read_dataset
from aqa.extract.datasets.released import read_pickle


def dump(value, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol=3))


def told(dataset):
    """Return what a data set says of each video: key, action, split, score, extra."""
    return [
        (video.key, video.action, video.split, video.score, dict(video.extra))
        for video in dataset.videos
    ]


# MTL-AQA


@pytest.fixture
def mtl_aqa(tmp_path):
    """Three dives, one of them in neither list; pairs are NumPy's, as in a release."""
    lists = tmp_path / "Ready_2_Use" / "MTL-AQA_split_0_data"
    labels = {"primary_view": 0, "start_frame": 7377, "end_frame": 7462}
    labels |= {"position": 2, "difficulty": 3.2, "final_score": 88.0, "tw_no": 0}
    dives = {(1, 1): labels, (1, 20): labels | {"final_score": 0.0}, (26, 3): labels}
    dump(dives, lists / "final_annotations_dict.pkl")
    dump([(np.uint8(1), np.uint8(20))], lists / "train_split_0.pkl")
    dump([(1, 1)], lists / "test_split_0.pkl")
    touch(tmp_path, *(f"samples/{name}.mp4" for name in ("01_001", "01_020", "26_003")))
    return tmp_path


MTL = {"difficulty": "3.2", "position": "2", "tw_no": "0"}


def test_mtl_aqa(mtl_aqa):
    expected = [
        ("01/001", "mtl_aqa_diving", "test", 88.0, MTL),
        ("01/020", "mtl_aqa_diving", "train", 0.0, MTL),
    ]
    found = read_dataset(mtl_aqa)
    assert told(found) == expected
    assert found.notes == ("MTL-AQA: 1 train, 1 test",)
    (mtl_aqa / "samples/01_001.mp4").unlink()
    with pytest.raises(AqaError, match=r"01_001.mp4 \(frames 7377 to 7462 of 01.mp4\)"):
        read_dataset(mtl_aqa)
    touch(mtl_aqa, "samples/01_001/img_00001.jpg")
    assert read_dataset(mtl_aqa).videos[0].path == mtl_aqa / "samples/01_001"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("final_annotations_dict.pkl", [1, 2], "expected labels by pair"),
        ("final_annotations_dict.pkl", {1: {}}, "expected labels by pair"),
        ("final_annotations_dict.pkl", {(1, 1): {}}, "has other labels"),
        ("final_annotations_dict.pkl", {(1, 1): None}, "has other labels"),
        ("train_split_0.pkl", {"a": 1}, "expected a list of pairs"),
        ("test_split_0.pkl", [3], "expected a list of pairs"),
        ("test_split_0.pkl", [([], 1)], "expected a list of pairs"),
        ("test_split_0.pkl", [(9, 9)], "test split names a dive without labels: 9/9"),
        ("test_split_0.pkl", [(1, 20)], "dive in both splits: 1/20"),
    ],
)
def test_pickles_of_other_content_are_refused(mtl_aqa, name, value, message):
    dump(value, next(mtl_aqa.rglob(name)))
    with pytest.raises(AqaError, match=message):
        read_dataset(mtl_aqa)


# FineDiving


DIVES = {("01", 1): ("407c", 88.0, 3.2), ("Final_r4", 10): ("207b", 65.88, 3.6)}


@pytest.mark.parametrize("form", ["list", "dictionaries"])
def test_finediving(tmp_path, form):
    lists = tmp_path / "Annotations"
    if form == "list":
        steps = np.array([2, 34])
        rows = {
            pair: [kind, np.float64(score), level, steps, steps]
            for pair, (kind, score, level) in DIVES.items()
        }
        dump(rows, lists / "fine-grained_annotation_aqa.pkl")
    else:
        names = ("action_type", "dive_score", "difficulty")
        rows = {p: dict(zip(names, dive, strict=True)) for p, dive in DIVES.items()}
        dump(rows, lists / "FineDiving_coarse_annotation.pkl")
    dump([("Final_r4", 10)], lists / "train_split.pkl")
    dump([("01", 1)], lists / "test_split.pkl")
    for name in ("01/1", "Final_r4/10"):
        touch(tmp_path, f"FINADiving_MTL_256s/{name}/00489.jpg")
    first = {"action_type": "407c", "difficulty": "3.2", "competition": "01"}
    other = {"action_type": "207b", "difficulty": "3.6", "competition": "Final_r4"}
    assert told(read_dataset(tmp_path)) == [
        ("01/1", "finediving", "test", 88.0, first),
        ("Final_r4/10", "finediving", "train", 65.88, other),
    ]


# UNLV


@pytest.fixture
def unlv(tmp_path):
    """Three dives and two vaults; the lists count from 1."""
    for name, scores in (("diving", [50.0, 60.5, 70.0]), ("gym_vault", [14.1, 15.2])):
        column = np.array(scores)[:, None]
        savemat(tmp_path / f"{name}_overall_scores.mat", {"overall_scores": column})
        for number in range(1, len(scores) + 1):
            touch(tmp_path, f"{name}_samples_len_ori/{number:03d}.avi")
            touch(tmp_path, f"{name}_samples_len_151_lstm/{number:03d}.avi")
    levels = np.array([[3.0], [3.2], [3.4]])
    savemat(tmp_path / "diving_difficulty_level.mat", {"difficulty_level": levels})
    (tmp_path / "split_300_70").mkdir()
    for name, numbers in (("training", [[1, 3]]), ("testing", [[2]])):
        path = tmp_path / "split_300_70" / f"{name}_idx.mat"
        savemat(path, {f"{name}_idx": np.array(numbers)})
    return tmp_path


def test_unlv_dive(unlv):
    (unlv / "gym_vault_overall_scores.mat").unlink()
    found = read_dataset(unlv)
    assert told(found) == [
        ("diving/001", "diving", "train", 50.0, {"difficulty": "3"}),
        ("diving/002", "diving", "test", 60.5, {"difficulty": "3.2"}),
        ("diving/003", "diving", "train", 70.0, {"difficulty": "3.4"}),
    ]
    assert found.videos[0].path == unlv / "diving_samples_len_ori/001.avi"
    assert found.notes[0] == "UNLV: 2 train, 1 test"
    assert found.notes[1].startswith("3 videos lie in several places; used: ")


def test_unlv_refuses_a_split_that_does_not_fit(unlv):
    with pytest.raises(AqaError, match="expected numbers 1 to 2, found others"):
        read_dataset(unlv)  # dives' numbers beside two vaults


# JIGSAWS


@pytest.fixture
def jigsaws(tmp_path):
    """Two tasks of a few trials, with tabs as released."""
    lines = "Suturing_B001\tN\t15\t3\t2\t2\t3\t3\t2\nSuturing_C002\tE\t29\t5\n\n"
    for task, text in (("Suturing", lines), ("Knot_Tying", "Knot_Tying_B001\tI\t9\n")):
        touch(tmp_path, f"{task}/meta_file_{task}.txt")
        (tmp_path / f"{task}/meta_file_{task}.txt").write_text(text)
        for line in text.split():
            if line.startswith(task):
                touch(tmp_path, f"{task}/video/{line}_capture1.avi")
    return tmp_path


def test_jigsaws(jigsaws):
    found = read_dataset(jigsaws)
    rows = [
        ("knot_tying/Knot_Tying_B001", "knot_tying", 9.0, "B", "001", "I"),
        ("suturing/Suturing_B001", "suturing", 15.0, "B", "001", "N"),
        ("suturing/Suturing_C002", "suturing", 29.0, "C", "002", "E"),
    ]
    assert told(found) == [
        (key, action, "", score, {"surgeon": by, "trial": trial, "skill": skill})
        for key, action, score, by, trial, skill in rows
    ]
    assert "--leave-one-out surgeon" in found.notes[0]
    assert len(read_dataset(jigsaws / "Suturing").videos) == 2
    assert len(read_dataset(jigsaws, ["knot_tying"]).videos) == 1
    with (jigsaws / "Suturing/meta_file_Suturing.txt").open("a") as file:
        file.write("Suturing_D001\tN\tmany\n")
    with pytest.raises(AqaError, match=r"meta_file_Suturing.txt line 4 has 'Sut"):
        read_dataset(jigsaws)


# Labels alone, and pickles


def test_a_cache_is_relabelled_from_released_lists(aqa, jigsaws, tmp_path):
    keys = ["suturing/Suturing_B001", "suturing/Suturing_C002"]
    samples = [Sample(key, "suturing", "", float("nan"), 9, "") for key in keys]
    features = [np.ones((1, 2, 3), np.float32)] * 2
    cache = write_cache(
        tmp_path / "f.h5", samples, features, Provenance({"features": "x"})
    )
    for path in jigsaws.rglob("*.avi"):
        path.unlink()  # lists are enough
    aqa("cache", "relabel", jigsaws / "Suturing", "--cache", cache, "--yes")
    with FeatureCache.open(cache) as opened:
        assert opened.samples.score.tolist() == [15.0, 29.0]
        assert opened.samples.extra["surgeon"] == ("B", "C")


class Code:
    """Runs a command when it is unpickled by pickle itself."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def test_pickles_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dump({(1, 1): Code()}, tmp_path / "list.pkl")
    with pytest.raises(AqaError, match=r"list.pkl: expected plain data, found posix"):
        read_pickle(tmp_path / "list.pkl")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_read(tmp_path, protocol):
    value = {("01", np.int64(1)): [np.arange(3), np.float32(1.5), "x", None, (True,)]}
    path = tmp_path / "list.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert read_pickle(path) == {("01", 1): [[0, 1, 2], 1.5, "x", None, (True,)]}


@pytest.mark.parametrize("data", [b"", b"\x80\x03}q\x00(K", b"not a pickle"])
def test_damaged_pickles_are_refused(tmp_path, data):
    (tmp_path / "list.pkl").write_bytes(data)
    with pytest.raises(AqaError, match=r"^list.pkl: "):
        read_pickle(tmp_path / "list.pkl")
