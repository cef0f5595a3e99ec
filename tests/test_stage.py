"""The extraction stage: nothing done twice, nothing lost, every failure named."""

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import KEYS as FAKE_KEYS
from fakes import FakeExtractor, Killed, dataset, features_of

from aqa.cache.errors import AqaError, ProvenanceMismatch
from aqa.cache.files import locked
from aqa.cache.parts import parts_folder, verify, write_part
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache
from aqa.extract import stage
from aqa.extract.datasets.dataset import Dataset, Video
from aqa.extract.stage import FailureLog, _Pending, extract, plan, relabelled

KEYS = list(FAKE_KEYS)
OTHER = Provenance({"features": "other"})


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "features.h5"


def test_every_video_reaches_the_cache_with_its_labels(cache):
    made = extract(dataset(), cache, FakeExtractor())
    assert (made.done, made.skipped, made.failures, made.merged) == (7, 0, (), True)
    with FeatureCache.open(cache) as opened:
        assert list(opened.samples.key) == KEYS
        assert set(opened.samples.score) == {50.0}
        assert set(opened.samples.frames) == {97}
        for row, key in enumerate(KEYS):
            np.testing.assert_array_equal(opened.read([row])[0], features_of(key))
    assert not parts_folder(cache).exists()


def test_what_is_finished_is_not_made_again(cache):
    first, second = FakeExtractor(), FakeExtractor()
    sample = Sample(KEYS[2], "diving", "train", 50.0, 97, "ab" * 32)
    write_part(cache, sample, features_of(KEYS[2]), first.provenance)
    extract(dataset(), cache, first)
    assert sorted(first.seen) == KEYS[:2] + KEYS[3:]
    made = extract(dataset(), cache, second)
    assert (second.seen, made.skipped, made.merged) == ([], 7, True)


def test_failures_are_named_and_tried_again(cache):
    made = extract(dataset(), cache, FakeExtractor(broken={KEYS[1], KEYS[4]}))
    assert [failure.key for failure in made.failures] == [KEYS[1], KEYS[4]]
    assert made.merged and made.done == 5
    listed = json.loads((cache.parent / "failures.json").read_text())
    assert [failure["key"] for failure in listed] == [KEYS[1], KEYS[4]]
    assert "found noise" in listed[0]["reason"]
    again = FakeExtractor()
    assert extract(dataset(), cache, again).failures == ()
    assert sorted(again.seen) == [KEYS[1], KEYS[4]]
    assert not (cache.parent / "failures.json").exists()
    with FeatureCache.open(cache) as opened:
        assert list(opened.samples.key) == KEYS


def test_where_nothing_can_be_used_there_is_no_cache(cache):
    made = extract(dataset(), cache, FakeExtractor(broken=set(KEYS)))
    assert len(made.failures) == 7 and not made.merged and not cache.exists()


def test_features_of_another_kind_are_refused_before_anything_runs(cache):
    extract(dataset(), cache, FakeExtractor())
    before = cache.read_bytes()
    other = FakeExtractor(provenance=OTHER)
    with pytest.raises(ProvenanceMismatch, match="features: found"):
        extract(dataset([*KEYS, "diving/099"]), cache, other)
    assert other.seen == [] and cache.read_bytes() == before


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_make_the_same_bytes_and_the_last_one_merges(tmp_path, order):
    whole = tmp_path / "whole" / "features.h5"
    extract(dataset(), whole, FakeExtractor(broken={KEYS[3]}))
    cache = tmp_path / "shards" / "features.h5"
    merged = [
        extract(dataset(), cache, FakeExtractor(broken={KEYS[3]}), (i, 3)).merged
        for i in order
    ]
    assert merged == [False, False, True]
    assert cache.read_bytes() == whole.read_bytes()
    failures = [path.with_name("failures.json") for path in (whole, cache)]
    assert failures[0].read_bytes() == failures[1].read_bytes()


def test_a_plan_changes_nothing(cache):
    work = plan(dataset(), cache, FakeExtractor(), (1, 3))
    assert [video.key for video in work.todo] == [KEYS[1], KEYS[4]]
    assert list(cache.parent.iterdir()) == []


def test_an_interruption_leaves_what_was_finished(cache):
    begun, rest = FakeExtractor(dies_at=3), FakeExtractor()
    with pytest.raises(Killed):
        extract(dataset(), cache, begun)
    assert extract(dataset(), cache, rest).skipped == 3
    assert sorted(begun.seen + rest.seen) == KEYS


@pytest.mark.parametrize("count", [1, 2, 3])
def test_runs_on_one_cache_share_the_work(tmp_path, cache, count):
    """Other runs begin while the first has its third video in hand."""
    others = []

    class Joined(FakeExtractor):
        def extract(self, videos):
            for place, result in enumerate(super().extract(videos)):
                if place == 2:
                    for number in range(count):
                        shard = None if count == 1 else (number, count)
                        others.append(extract(dataset(), cache, FakeExtractor(), shard))
                yield result

    first = extract(dataset(), cache, Joined())
    # The third video alone was made twice.
    assert (first.done, first.elsewhere, first.skipped) == (3, 4, 0)
    assert sum(other.done for other in others) == 5
    assert first.merged and others[-1].merged
    whole = tmp_path / "whole.h5"
    extract(dataset(), whole, FakeExtractor())
    assert cache.read_bytes() == whole.read_bytes()


