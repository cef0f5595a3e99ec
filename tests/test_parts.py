"""No finished video is lost, and the merged cache does not tell how it came about."""

import errno
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import fakes
import h5py
import numpy as np
import pytest
from fakes import MADE, OTHER, at_once, features_of, names, ours, spoil
from hypothesis import given, settings
from hypothesis import strategies as st

from aqa.cache import store
from aqa.cache.errors import AqaError, ProvenanceMismatch, UnreadableFile
from aqa.cache.files import probe
from aqa.cache.hdf5_checks import reading
from aqa.cache.parts import (
    finished,
    merge,
    part_path,
    parts_folder,
    verify,
    write_part,
)
from aqa.cache.store import FeatureCache, write_cache

KEYS = tuple(f"diving/{number:03d}" for number in range(6))


def sample(key, source=0, score=1.5):
    return fakes.sample(key, score=score, source_sha256=f"{source:064x}")


def part(cache, key, source=0, seed=0, made=MADE, score=1.5):
    return write_part(cache, sample(key, source, score), features_of(key, seed), made)


def parts(cache, keys=KEYS):
    return [part(cache, key) for key in keys]


def whole(path, keys=KEYS, source=0, seed=0, made=MADE, score=1.5):
    samples = [sample(key, source, score) for key in keys]
    return write_cache(path, samples, (features_of(key, seed) for key in keys), made)


@pytest.fixture
def cache(tmp_path):
    """Where a cache is to be, in a folder of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder / "features.h5"


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The bytes of the cache of all keys, written in one go."""
    return whole(tmp_path_factory.mktemp("golden") / "features.h5").read_bytes()


def test_a_part_is_a_cache_of_one_sample_named_after_its_key(cache):
    path = part(cache, "diving/001")
    assert path == part_path(cache, "diving/001")
    assert path.parent == parts_folder(cache) == Path(f"{cache}.parts")
    assert path.name == f"{hashlib.sha256(b'diving/001').hexdigest()}.h5"
    assert path.read_bytes() == whole(cache, ["diving/001"]).read_bytes()


def test_finished_looks_at_cache_and_parts(cache):
    assert finished(cache, MADE) == {}
    whole(cache, KEYS[:2])
    part(cache, KEYS[2], source=7)
    part(cache, KEYS[0], source=8)
    assert finished(cache, MADE) == {
        KEYS[0]: sample(KEYS[0], 8),
        KEYS[1]: sample(KEYS[1], 0),
        KEYS[2]: sample(KEYS[2], 7),
    }


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "misnamed", "two"])
def test_a_damaged_part_is_not_finished_and_is_made_anew(cache, golden, damage):
    parts(cache)
    path = part_path(cache, KEYS[3])
    if damage == "flipped":
        spoil(path, features_of(KEYS[3]))
    elif damage == "misnamed":
        path.write_bytes(part_path(cache, KEYS[2]).read_bytes())
    elif damage == "two":
        whole(path, KEYS[3:5])
    else:
        os.truncate(path, 9000 if damage == "truncated" else 0)
    assert set(finished(cache, MADE)) == {*KEYS} - {KEYS[3]}
    assert [str(path) in problem for problem in verify(cache)] == [True]
    part(cache, KEYS[3])
    assert verify(cache) == []
    assert merge(cache).read_bytes() == golden


def test_merge_names_damaged_parts_and_goes_on_without_them_the_next_time(cache):
    parts(cache)
    cut_short, flipped = part_path(cache, KEYS[1]), part_path(cache, KEYS[4])
    os.truncate(cut_short, 5000)
    spoil(flipped, features_of(KEYS[4]))
    with pytest.raises(AqaError, match="extract again") as error:
        merge(cache)
    assert all(f"{path}: " in str(error.value) for path in (cut_short, flipped))
    assert not (cache.exists() or cut_short.exists() or flipped.exists())
    with FeatureCache.open(merge(cache)) as merged:
        assert merged.samples.key == tuple(KEYS[row] for row in (0, 2, 3, 5))


def test_a_damaged_row_is_not_finished_and_its_new_part_takes_its_place(cache, golden):
    whole(cache)
    spoil(cache, features_of(KEYS[3]))
    assert set(finished(cache, MADE)) == {*KEYS} - {KEYS[3]}
    assert [KEYS[3] in problem for problem in verify(cache)] == [True]
    damaged = cache.read_bytes()
    part(cache, KEYS[3])
    assert merge(cache).read_bytes() == golden
    cache.write_bytes(damaged)  # a sound copy heals it, too
    assert merge(cache, [whole(cache.with_name("backup.h5"))]).read_bytes() == golden


