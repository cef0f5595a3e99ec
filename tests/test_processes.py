"""Counting processors, bounding memory, and the map over processes."""

import errno
import math
import os
import signal
import subprocess
import sys
import time

import pytest
from fakes import ours

from aqa.cache import child
from aqa.cache.child import exit_cause
from aqa.cache.errors import AqaError
from aqa.cache.processes import (
    process_map,
    process_outcomes,
    usable_processors,
)
from aqa.cache.tables import parse_score


def test_processors_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert usable_processors() == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    seen = []
    numbers = [9, 4, 16, 1, 0, 25, 36]
    found = process_map(
        math.sqrt, numbers, workers, lambda *told: seen.append(told), hex
    )
    assert found == [3, 2, 4, 1, 0, 5, 6]
    assert [done for done, _, _ in seen] == list(range(8))
    assert seen[0] == (0, 7, "0x9") and seen[-1][1] == 7


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_failure_is_raised(workers):
    with pytest.raises(AqaError, match="'b' is not a number"):
        process_map(parse_score, ["1", "b", "c", "2"], workers)


def test_an_item_whose_process_dies_is_named():
    with pytest.raises(AqaError, match=r"^0x3: its process crashed \(exit code 3\)"):
        process_map(os._exit, [3, 3], 2, label=hex)


def test_a_crash_or_a_hang_costs_its_own_item_only():
    found = list(process_outcomes(os._exit, [3], 1))
    assert str(found[0]) == "its process crashed (exit code 3)"
    found = list(process_outcomes(time.sleep, [0, 60, 0], 1, seconds=1))
    assert [found[0], found[2]] == [None, None]
    assert str(found[1]) == "takes longer than 1 s"


def test_processes_that_cannot_start_end_the_map():
    outcomes = process_outcomes(abs, [1], prepare=os._exit, arguments=(3,))
    with pytest.raises(AqaError, match=r"before they do anything .*\(exit code 3\)"):
        next(outcomes)
    outcomes = process_outcomes(abs, [1], prepare=parse_score, arguments=("x",))
    with pytest.raises(AqaError, match="^score 'x' is not a number"):
        next(outcomes)


def test_processes_that_are_lost_with_their_server_are_replaced():
    outcomes = process_outcomes(math.sqrt, [4, 9, 16, 25], 1)
    assert next(outcomes) == 2
    os.kill(child._server._process.pid, signal.SIGKILL)
    assert list(outcomes) == [3, 4, 5]


def test_other_errors_are_those_of_the_function(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        list(process_outcomes(os.listdir, [tmp_path / "none"]))
    assert caught.value.errno == errno.ENOENT
    assert "In a child process:\nTraceback" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="^SystemExit: 3"):
        list(process_outcomes(sys.exit, [3]))


def test_memory_beyond_the_limit_is_refused():
    code = (
        "from aqa.cache.child import limit_memory\n"
        "limit_memory(64 << 20)\n"
        "bytearray(16 << 20)\n"
        "try: bytearray(256 << 20)\n"
        "except MemoryError: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ours(), capture_output=True, text=True
    )
    assert done.stdout == "refused\n", done.stderr


@pytest.mark.parametrize("delay", [0, 0.02, 0.1, 1])
def test_ctrl_c_ends_the_map_and_its_processes(delay):
    code = (
        "import time\n"
        "from aqa.cache.processes import process_map\n"
        "print('ready', flush=True)\n"
        "process_map(time.sleep, [60, 60, 60], 2)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=ours(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        process.stdout.readline()
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert errors.count("KeyboardInterrupt") == 1  # the others say nothing
    assert errors.count("Traceback") == 1
    deadline = time.monotonic() + 20
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)


def test_causes_of_an_end_are_named():
    assert exit_cause(3) == "exit code 3"
    assert exit_cause(-signal.SIGKILL) == "SIGKILL"
    assert exit_cause(-200) == "exit code -200"
