"""What extraction says of videos and of time, before and after a run."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import KEYS, FakeExtractor, dataset, encode, noise

from aqa.cache.errors import AqaError
from aqa.cache.files import user_folder
from aqa.cache.store import FeatureCache
from aqa.extract import extractor as timing
from aqa.extract.extractor import Facts
from aqa.extract.stage import extract


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch):
    """A cache folder of the user that holds nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


class Timed(FakeExtractor):
    """Has a workload."""

    workload = "made up"


def test_times_of_earlier_runs_are_kept_by_machine_and_workload():
    extractor = Timed()
    assert timing.expected_time(extractor) is None
    timing.remember_time(extractor, 4, 8.0)  # too few to tell
    assert timing.expected_time(extractor) is None
    timing.remember_time(extractor, 10, 25.0)
    assert timing.expected_time(extractor) == 2.5
    timing.remember_time(FakeExtractor(), 10, 25.0)  # of an unknown workload
    extractor.workload = "another"
    assert timing.expected_time(extractor) is None
    assert timing.expected_time(FakeExtractor()) is None


def test_a_damaged_or_unwritable_record_is_nothing_known(monkeypatch):
    user_folder().mkdir(parents=True)
    (user_folder() / "extraction_times.json").write_text("[1, 2")
    assert timing.expected_time(Timed()) is None
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    timing.remember_time(Timed(), 10, 25.0)
    assert timing.expected_time(Timed()) is None


def test_a_trial_takes_the_time_of_the_second_video(monkeypatch):
    clock = iter([100.0, 107.0, 110.0, 0.0, 0.0])
    stub = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(timing, "time", stub)
    extractor = Timed()
    assert timing.measure_time(extractor, dataset().videos) == 3.0
    assert extractor.seen == ["diving/001", "diving/002"]
    assert timing.measure_time(Timed(broken={"diving/001"}), dataset().videos) is None
    assert timing.measure_time(extractor, ()) is None


def test_a_dry_run_says_how_long_it_takes_and_writes_nothing(aqa, tmp_path):
    for number in range(3):
        encode(tmp_path / "videos" / f"{number}.avi", noise(20, seed=number))
    asked = ["extract", "--videos", tmp_path / "videos", "--cache", tmp_path / "f.h5"]
    asked += ["--weights", "random", "--arch", "c3d-tiny", "--workers", 1]
    found = json.loads(aqa(*asked, "--dry-run", "--json").stdout)
    assert found["seconds"] > 0 and len(found["todo"]) == 3
    assert "3 to do, about" in aqa(*asked, "--dry-run").stdout
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_facts_are_said_once_per_kind():
    facts = Facts()
    for number in range(8):
        facts.add(f"{number}.mp4", 25.0, 16 / 9, ())
    facts.add("fast.mp4", 50.0, 4 / 3, ("2 video streams: the longest is used",))
    facts.add("phone.mp4", 30.0, 9 / 16, ("2 video streams: the longest is used",))
    facts.add("poses.json", None, None, ())
    rates, aspects, streams = facts.describe(103)
    assert rates.startswith("1 of 11 videos have 50 frames per second, not 25")
    assert "(first: fast.mp4)" in rates and "--fps 25" in rates
    assert aspects.startswith("1 of 11 videos are upright or very wide (first: phone")
    assert "0.56" in aspects
    assert streams == "2 video streams: the longest is used: fast.mp4, phone.mp4"
    assert list(Facts().describe(103)) == []


def test_what_was_decided_is_said_and_stands_with_the_sample(tmp_path):
    class Noting(FakeExtractor):
        def extract(self, videos):
            for video, made in super().extract(videos):
                yield video, replace(made, damage="a gap", notes=("x",))

    cache = tmp_path / "f.h5"
    made = extract(dataset(), cache, Noting())
    assert made.damage == dict.fromkeys(KEYS, "a gap")
    (note,) = made.notes
    assert note.startswith("x: diving/00") and note.endswith("and 4 more")
    with FeatureCache.open(cache) as opened:
        assert set(opened.samples.damage) == {"a gap; x"}


def test_fps_resamples_and_stands_in_the_provenance_only_if_given(aqa, tmp_path):
    frames = noise(40)
    encode(tmp_path / "v/fast.avi", frames, rate=50)
    encode(tmp_path / "v/slow.avi", frames[::2], rate=25)
    asked = ["extract", "--videos", tmp_path / "v", "--weights", "random"]
    asked += ["--arch", "c3d-tiny", "--workers", 1]
    said = aqa(*asked, "--cache", tmp_path / "plain.h5").stderr
    assert "frames per second, not" in said
    said = aqa(*asked, "--cache", tmp_path / "25.h5", "--fps", 25).stderr
    assert "frames per second" not in said
    with FeatureCache.open(tmp_path / "plain.h5") as plain:
        assert "fps" not in plain.provenance.record
        assert not np.array_equal(*plain.read())
    with FeatureCache.open(tmp_path / "25.h5") as resampled:
        assert resampled.provenance.record["fps"] == 25
        np.testing.assert_array_equal(*resampled.read())
    aqa(*asked, "--cache", tmp_path / "plain.h5", "--fps", 25, code=4)


ABSENT = "Error: absent.pth: cannot be read (No such file"


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ("nowhere", "extract --videos nowhere --weights random"),
        (ABSENT, "extract --videos v --weights absent.pth"),
        ("--weights: expected", "extract --videos v"),
        ("needs --poses", "extract --videos v --features pose-dct"),
        (ABSENT, "score v.mp4 --model m --weights absent.pth"),
        (ABSENT, "pretrain --videos . --out w --init absent.pth"),
        (ABSENT, "weights inspect absent.pth"),
        (ABSENT, "weights convert absent.pth w"),
    ],
)
def test_errors_that_need_no_torch_come_before_it_is_loaded(tmp_path, message, command):
    """In a process of its own, where an import of torch is an error."""
    encode(tmp_path / "v/a.avi", noise(4))
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from aqa.cli import main; main(sys.argv[1:])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, *command.split()],
        **{"capture_output": True, "text": True, "cwd": tmp_path},
    )
    assert message in ran.stderr and "Traceback" not in ran.stderr, ran.stderr
    assert ran.returncode in (AqaError.exit_code, 2)


def test_videos_that_are_mostly_padding_are_said():
    facts = Facts()
    for key, frames in (("a", 200), ("b", 15), ("c", 1), ("d", 16)):
        facts.add(key, 25.0, None, (), frames)
    assert list(facts.describe(103)) == [
        "2 of 4 videos have fewer than 16 frames (first: b, 15): 88 of the 103 that "
        "the network sees are black"
    ]
    assert list(facts.describe(0)) == []  # poses are not padded