def test_a_damaged_row_without_a_new_part_is_not_merged_on(cache):
    whole(cache, KEYS[:3])
    spoil(cache, features_of(KEYS[1]))
    damaged = cache.read_bytes()
    new = part(cache, KEYS[4])
    with pytest.raises(AqaError, match=f"{KEYS[1]}' is damaged"):
        merge(cache)
    assert cache.read_bytes() == damaged and new.exists()
    assert names(cache.parent) == ["features.h5", "features.h5.parts"]


def test_merging_removes_the_parts_and_leaves_nothing_else(cache, golden):
    for key in reversed(KEYS):
        part(cache, key)
    (parts_folder(cache) / f".x.h5.{'0' * 16}.tmp").touch()
    (cache.parent / f".features.h5.{'0' * 16}.tmp").touch()
    (cache.parent / "features.h5.lock").touch()
    seen = []
    merge(cache, progress=lambda *step: seen.append(step))
    assert cache.read_bytes() == golden
    assert names(cache.parent) == ["features.h5"]
    assert seen == [*zip(range(6), [6] * 6, KEYS, strict=True), (6, 6, str(cache))]
    (cache.parent / "features.h5.lock").touch()  # killed with all but this done
    assert merge(cache).read_bytes() == golden
    assert names(cache.parent) == ["features.h5"]


def test_what_is_not_ours_stays_in_the_folder_of_parts(cache):
    part(cache, KEYS[0])
    foreign = parts_folder(cache) / "notes.txt"
    longer = parts_folder(cache) / f"features of {'our' * 17}!.h5"
    assert len(longer.stem) == 64
    for path in (foreign, longer):
        path.touch()
    (parts_folder(cache) / f"{'0' * 64}.h5").symlink_to(foreign)
    merge(cache)
    assert names(foreign.parent) == [f"{'0' * 64}.h5", longer.name, "notes.txt"]


def test_nothing_to_merge_or_verify_is_an_error(cache):
    with pytest.raises(AqaError, match="no cache, and no parts of one"):
        verify(cache)
    with pytest.raises(AqaError, match="no cache and no part"):
        merge(cache)
    with pytest.raises(AqaError, match="no such file"):
        merge(cache, [cache.with_name("missing.h5")])
    (cache.parent / "folder").mkdir()
    with pytest.raises(AqaError, match="without parts"):
        merge(cache, [cache.parent / "folder"])


def test_a_new_video_file_takes_the_place_of_the_old_one(cache):
    whole(cache)
    part(cache, KEYS[2], source=5, seed=1)
    with FeatureCache.open(merge(cache)) as merged:
        assert merged.samples[2].source_sha256 == f"{5:064x}"
        np.testing.assert_array_equal(merged.read([2])[0], features_of(KEYS[2], 1))
        np.testing.assert_array_equal(merged.read([1])[0], features_of(KEYS[1]))


@pytest.mark.parametrize(
    ("made", "difference"),
    [
        ({"seed": 1}, "features"),
        ({"score": 2.0}, "score"),
        # An update in a part of the cache itself, but not in a source.
        ({"source": 5, "seed": 1}, "source_sha256, features"),
    ],
)
def test_copies_that_differ_are_an_error_that_names_both(cache, made, difference):
    whole(cache)
    before = cache.read_bytes()
    if "source" not in made:
        path = part(cache, KEYS[2], **made)
        with pytest.raises(AqaError, match=f"{KEYS[2]}: {path} and {cache} differ in"):
            merge(cache)
        path.unlink()
    other = whole(cache.with_name("other.h5"), **made)
    with pytest.raises(AqaError, match=f"{cache} and {other} differ in {difference}"):
        merge(cache, [other])
    assert cache.read_bytes() == before


@pytest.mark.parametrize("first", [0, 1])
def test_copies_with_and_without_a_probe_are_the_same(cache, first):
    """Caches of version 1 have no probes."""
    probed = replace(sample(KEYS[0]), source_probe="1" * 64)
    paths = [cache, cache.with_name("other.h5")]
    for path, one in zip(paths, (sample(KEYS[0]), probed), strict=True):
        write_cache(path, [one], [features_of(KEYS[0])], MADE)
    target, source = paths[first], paths[1 - first]
    with FeatureCache.open(merge(target, [source])) as merged:
        assert merged.samples[0] == probed