def test_features_of_another_kind_are_refused_from_another_run_too(cache):
    class Overtaken(FakeExtractor):
        def extract(self, videos):
            extract(dataset(), cache, FakeExtractor(provenance=OTHER))
            yield from super().extract(videos)

    with pytest.raises(ProvenanceMismatch, match="features: found"):
        extract(dataset(), cache, Overtaken())


def test_features_of_a_replaced_video_are_not_taken_for_another_run_s(cache):
    class Replaced(FakeExtractor):
        def source(self, video):
            return cache  # which is none of the files they were made from

    extract(dataset(), cache, FakeExtractor())
    made = extract(dataset(), cache, Replaced(), replace=True)
    assert (made.done, made.elsewhere, made.skipped) == (7, 0, 0)


def test_runs_begin_at_different_places(cache, monkeypatch):
    begun = set()
    for process in range(100, 107):
        monkeypatch.setattr(stage.os, "getpid", lambda n=process: n)
        order = [
            video.key for video in _Pending(cache, dataset().videos, FakeExtractor())
        ]
        assert sorted(order) == KEYS
        begun.add(order[0])
    assert len(begun) >= 5


def test_labels_that_are_not_the_data_set_s_are_counted(cache):
    extract(dataset(), cache, FakeExtractor())
    given = dataset().videos
    scored = replace(given[0], score=51.0)
    moved = replace(given[1], split="test")
    unlabelled = replace(given[2], action="", split="", score=math.nan)
    new = Video("diving/099", Path("x"), "diving", "train", 1.0)
    other = Dataset(Path("."), (scored, moved, unlabelled, *given[3:], new), ())
    assert relabelled(dataset().videos, cache) == 0
    assert relabelled(other.videos, cache) == 2
    assert extract(other, cache, FakeExtractor()).relabelled == 2
    with FeatureCache.open(cache) as opened:
        assert list(opened.samples.score) == [50.0] * 7 + [1.0]


def test_an_unlabelled_video_has_no_score(cache):
    videos = (Video("a.avi", Path("a.avi"), "", "", math.nan),)
    extract(Dataset(Path("."), videos, ()), cache, FakeExtractor())
    with FeatureCache.open(cache) as opened:
        assert np.isnan(opened.samples.score).all()


def test_a_failure_that_cannot_be_taken_back_is_an_error(cache, monkeypatch):
    def refuse(_):
        raise PermissionError(errno.EACCES, "injected")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(AqaError, match=r"\.failed: cannot be removed: Permission"):
        FailureLog(cache).clear(KEYS[0])


def test_a_failure_is_not_written_while_a_merge_clears_up(cache):
    """Found by soaking: the merge removed what another run was about to rename."""
    video = dataset().videos[0]
    with locked(cache):
        writer = threading.Thread(
            target=FailureLog(cache).record, args=(video, AqaError("noise"))
        )
        writer.start()
        writer.join(0.2)
        assert writer.is_alive() and not parts_folder(cache).exists()
    writer.join(10)
    assert list(FailureLog(cache).among([video])) == [video.key]


def test_what_a_killed_run_left_of_the_list_of_failures_goes(cache):
    (cache.parent / f".failures.json.{'0' * 16}.tmp").touch()
    extract(dataset(), cache, FakeExtractor())
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


#: Extracts to the cache that is named, slowly enough to be killed between videos.
SLOW = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from aqa.extract.stage import extract
from fakes import FakeExtractor, dataset

class Slow(FakeExtractor):
    def extract(self, videos):
        for result in super().extract(videos):
            time.sleep(0.02)
            yield result

print("up", flush=True)
sys.exit(0 if extract(dataset(), Path(sys.argv[1]), Slow()).merged else 1)
"""


@pytest.mark.slow
def test_killed_at_any_instant_it_ends_in_the_same_bytes(tmp_path):
    """Ten runs, each killed at random up to nine times before one may finish."""
    whole, cache = tmp_path / "whole.h5", tmp_path / "killed" / "features.h5"
    extract(dataset(), whole, FakeExtractor())
    instants, kills = random.Random(0), 0
    command = [sys.executable, "-c", SLOW, cache]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(40):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as run:
            run.stdout.readline()
            if kills < 10:
                time.sleep(instants.uniform(0, 0.12))
                run.send_signal(signal.SIGKILL)
        kills += run.returncode == -signal.SIGKILL
        if run.returncode == 0 and kills >= 10:
            break
        if run.returncode == 0:
            # Finished before the kill came: begin anew.
            cache.unlink()
    assert kills >= 10
    assert cache.read_bytes() == whole.read_bytes()
    assert verify(cache) == []
    assert not list(cache.parent.glob("*.tmp"))
