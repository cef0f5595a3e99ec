"""Decoding in workers: order, limits, crashes, hangs, and nobody left behind."""

import importlib
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from aqa.cache.processes import AHEAD
from aqa.extract.config import ClipConfig, Limits
from aqa.extract.datasets.dataset import Video
from aqa.extract.preprocessing import PRESETS
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.video import Decoded, decode, decode_all

PRE = PRESETS["c3d"]
CONFIG = ClipConfig()

#: A module that workers can import, as they cannot import this file.
FAULTY = '''
import ctypes, os, signal, time
import numpy as np, torch
from aqa.extract.videos.video import (Decoded)

def decoder(path, pre, **options):
    """Do what the name of the file says."""
    what = path.stem.split("-")[-1]
    if what == "segv":
        ctypes.string_at(0)
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit":
        os._exit(7)
    elif what == "hang":
        time.sleep(600)
    elif what == "spin":
        while True:
            pass
    elif what == "numpy":
        np.ones(1 << 30, np.uint8)
    elif what == "torch":
        torch.ones(1 << 30, dtype=torch.uint8)
    elif what == "defect":
        raise KeyError("a hole in our checks")
    elif what == "pid":
        path.with_suffix(f".{os.getpid()}").mkdir()  # as it may write no file
        time.sleep(600)
    frames = np.full((3, pre.crop, pre.crop, 3), int(path.stem[:2]), np.uint8)
    assert torch.get_num_threads() == 1
    return Decoded(frames, 3, (), str(os.getpid()))
'''


def video(path):
    return Video(path.stem, path, "", "", math.nan)


def videos(*names):
    return [video(Path("x") / f"{name}.avi") for name in names]


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    (tmp_path / "aqa_faulty.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("aqa_faulty").decoder
    del sys.modules["aqa_faulty"]


def test_workers_give_what_one_process_gives(shared_data):
    paths = sorted((shared_data / "videos").glob("*.avi"))
    found = list(
        decode_all(
            [video(path) for path in paths] * 3,
            PRE,
            CONFIG,
            workers=2,
        )
    )
    assert [source.path for source, _ in found] == paths * 3
    for source, decoded in found:
        expected = decode(source.path, PRE, config=CONFIG)
        assert isinstance(decoded, Decoded)
        np.testing.assert_array_equal(decoded.frames, expected.frames)
        assert decoded.frames.flags.writeable
        assert repr(replace(decoded, frames=expected.frames)) == repr(expected)


def test_each_failure_costs_its_own_video_only(faulty):
    names = (
        "00-fine 01-segv 02-fine 03-kill 04-fine 05-exit 06-numpy 07-torch 08-defect "
        "09-hang 10-fine 11-spin 12-fine"
    ).split()
    limits = Limits(seconds=2, memory=1 << 28)
    found = {
        source.key: decoded
        for source, decoded in decode_all(
            videos(*names), PRE, CONFIG, workers=2, limits=limits, decoder=faulty
        )
    }
    assert list(found) == names
    expected = {
        "01-segv": "its process crashed (SIGSEGV)",
        "03-kill": "its process crashed (SIGKILL)",
        "05-exit": "its process crashed (exit code 7)",
        "06-numpy": "needs more than 256 MiB of memory",
        "07-torch": "needs more than 256 MiB of memory",
        "08-defect": "KeyError: 'a hole in our checks'",
        "09-hang": "takes longer than 2 s",
        "11-spin": "takes longer than 2 s",
    }
    for name, decoded in found.items():
        if name in expected:
            assert isinstance(decoded, VideoError)
            assert str(decoded) == f"x/{name}.avi: {expected[name]}"
        else:
            assert isinstance(decoded, Decoded)
            assert (decoded.frames == int(name[:2])).all()


def test_a_long_video_takes_no_more_memory_than_a_short_one(tmp_path):
    path = tmp_path / "long.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        picture = av.VideoFrame(160, 120, "yuv420p")
        for index in range(10_000):
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    limits = Limits(memory=1 << 26)  # the frames alone would take 576 MB
    (result,) = decode_all([video(path)], PRE, CONFIG, workers=1, limits=limits)
    assert isinstance(result[1], Decoded)
    assert result[1].total == 10_000 and len(result[1].frames) == 103


def test_decoding_runs_ahead_but_not_away(faulty):
    taken = []

    def numbered():
        for number in range(20):
            taken.append(number)
            yield from videos(f"{number:02d}-fine")

    results = decode_all(numbered(), PRE, CONFIG, workers=1, decoder=faulty)
    for number, (source, decoded) in enumerate(results):
        assert source.key == f"{number:02d}-fine" and isinstance(decoded, Decoded)
        assert len(taken) <= number + 1 + AHEAD


def test_an_idle_worker_killed_from_outside_costs_no_video(faulty):
    names = [f"{number:02d}-fine" for number in range(8)]
    results = decode_all(videos(*names), PRE, CONFIG, workers=1, decoder=faulty)
    found = [next(results)]
    time.sleep(0.3)  # by now all slots are filled, and the worker waits
    os.kill(int(found[0][1].source_sha256), signal.SIGKILL)
    found += results
    assert [source.key for source, _ in found] == names
    assert all(isinstance(decoded, Decoded) for _, decoded in found)
    assert len({decoded.source_sha256 for _, decoded in found}) == 2


def test_frames_may_take_no_more_than_the_memory_of_a_video(faulty):
    limits = Limits(memory=1 << 16)
    (found,) = decode_all(videos("00-fine"), PRE, CONFIG, limits=limits, decoder=faulty)
    assert "00-fine.avi: " in str(found[1]) and isinstance(found[1], VideoError)


CALLER = """
import math, sys
from pathlib import Path
from aqa.extract.config import (ClipConfig)
from aqa.extract.videos.video import (decode_all)
from aqa.extract.preprocessing import (PRESETS)
from aqa.extract.datasets.dataset import (Video)

# No main guard: none is needed.
sys.path.insert(0, sys.argv[1])
from aqa_faulty import decoder

video = Video("a", Path(sys.argv[1]) / "00-pid.avi", "", "", math.nan)
list(decode_all([video], PRESETS["c3d"], ClipConfig(), workers=1, decoder=decoder))
"""


def test_closing_the_iterator_ends_the_workers(faulty):
    results = decode_all(
        videos("00-fine", "01-hang"), PRE, CONFIG, workers=1, decoder=faulty
    )
    worker = int(next(results)[1].source_sha256)
    assert alive(worker)
    results.close()
    assert not alive(worker)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_workers_end_with_their_caller(faulty, tmp_path, number):
    (tmp_path / "caller.py").write_text(CALLER)
    command = [sys.executable, tmp_path / "caller.py", tmp_path]
    caller = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_until(lambda: list(tmp_path.glob("00-pid.*")))
    (report,) = tmp_path.glob("00-pid.*")
    worker = int(report.suffix[1:])
    assert alive(worker)
    caller.send_signal(number)
    caller.wait(timeout=20)
    wait_until(lambda: not alive(worker))


def alive(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().split()[2]
    except OSError:
        return False


def wait_until(true, seconds=30):
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds
        time.sleep(0.02)