@pytest.mark.parametrize(
    ("what", "owner", "name", "error"),
    [
        ("folder", os, "scandir", PermissionError(errno.EACCES, "injected")),
        ("part", h5py, "File", PermissionError(errno.EACCES, "injected")),
        ("part", h5py, "File", MemoryError()),
        ("record", Path, "read_text", PermissionError(errno.EACCES, "injected")),
    ],
)
def test_parts_that_cannot_be_read_are_not_taken_for_damaged_or_missing(
    cache, golden, monkeypatch, what, owner, name, error
):
    parts(cache)
    paths = {"folder": parts_folder(cache), "part": part_path(cache, KEYS[3])}
    refused = paths.get(what, record(cache))
    before, real = names(parts_folder(cache)), getattr(owner, name)

    def refuse(path, *arguments, **keywords):
        if Path(path) == refused:
            raise error
        return real(path, *arguments, **keywords)

    read = [partial(merge, cache), partial(finished, cache, MADE)]
    write = [partial(part, cache, KEYS[3], made=OTHER)]
    actions = {"folder": read + write, "part": read, "record": write}[what]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refuse)
        for action in actions:
            with pytest.raises(UnreadableFile, match=f"{refused}: cannot be read"):
                action()
        assert what != "part" or len(verify(cache)) == 1
    assert names(parts_folder(cache)) == before
    assert merge(cache).read_bytes() == golden


def test_a_row_that_cannot_be_read_does_not_give_way(cache, monkeypatch):
    whole(cache)
    part(cache, KEYS[2], seed=1)
    read = FeatureCache.read

    def refuse(opened, rows=None, out=None):
        if opened.path == cache:
            with reading(cache):
                raise OSError(errno.EIO, "injected")
        return read(opened, rows, out)

    monkeypatch.setattr(FeatureCache, "read", refuse)
    with pytest.raises(UnreadableFile, match="Input/output error"):
        merge(cache)
    with pytest.raises(UnreadableFile):
        finished(cache, MADE)


def test_the_first_part_says_what_all_are_made_with(cache):
    first = part(cache, KEYS[0]).read_bytes()
    for key in KEYS[:2]:
        with pytest.raises(ProvenanceMismatch, match=str(parts_folder(cache))):
            part(cache, key, made=OTHER)
    assert part_path(cache, KEYS[0]).read_bytes() == first
    with pytest.raises(ProvenanceMismatch, match='features: found "made", asked for'):
        finished(cache, OTHER)
    merge(cache)
    with pytest.raises(ProvenanceMismatch, match=str(cache)):
        part(cache, KEYS[0], made=OTHER)
    with pytest.raises(ProvenanceMismatch, match=str(cache)):
        finished(cache, OTHER)
    assert names(cache.parent) == ["features.h5"]


def test_of_two_first_runs_with_different_weights_one_is_refused(cache):
    """Both begin on an empty folder, as fast as they can."""
    start = threading.Barrier(2)

    def is_refused(made):
        start.wait()
        try:
            for key in KEYS:
                part(cache, key, made=made)
        except ProvenanceMismatch:
            return True

    refused = at_once(is_refused, (MADE, OTHER))
    assert refused.count(True) == 1
    assert set(finished(cache, OTHER if refused[0] else MADE)) == set(KEYS)


def record(cache):
    return parts_folder(cache) / "provenance.json"


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"a": NaN}', "\udcff"])
def test_a_folder_that_does_not_say_is_asked_for_its_first_part(cache, golden, text):
    """As aqa 0.1 left it, or with a damaged record."""
    part(cache, KEYS[0])
    assert json.loads(record(cache).read_text()) == MADE.record
    record(cache).unlink()
    if text is not None:
        record(cache).write_text(text, errors="surrogateescape")
    with pytest.raises(ProvenanceMismatch, match=str(part_path(cache, KEYS[0]))):
        part(cache, KEYS[1], made=OTHER)
    parts(cache, KEYS[1:])
    assert json.loads(record(cache).read_text()) == MADE.record
    assert merge(cache).read_bytes() == golden


