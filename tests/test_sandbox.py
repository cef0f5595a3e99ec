"""Foreign parsers in a child process: results, limits, and nothing left behind."""

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fakes import at_once, ours

from aqa.cache import child, messages
from aqa.cache.errors import AqaError, UnreadableFile
from aqa.cache.processes import call
from aqa.cache.tables import parse_score


def test_results_are_those_of_the_function():
    assert call(divmod, 17, 5) == (3, 2)
    expected = np.arange(12.0).reshape(3, 4)
    found = call(np.reshape, np.arange(12.0), (3, 4))
    np.testing.assert_array_equal(found, expected)
    found += 1  # writeable
    assert call(os.getenv, "PATH") == os.environ["PATH"]
    assert len({call(os.getpid), call(os.getpid), os.getpid()}) == 3


def test_relative_paths_are_those_of_the_caller(tmp_path, monkeypatch):
    call(os.getpid)  # the server may have started elsewhere
    monkeypatch.chdir(tmp_path)
    assert call(os.getcwd) == str(tmp_path)


_spin = partial(pow, 7)  # in C, where no signal handler of Python runs


@pytest.mark.parametrize(
    "function, argument, expected",
    [
        (os.abort, None, "its process crashed (SIGABRT)"),
        (os._exit, 0, "its process crashed (exit code 0)"),
        (time.sleep, 60, "takes longer than 0.2 s"),
        (bytearray, 1 << 30, "needs more than 256 MiB"),
        (parse_score, "nonsense", "score 'nonsense' is not a number"),
        (int, "x\n\x1b[2J", "ValueError: invalid literal"),
        (open, "/nowhere/at/all", "no such file"),
        (open, "/", "cannot be read: Is a directory"),
        (_spin, 1 << 40, "takes longer than 0.2 s"),
        (sys.exit, 3, "SystemExit: 3"),
    ],
)
def test_every_failure_is_one_line(function, argument, expected):
    arguments = () if argument is None else (argument,)
    with pytest.raises(AqaError) as caught:
        call(function, *arguments, seconds=0.2, memory=256 << 20)
    assert str(caught.value).startswith(expected)
    assert str(caught.value).isprintable()
    assert isinstance(caught.value, UnreadableFile) == ("cannot be read" in expected)


def test_a_result_larger_than_the_limit_is_refused():
    # 64 MiB shared 16 times in one list of views is 1 GiB once it is sent.
    with pytest.raises(AqaError):
        call(np.ones, 1 << 27, memory=256 << 20)


def test_children_write_no_files(tmp_path):
    target = tmp_path / "written"
    with pytest.raises(AqaError):
        call(np.save, str(target), np.ones(9))
    assert not any(path.stat().st_size for path in tmp_path.iterdir())


class Hostile:
    """What a parser that was taken over might answer."""

    def __reduce__(self):
        return os.system, ("touch owned",)


def test_an_answer_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps((True, Hostile()))
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        messages._Unpickler(io.BytesIO(data)).load()
    for name in ("os.system", "call"):
        with pytest.raises((pickle.UnpicklingError, AttributeError)):
            messages._Unpickler(io.BytesIO()).find_class("aqa.cache.processes", name)
    assert not list(tmp_path.iterdir())


def test_a_killed_server_is_replaced():
    call(os.getpid)
    os.kill(child._server._process.pid, signal.SIGKILL)
    child._server._process.wait()
    assert call(divmod, 7, 2) == (3, 1)


def test_threads_may_call_at_once():
    found = at_once(lambda n: call(divmod, n, 2), range(8))
    assert found == [divmod(n, 2) for n in range(8)]


SCRIPT = """
import os, sys, time
from aqa.cache.processes import call
print("started", call(os.getppid), flush=True)  # no main guard: this line runs once
{then}
"""


def run_script(then):
    code = SCRIPT.format(then=then)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=ours()
    )


def ended(pid):
    """Tell whether a process is gone or a zombie, after a moment."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        if state.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("kill", [True, False])
def test_server_and_children_end_with_the_caller(kill):
    with run_script("call(time.sleep, 600, seconds=600)") as process:
        server = int(process.stdout.readline().split()[1])
        time.sleep(0.2)
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
    assert children
    assert all(ended(int(pid)) for pid in [server, *children])


def test_a_script_without_a_main_guard_runs_once():
    with run_script("pass") as process:
        output = process.stdout.read()
    assert process.returncode == 0
    assert output.count("started") == 1


def test_a_forked_process_gets_a_server_of_its_own():
    mine = call(os.getppid)
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writer, str(call(os.getppid)).encode())
        child._server.stop()
        os._exit(0)
    os.waitpid(pid, 0)
    theirs = int(os.read(reader, 20))
    os.close(reader)
    os.close(writer)
    assert theirs != mine
    assert call(os.getppid) == mine
