"""What is said, listed and exported of a cache and its parts."""

import csv
import io
import json
import math
from functools import partial

import numpy as np
import pytest
from fakes import MADE, numbers, spoil

import aqa
from aqa.cache.errors import AqaError
from aqa.cache.exchange import describe, export, import_features, list_samples
from aqa.cache.parts import part_path, parts_folder, write_part
from aqa.cache.samples import Sample
from aqa.cache.store import write_cache

X = numbers(3, 2, 4, 5)
SAMPLES = [
    Sample("a/1", "kür", "train", 81.5, 103, "", clips=3, extra={"fold": "2"}),
    Sample("a/2", "kür", "", math.nan, 97, "", damage="2 of 97 frames are corrupt"),
    Sample("b, c", "", "test", 1e-3, 9, "", extra={"key": "taken"}),
]


@pytest.fixture
def cache(tmp_path):
    """Three samples in a cache."""
    return write_cache(tmp_path / "features.h5", SAMPLES, X, MADE)


@pytest.fixture
def run(aqa):
    """Run a command of `aqa cache`."""
    return partial(aqa, "cache")


def test_samples_are_listed_as_csv_and_json(run, cache):
    rows = list_samples(cache)
    expected = {"key": "a/1", "action": "kür", "score": 81.5, "split": "train"}
    expected |= {"frames": 103, "clips": 3, "damage": ""}
    assert rows[0] == expected | {"fold": "2", "extra_key": ""}
    assert rows[1]["score"] is None and rows[1]["clips"] == 4
    assert json.loads(run("list", "--cache", cache, "--json").stdout) == rows
    read = list(csv.DictReader(io.StringIO(run("list", "--cache", cache).stdout)))
    assert [row["key"] for row in read] == ["a/1", "a/2", "b, c"]
    assert [row["score"] for row in read] == ["81.5", "", "0.001"]
    assert [row["extra_key"] for row in read] == ["", "", "taken"]


def test_an_export_is_read_by_numpy_without_pickles(run, cache, tmp_path):
    out = tmp_path / "out.npz"
    said = json.loads(run("export", out, "--cache", cache, "--json").stdout)
    with np.load(out, allow_pickle=False) as arrays:
        assert {name: list(arrays[name].shape) for name in arrays} == said["arrays"]
        np.testing.assert_array_equal(arrays["features"], X)
        assert arrays["key"].tolist() == ["a/1", "a/2", "b, c"]
        assert arrays["action"].tolist() == ["kür", "kür", ""]
        assert arrays["split"].tolist() == ["train", "", "test"]
        np.testing.assert_array_equal(arrays["score"], [81.5, np.nan, 1e-3])
        assert arrays["frames"].tolist() == [103, 97, 9]
        assert arrays["clips"].tolist() == [3, 4, 4]
        assert arrays["extra_fold"].tolist() == ["2", "", ""]
        assert json.loads(str(arrays["provenance"])) == MADE.record
    assert "features [3, 2, 4, 5]" in run("export", out, "--cache", cache).stdout


def test_an_export_replaces_no_cache(run, cache, tmp_path):
    before = cache.read_bytes()
    for out in (cache, tmp_path / "out.csv"):
        said = run("export", out, "--cache", cache, code=1).output
        assert f"{out.name}: expected a name that ends in .npz" in said
    link = tmp_path / "link.npz"
    link.symlink_to(cache)
    said = run("export", link, "--cache", cache, code=1).output
    assert "is an input, and would be replaced; name another output" in said
    assert cache.read_bytes() == before