@pytest.mark.parametrize("left", ["damaged part", "record alone"])
def test_what_holds_no_sound_part_has_no_say_in_what_others_are_made_with(cache, left):
    path = part(cache, KEYS[0])
    if left == "damaged part":
        os.truncate(path, 3000)
        record(cache).unlink()
    else:  # as of a merge that was killed before its last steps
        path.unlink()
    part(cache, KEYS[0], made=OTHER)
    assert set(finished(cache, OTHER)) == {KEYS[0]}
    assert json.loads(record(cache).read_text()) == OTHER.record


def test_a_sample_is_hashed_once_to_be_stored_and_once_to_be_merged(cache, monkeypatch):
    hashed = []
    real = store.digest_of
    monkeypatch.setattr(store, "digest_of", lambda x: hashed.append(1) or real(x))
    parts(cache)
    assert len(hashed) == len(KEYS)
    merge(cache)
    assert len(hashed) == 2 * len(KEYS)


def test_sound_caches_and_parts_have_no_problems(cache):
    whole(cache, KEYS[:2])
    beside = part(cache, KEYS[2])
    seen = []
    assert verify(cache, lambda *step: seen.append(step)) == []
    assert [step[:2] for step in seen] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert verify(beside) == []

    def merge_now(done, total, label):
        if label.endswith(".h5"):
            merge(cache)  # moves the part away meanwhile

    assert verify(cache, merge_now) == []
    assert not beside.exists()


def test_every_damaged_sample_and_part_is_named_and_nothing_changed(cache):
    whole(cache, KEYS[:2])
    beside = part(cache, KEYS[2])
    spoil(cache, features_of(KEYS[0]), features_of(KEYS[1]))
    os.truncate(beside, beside.stat().st_size - 1)
    stamps = [path.stat().st_mtime_ns for path in (cache, beside)]
    first, second, third = verify(cache)
    assert first == f"{cache}: sample {KEYS[0]!r} is damaged"
    assert second == f"{cache}: sample {KEYS[1]!r} is damaged"
    assert third.startswith(f"{beside}: damaged")
    assert [path.stat().st_mtime_ns for path in (cache, beside)] == stamps


def test_what_others_wrote_is_held_against_its_digest_and_has_to_be_finite(cache):
    whole(cache, KEYS[:3])
    infinite = np.full((2, 3, 4), np.inf, np.float32)
    with h5py.File(cache, "r+") as file:
        file["features"][1] = 0
        file["features"][2] = infinite
        del file["samples"].attrs["sha256"]
        digest = hashlib.sha256(infinite.tobytes()).hexdigest()
        file["samples/feature_sha256"][2] = digest.encode()
    assert verify(cache) == [
        f"{cache}: sample {KEYS[1]!r} is damaged: wrong SHA-256",
        f"{cache}: sample {KEYS[2]!r} is not finite",
    ]
    with h5py.File(cache, "r+") as file:
        file["features"][1, 0, 0, 0] = np.nan
    with FeatureCache.open(cache) as opened:
        opened.read([0])
        with pytest.raises(AqaError, match="missing or not finite"):
            opened.read()


def test_provenance_and_shape_have_to_agree(cache):
    path = part(cache, KEYS[2], made=OTHER)
    whole(cache, KEYS[:2])
    with pytest.raises(ProvenanceMismatch, match=str(cache)):
        merge(cache)
    assert [str(path) in problem for problem in verify(cache)] == [True]
    path.unlink()
    write_part(cache, sample(KEYS[2]), np.ones((2, 3, 5), np.float32), MADE)
    with pytest.raises(AqaError, match=r"\(2, 3, 4\).*\(2, 3, 5\)"):
        merge(cache)
    assert len(verify(cache)) == 1


places = st.sampled_from(["cache", "part", "source", "parts source", "two"])


@settings(max_examples=15, deadline=None)
@given(st.permutations(KEYS), st.lists(places, min_size=6, max_size=6))
def test_the_merged_bytes_do_not_depend_on_the_way(
    tmp_path_factory, golden, order, where
):
    folder = tmp_path_factory.mktemp("merge")
    cache, other, third = (folder / f"{name}.h5" for name in ("f", "o", "t"))
    at = dict(zip(order, where, strict=True))
    for path, place in ((cache, "cache"), (other, "source")):
        if keys := [key for key in order if at[key] in (place, "two")]:
            whole(path, keys)
    for key in order:
        if at[key] in ("part", "two"):
            part(cache, key)
        if at[key] == "parts source":
            part(third, key)
    sources = [path for path in (other, parts_folder(third)) if path.exists()]
    before = [*map(probe, sources)]
    own = [path for path in (cache, parts_folder(cache)) if path.exists()]
    assert merge(cache, [*own, *sources]).read_bytes() == golden
    assert [*map(probe, sources)] == before


