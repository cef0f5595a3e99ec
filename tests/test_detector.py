"""Poses of a data set: files, resuming and failures, with a stand-in for the model.

`tests/test_pose_detection.py` runs the same with real ONNX models.
"""

import http.server
import io
import json
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import encode

from aqa.cache.errors import AqaError, ProvenanceMismatch
from aqa.extract.config import DetectorConfig, Limits, PoseConfig
from aqa.extract.datasets import read_dataset
from aqa.extract.poses import detect
from aqa.extract.poses.conventions import read_pose_file
from aqa.extract.poses.detect import detect_in_video, detect_poses, model_file
from aqa.extract.poses.read import PoseError, find_poses
from aqa.extract.poses.tracks import read_poses
from aqa.extract.videos.integrity import VideoError


def read_people(path):
    return read_pose_file(path, PoseConfig()).people


CONFIG = DetectorConfig(Path("model.onnx"))
HEIGHT, WIDTH = 48, 64


def write_video(path, frames=8):
    """A white square that goes right by two pixels a frame, without loss."""
    pictures = np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8)
    for number, picture in enumerate(pictures):
        picture[20:23, 9 + 2 * number : 12 + 2 * number] = 255
    return encode(path, pictures)


class Stub:
    """Finds one person about what is white, nobody in the third frame."""

    def __init__(self, config):
        self.frames = 0

    def __call__(self, frame):
        assert frame.shape == (HEIGHT, WIDTH, 3) and frame.dtype == np.uint8
        self.frames += 1
        if self.frames == 3:
            return []
        y, x = np.argwhere(frame[..., 0] > 128).mean(axis=0)
        return [np.column_stack([x + np.arange(17) / 8, [y] * 17, [0.9] * 17])]


@pytest.fixture
def videos(tmp_path, monkeypatch):
    """A folder of two videos, and the detector with the stand-in, in this process."""

    def in_here(function, items, *, prepare, arguments, **_):
        for item in items:
            prepare(*arguments)
            try:
                yield function(item)
            except AqaError as error:
                yield error

    monkeypatch.setattr(detect, "PoseModel", Stub)
    monkeypatch.setattr(
        detect, "pose_model_record", lambda config: {"model": str(config.model)}
    )
    monkeypatch.setattr(detect, "process_outcomes", in_here)
    monkeypatch.setattr(detect, "limit_memory", lambda memory: None)
    write_video(tmp_path / "videos" / "a.avi")
    write_video(tmp_path / "videos" / "deep" / "b.avi", frames=5)
    return tmp_path / "videos"


def run(videos, config=CONFIG):
    return detect_poses(read_dataset(videos), videos.parent / "poses", config)


def test_files_hold_what_was_found_and_are_read_back(videos):
    result = run(videos)
    assert (result.done, result.skipped, result.failures) == (2, 0, ())
    people = read_people(result.folder / "a.avi.json")
    assert people.shape == (8, 1, 17, 3)
    x = 10 + 2 * np.arange(8)[:, None] + np.arange(17) / 8
    x[2] = np.nan
    np.testing.assert_allclose(people[:, 0, :, 0], x.round(2), atol=1e-9)
    poses = read_poses(find_poses(result.folder, "a.avi"), "", PoseConfig())
    assert poses.notes == "interpolated 17 of 136 joints, in 1 of 8 frames all"
    assert len(read_people(result.folder / "deep" / "b.avi.json")) == 5


def test_file_says_what_it_was_made_of(videos):
    record = json.loads((run(videos).folder / "a.avi.json").read_text())
    assert record["info"]["made_with"] == {"model": "model.onnx"}
    assert len(record["info"]["source_sha256"]) == 64
    assert record["images"][7] == {"id": 7, "width": WIDTH, "height": HEIGHT}


def test_next_run_does_what_is_left(videos):
    before = (run(videos).folder / "a.avi.json").read_bytes()
    write_video(videos / "c.avi")
    again = run(videos)
    assert (again.done, again.skipped) == (1, 2)
    assert (again.folder / "a.avi.json").read_bytes() == before
    assert not list(again.folder.rglob("*.tmp"))
    assert json.loads(json.dumps(again.record()))["skipped"] == 2


def test_a_replaced_video_is_looked_at_again(videos):
    run(videos)
    time.sleep(0.02)  # the file system's clock is a coarse one
    write_video(videos / "a.avi", frames=7)
    (videos / "deep" / "b.avi").touch()  # touched, and the same
    again = run(videos)
    assert (again.done, again.skipped) == (1, 1)
    assert len(read_people(again.folder / "a.avi.json")) == 7
    assert run(videos).done == 0