def test_a_failed_export_leaves_nothing(cache, tmp_path):
    cache.write_bytes(cache.read_bytes()[:5000])
    with pytest.raises(AqaError, match="damaged"):
        export(cache, tmp_path / "out.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["features.h5"]


def test_info_says_what_is_missing(cache):
    found = describe(cache)
    assert (found["version"], found["shape"]) == (2, [3, 2, 4, 5])
    assert found["samples"] == {
        "(none)": {"test": 1},
        "kür": {"train": 1, "(none)": 1},
    }
    assert found["extra"] == ["fold", "key"]
    assert found["parts"] == {"count": 0, "damaged": 0, "new": 0}
    assert found["notes"] == [
        "1 of 3 samples have no action",
        "1 of 3 samples have no score",
        "1 of 3 samples have no split",
        "1 of 3 samples have damage that was accepted",
        "1 of 3 samples have fewer clips, padded in front",
        "further columns: fold, key",
    ]


def test_info_counts_as_padded_what_is_shorter(tmp_path):
    rows = ["key,action,score,file"]
    for name, clips in zip("abc", (4, 2, 4), strict=True):
        np.save(tmp_path / f"{name}.npy", np.ones((clips, 5), np.float32))
        rows.append(f"{name},squat,1,{name}.npy")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    import_features(tmp_path / "list.csv", "i3d", tmp_path / "i3d.h5")
    notes = describe(tmp_path / "i3d.h5")["notes"]
    assert "1 of 3 samples have fewer clips, padded in front" in notes


def test_what_is_listed_comes_back_as_labels_only(run, cache, tmp_path):
    """Also where an earlier cache has a column of one's own called `frames`."""
    row = Sample("a", "x", "train", 1.0, 9, "", extra={"frames": "mine", "who": "p1"})
    write_cache(tmp_path / "own.h5", [row], [X[0]], MADE)
    listed = run("list", "--cache", tmp_path / "own.h5").stdout
    assert listed.splitlines()[1] == "a,x,1.0,train,9,4,,mine,p1"
    (tmp_path / "list.csv").write_text(listed)
    said = run("relabel", tmp_path / "list.csv", "--cache", tmp_path / "own.h5").output
    assert "0 of 1 samples change" in said
    opened = aqa.open_cache(tmp_path / "own.h5")
    assert opened.labels["frames"].tolist() == [9]
    assert opened.labels["extra_frames"].tolist() == ["mine"]
    header, line = listed.splitlines()
    np.save(tmp_path / "a.npy", X[0])
    (tmp_path / "list.csv").write_text(f"{header},file\n{line},a.npy\n")
    made = import_features(tmp_path / "list.csv", "i3d", tmp_path / "i3d.h5")
    assert any("ignored columns: frames, clips, damage" in note for note in made.notes)
    assert list(aqa.open_cache(made.cache).labels) == [
        *("key", "action", "split", "score", "frames", "who")
    ]


def test_info_sees_parts(run, cache):
    write_part(cache, Sample("c", "kür", "train", 1.0, 9, ""), X[0], MADE)
    write_part(cache, Sample("d", "kür", "train", 1.0, 9, ""), X[0], MADE)
    part_path(cache, "d").write_bytes(b"")
    (parts_folder(cache) / f"{'0' * 64}.failed").touch()
    found = json.loads(run("info", "--cache", cache, "--json").stdout)
    assert found["parts"] == {"count": 2, "damaged": 1, "new": 1}
    assert found["samples"]["kür"] == {"train": 2, "(none)": 1}
    text = run("info", "--cache", cache).stdout
    said = ("2 parts beside the cache (1 new videos)", "1 parts are damaged")
    assert all(each in text for each in (*said, "1 videos failed"))
    cache.unlink()
    found = describe(cache)
    assert found["shape"] is None and found["provenance"] == MADE.record
    assert found["samples"] == {"kür": {"train": 1}}
    run("info", "--cache", cache)


def test_relabelling_says_first_what_changes(run, cache, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("key;score;surgeon\na/1;70;B\nzzz;3;C\n")
    before = cache.read_bytes()
    ran = run("relabel", labels, "--cache", cache, "--dry-run")
    lines = ran.stdout.splitlines()
    assert lines[0] == f"{cache}: 1 of 3 samples change (1 score, 1 surgeon)"
    assert lines[1] == "  a/1: score 81.5 -> 70.0, surgeon none -> B"
    assert lines[2] == "  2 samples are not in the list: they stay"
    assert "1 of 2 keys are not in the cache: 'zzz'" in lines[3]
    refused = run("relabel", labels, "--cache", cache, code=1)
    assert refused.stdout.startswith(lines[0]) and "--yes" in refused.stderr
    assert cache.read_bytes() == before
    ran = run("relabel", labels, "--cache", cache, "--yes", "--json")
    done = json.loads(ran.stdout)
    assert done["changed"] == 1 and done["kept"] == f"{cache}.bak"
    assert "separated by semicolon" in ran.stderr
    assert (tmp_path / "features.h5.bak").read_bytes() == before


def test_every_command_that_prints_facts_has_json(run, cache, tmp_path):
    np.save(tmp_path / "x.npy", X[0])
    table = tmp_path / "labels.csv"
    table.write_text("key,action,score,file\na,kata,1,x.npy\n")
    new = tmp_path / "new.h5"
    ran = run("import", table, "--name", "I3D", "--cache", new, "--json")
    made = json.loads(ran.stdout)
    assert (made["samples"], made["shape"]) == (1, [2, 4, 5])
    assert "no column `split`" in made["notes"][0] and made["notes"][0] in ran.stderr
    merged = json.loads(run("merge", "--cache", new, "--json").stdout)
    assert merged == {"cache": str(new)}
    assert json.loads(run("verify", "--cache", new, "--json").stdout)["sound"]


def test_a_damaged_cache_is_not_merged_into_itself(run, cache):
    spoil(cache, X[1])
    for sources in ([], [cache]):
        ran = run("merge", *sources, "--cache", cache, code=1)
        assert "sample 'a/2' is damaged" in ran.stderr
