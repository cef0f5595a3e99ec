"""The real command, interrupted, short of disk, run twice at once."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from fakes import encode, noise

from aqa.cache.parts import list_parts, parts_folder, verify

pytestmark = pytest.mark.slow

VIDEOS = 6


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(VIDEOS):
        encode(folder / f"{number}.avi", noise(20, seed=number), "mpeg4")
    return folder


def start(videos, cache, *options):
    """Start `aqa extract` in a session of its own, so that its children are known."""
    command = [sys.executable, "-m", "aqa.cli", "extract", "--videos", videos]
    command += ["--cache", cache, "--weights", "random", "--arch", "c3d-tiny"]
    command += options
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def timed(videos, tmp_path_factory):
    """What an undisturbed run gives, and the seconds that it takes."""
    cache = tmp_path_factory.mktemp("undisturbed") / "features.h5"
    begun = time.monotonic()
    run = start(videos, cache)
    assert run.communicate()[1] is not None and run.returncode == 0
    return cache.read_bytes(), time.monotonic() - begun


@pytest.fixture(scope="module")
def undisturbed(timed):
    return timed[0]


def wait_for_a_part(cache, run):
    while not list_parts(parts_folder(cache)):
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)


def session_is_empty(run):
    """Whether nothing of the run's session lives on; orphans may take a moment."""
    for _ in range(200):
        try:
            os.killpg(run.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def finish(videos, cache, undisturbed):
    """Run to the end, to the bytes of an undisturbed run; return what is printed."""
    run = start(videos, cache)
    output, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert cache.read_bytes() == undisturbed and verify(cache) == []
    return output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_goes_on(videos, undisturbed, tmp_path, number):
    cache = tmp_path / "features.h5"
    run = start(videos, cache)
    wait_for_a_part(cache, run)
    run.send_signal(number)
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "interrupted" in errors and "Traceback" not in errors
    assert session_is_empty(run)
    finish(videos, cache, undisturbed)


def test_a_killed_run_leaves_no_children(videos, undisturbed, tmp_path):
    cache = tmp_path / "features.h5"
    run = start(videos, cache)
    wait_for_a_part(cache, run)
    run.kill()
    run.communicate(timeout=60)
    assert session_is_empty(run)
    finish(videos, cache, undisturbed)


def test_killed_at_random_instants_it_ends_in_the_same_bytes(videos, timed, tmp_path):
    undisturbed, seconds = timed
    cache = tmp_path / "features.h5"
    instants = random.Random(5)
    for _ in range(3):
        run = start(videos, cache)
        time.sleep(instants.uniform(0.4, 1) * seconds)
        run.kill()
        run.communicate(timeout=60)
    finish(videos, cache, undisturbed)


def test_two_runs_at_once_make_the_same_cache(videos, undisturbed, tmp_path):
    cache = tmp_path / "features.h5"
    runs = [start(videos, cache, "--json") for _ in range(2)]
    said = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    told = [json.loads(output) for output, _ in said]
    for one in told:
        assert one["done"] + one["elsewhere"] + one["skipped"] == VIDEOS
    assert sum(one["done"] for one in told) >= VIDEOS
    assert cache.read_bytes() == undisturbed
    assert verify(cache) == []


def test_a_full_disk_is_said_and_costs_nothing_finished(videos, undisturbed, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    # Each part takes about 40 KiB: a few fit.
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", disk], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small file system")
    try:
        cache = disk / "features.h5"
        run = start(videos, cache)
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 1, errors
        assert "space" in errors and "Traceback" not in errors
        kept = len(list_parts(parts_folder(cache)))
        assert 0 < kept < VIDEOS
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        assert f"{kept} there before" in finish(videos, cache, undisturbed)
    finally:
        subprocess.run(["umount", disk], check=True)