def test_failures_are_listed_until_they_are_none(videos):
    sound = (videos / "a.avi").read_bytes()
    (videos / "a.avi").write_bytes(b"nothing to see")
    listed = run(videos).folder.with_name("failures.json")
    (failure,) = json.loads(listed.read_text())
    assert failure["key"] == "a.avi" and failure["path"].endswith("a.avi")
    (videos / "a.avi").write_bytes(sound)
    assert run(videos).failures == () and not listed.exists()


def test_damaged_videos_are_named_and_the_others_go_on(videos):
    whole = write_video(videos / "a.avi", frames=20).read_bytes()
    (videos / "a.avi").write_bytes(whole[: len(whole) * 4 // 5])
    result = run(videos)
    assert result.done == 1
    (failure,) = result.failures
    assert failure.key == "a.avi" and "expected a whole video" in failure.reason
    assert not (result.folder / "a.avi.json").exists()
    lenient = run(videos, replace(CONFIG, allow_damaged=True))
    assert (lenient.done, lenient.skipped) == (1, 1)
    record = json.loads((result.folder / "a.avi.json").read_text())
    assert record["info"]["damage"]


def test_too_many_frames_are_a_failure(videos):
    result = run(videos, replace(CONFIG, limits=Limits(frames=6)))
    (failure,) = result.failures
    assert failure.key == "a.avi" and "at most 6 frames" in failure.reason


def test_the_process_that_looks_takes_so_much_memory_and_no_more(monkeypatch):
    limited = []
    monkeypatch.setattr(detect, "PoseModel", Stub)
    monkeypatch.setattr(detect, "limit_memory", limited.append)
    detect._prepare(CONFIG, {})
    assert limited == [CONFIG.limits.memory]


def test_poses_of_other_models_are_not_mixed(videos):
    run(videos)
    with pytest.raises(ProvenanceMismatch, match="other.onnx"):
        run(videos, DetectorConfig(Path("other.onnx")))


@pytest.mark.parametrize("text", ["[]", "{}", '{"info": 3}', "half a fi"])
def test_files_of_other_tools_are_not_taken_for_ones_own(videos, text):
    poses = videos.parent / "poses"
    poses.mkdir()
    (poses / "a.avi.json").write_text(text)
    with pytest.raises(PoseError, match=r"a\.avi\.json"):
        run(videos)
    assert (poses / "a.avi.json").read_text() == text


def test_no_video_is_an_error_of_the_video(tmp_path):
    (tmp_path / "a.avi").write_bytes(b"nothing to see")
    with pytest.raises(VideoError, match=r"a\.avi"):
        detect_in_video(tmp_path / "a.avi", Stub(CONFIG), CONFIG)


class Server(http.server.BaseHTTPRequestHandler):
    """Answers with `content` and counts requests; says nothing."""

    content, asked = b"", list[str]()

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server at the address of the models, and an empty cache folder."""
    monkeypatch.setattr(Server, "asked", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setattr(detect, "ADDRESS", address)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield Server
        running.shutdown()


def zipped(**files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def test_named_model_is_downloaded_once_and_kept(server, monkeypatch, tmp_path):
    files = {"x/end2end.onnx": b"the model", "x/detail.json": b"{}"}
    monkeypatch.setattr(server, "content", zipped(**files))
    told = []
    for _ in range(2):
        path = model_file("rtmo-s", lambda *line: told.append(line))
        assert path == tmp_path / "cache" / "aqa" / "models" / "rtmo-s.onnx"
        assert path.read_bytes() == b"the model"
    assert server.asked == [f"/{detect.ARCHIVES['rtmo-s']}"]
    size = len(server.content)
    assert told == [(size, size, f"downloading {detect.ADDRESS}{server.asked[0]}")]


def test_path_of_a_model_stays_and_no_address_is_asked(server, tmp_path):
    assert model_file(tmp_path / "own.onnx") == tmp_path / "own.onnx"
    assert server.asked == []


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>moved", zipped(a=b"1"), zipped(**{"a.onnx": b"", "b.onnx": b""})],
)
def test_what_is_no_zip_of_one_model_is_refused(server, monkeypatch, tmp_path, content):
    monkeypatch.setattr(server, "content", content)
    with pytest.raises(PoseError, match="http://127.*expected a zip of one .onnx file"):
        model_file("rtmo-l")
    assert not list(tmp_path.rglob("*.onnx*"))


def test_server_that_is_not_there_is_one_error(monkeypatch, tmp_path):
    monkeypatch.setattr(detect, "ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(PoseError, match="pass the path of the .onnx file"):
        model_file("rtmpose-m")