def test_one_sample_is_held_at_a_time(cache):
    x = np.ones((2, 8, 1 << 16), np.float32)  # 4 MiB
    for key in (*KEYS, "a", "b", "c", "d"):
        write_part(cache, sample(key), x, MADE)
    tracemalloc.start()
    merge(cache)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4.5 * x.nbytes < 0.5 * cache.stat().st_size


def test_extractions_at_once_share_the_work(cache, golden):
    """Writers of all parts, each merging in between, as fast as they can."""

    def work(seed):
        for key in random.Random(seed).sample(KEYS, len(KEYS)):
            if key not in finished(cache, MADE):
                part(cache, key)
            merge(cache)

    at_once(work, range(3))
    assert cache.read_bytes() == golden and names(cache.parent) == ["features.h5"]


FAULTS = ("open", "write", "ftruncate", "fsync", "close", "replace", "unlink", "mkdir")


@pytest.mark.parametrize("step", [pytest.param(3, marks=pytest.mark.slow), 11])
def test_any_system_call_may_fail_and_nothing_is_lost(cache, monkeypatch, step):
    """The n-th call of any kind fails, for every n, until a run meets no fault."""
    golden = whole(cache.with_name("golden"), KEYS[:2]).read_bytes()

    def run(done):
        for key in KEYS[:2]:
            if key not in finished(cache, MADE):
                part(cache, key)
                done.add(key)
            merge(cache)

    for n in range(1, 1000, step):
        calls = 0

        def faulty(real, name, n=n):
            def call(*arguments, **keywords):
                nonlocal calls
                calls += 1
                if calls != n:
                    return real(*arguments, **keywords)
                if name == "close":
                    real(*arguments)
                raise OSError(errno.EIO, f"injected into {name}")

            return call

        done = set()
        with monkeypatch.context() as patch:
            for name in FAULTS:
                patch.setattr(os, name, faulty(getattr(os, name), name))
            with suppress(AqaError):
                run(done)
        assert done <= set(finished(cache, MADE))
        assert not done or verify(cache) == []
        if calls < n:
            break
        run(set())
        assert cache.read_bytes() == golden
        cache.unlink()
    assert n > 80 and cache.read_bytes() == golden


def test_the_disk_may_be_full_after_any_byte(cache, golden):
    """The kernel itself refuses to write on; HDF5 alone would crash the process."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    parts(cache, KEYS[:3])
    before = merge(cache).read_bytes()
    parts(cache, KEYS[3:])
    try:
        for size in range(0, len(golden), 2027):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            with pytest.raises(AqaError, match="cannot be written: File too large"):
                merge(cache)
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert cache.read_bytes() == before
            assert names(cache.parent) == ["features.h5", "features.h5.parts"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert merge(cache).read_bytes() == golden


def work_until_killed():
    """Do what an extraction does; runs in a process of its own."""
    cache = Path(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    done = finished(cache, MADE)
    for key in KEYS:
        if key not in done:
            part(cache, key)
            print(key, flush=True)
    merge(cache)


@pytest.mark.parametrize("kills", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_many_instants_it_goes_on(cache, golden, kills):
    rng = random.Random(kills)
    script = "import test_parts; test_parts.work_until_killed()"
    done, killed, longest = set(), 0, 0.02
    while killed < kills:
        process = subprocess.Popen(
            [sys.executable, "-c", script, cache],
            env=ours(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout.readline() == "ready\n"
            began = time.monotonic()
            process.stdin.write("go\n")
            process.stdin.close()
            try:
                process.wait(rng.uniform(0, longest))
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
            done.update(process.stdout.read().split())
        if process.returncode == 0:
            longest = time.monotonic() - began
            assert cache.read_bytes() == golden
            assert names(cache.parent) == ["features.h5"]
            done.clear()
            cache.unlink()
        else:
            longest *= 1.2
            assert process.returncode == -signal.SIGKILL
            # What was said to be stored is stored, and nothing stored is damaged.
            assert done <= set(finished(cache, MADE))
            assert not done or verify(cache) == []
