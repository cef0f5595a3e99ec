"""`aqa extract` on the command line: what it takes, refuses and says."""

import json

import h5py
import numpy as np
import pytest


@pytest.fixture
def posed(tmp_path):
    """A manifest of two synchronised dives, never opened, and poses of two divers."""
    rng = np.random.default_rng(0)
    (tmp_path / "poses").mkdir()
    rows = ["video,action,score,split"]
    for name in ("a", "b"):
        rows.append(f"{name}.avi,sync_diving_3m,50,train")
        (tmp_path / f"{name}.avi").write_bytes(b"not opened")
        frames = []
        for _ in range(20):
            people = [rng.normal([x, 100], 9, (17, 2)) for x in (100, 400)]
            frames.append([np.column_stack([p, [0.9] * 17]).tolist() for p in people])
        if name == "b":
            frames[4] = []
        (tmp_path / "poses" / f"{name}.json").write_text(json.dumps(frames))
    path = tmp_path / "list.csv"
    path.write_text("\n".join(rows))
    return path


def provenance(cache):
    with h5py.File(cache) as file:
        return json.loads(file.attrs["provenance"]), file["features"].shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--features", "pose-dct", "--engine", "ray"], "--engine does nothing"),
        (["--features", "pose-dct", "--weights", "tiny"], "--weights does nothing"),
        (["--features", "pose-apen", "--arch", "c3d-tiny"], "--arch does nothing"),
        (["--features", "pose-dct", "--precision", "bf16"], "--precision does"),
        (["--features", "pose-dct", "--plain"], "--plain does nothing for pose"),
        (["--features", "pose-dct", "--length", "90"], "--length does nothing"),
        (["--features", "pose-dct", "--workers", "2"], "--workers does nothing"),
        (["--features", "pose-dct"], "needs --poses DIR"),
        (["--poses", "poses"], "--poses does nothing for C3D features"),
        (["--athletes", "2"], "--athletes does nothing for C3D features"),
        (["--ray-address", "here:1"], "--ray-address does nothing for --engine local"),
    ],
)
def test_options_that_could_do_nothing_are_refused(aqa, posed, options, message):
    cache = posed.parent / "f.h5"
    ran = aqa("extract", "--videos", posed, "--cache", cache, *options, code=2)
    assert message in ran.stderr and not cache.exists()


def test_two_athletes_can_be_asked_for(aqa, posed):
    one, two = posed.parent / "one.h5", posed.parent / "two.h5"
    asked = ["extract", "--videos", posed, "--features", "pose-dct"]
    asked += ["--poses", posed.parent / "poses"]
    aqa(*asked, "--cache", one)
    more = {"athletes": 2, "confidence": 0.5, "missing": 0.25}
    words = (word for name, value in more.items() for word in (f"--{name}", value))
    aqa(*asked, "--cache", two, *words)
    record, shape = provenance(two)
    assert record.items() >= more.items()
    assert shape == (2, 1, 1, 3200)
    assert provenance(one)[1] == (2, 1, 1, 1600)
    # Of what was cached with other settings nothing is taken.
    aqa(*asked, "--cache", one, "--missing", 0.25, code=4)


def test_what_was_decided_for_poses_is_told_in_one_line(aqa, posed):
    ran = aqa(
        *("extract", "--videos", posed, "--cache", posed.parent / "f.h5", "--json"),
        *("--features", "pose-dct", "--poses", posed.parent / "poses"),
    )
    assert "poses: coco17, 2-D, in pixels\n" in ran.stderr
    (line,) = (line for line in ran.stderr.splitlines() if "with a note" in line)
    people = "followed 1 of 2 similar people"
    assert line == f"poses with a note: 2 of 2 videos, first a.avi: {people}"
    filled = "interpolated 17 of 340 joints, in 1 of 20 frames all"
    damage = json.loads(ran.stdout)["damage"]
    assert damage == {"a.avi": people, "b.avi": f"{people}; {filled}"}


def test_labels_that_are_new_are_told(aqa, posed):
    asked = ["extract", "--videos", posed, "--cache", posed.parent / "f.h5"]
    asked += ["--features", "pose-dct", "--poses", posed.parent / "poses"]
    assert "labels" not in aqa(*asked).stderr
    posed.write_text(
        posed.read_text().replace("b.avi,sync_diving_3m,50", "b.avi,sync_diving_3m,51")
    )
    for more in ([], ["--dry-run"]):
        assert "labels of 1 videos differ from the cache's" in aqa(*asked, *more).stderr
