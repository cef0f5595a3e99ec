"""A pre-training run: resumed, divided between processes, and learning."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from aqa.cache.errors import AqaError
from aqa.cli import main
from aqa.extract.c3d import ARCHITECTURES, Architecture
from aqa.extract.config import Limits, PretrainConfig
from aqa.extract.preprocessing import PRESETS, Preprocessing, resize_crop
from aqa.extract.pretraining.checkpoint import signals_deferred
from aqa.extract.pretraining.clips import Clip, Clips, draw_window
from aqa.extract.pretraining.train import Pretrained, pretrain
from aqa.extract.weights.load import load_weights

#: A network and a preset small enough for dozens of iterations a second.
MICRO = Architecture("micro", ((4,), (8,), (8,), (8,), (8,)), 16, crop=16)
PRESET = Preprocessing(
    width=24, height=20, top=2, left=4, crop=16,
    mean=(0.1, 0.1, 0.1), std=(0.25, 0.25, 0.25), scale=1 / 255,
)  # fmt: skip
SETTINGS = {
    "arch": "micro",
    "init": "random:1",
    "preprocessing": "micro",
    "iterations": 7,
    "batch": 4,
    "learning_rate": 0.01,
    "evaluate_every": 3,
    "checkpoint_every": 2,
    "workers": 0,
}


@pytest.fixture
def micro(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "micro", MICRO)
    monkeypatch.setitem(PRESETS, "micro", PRESET)


def write_video(path, frames):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        (stream.height, stream.width), stream.pix_fmt = frames[0].shape[:2], "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            file.mux(stream.encode(picture))
        file.mux(stream.encode())


@pytest.fixture(scope="session")
def moving(tmp_path_factory):
    """Two classes: a bright bar goes down, or across, from anywhere, in any colour."""
    root = tmp_path_factory.mktemp("moving")
    rng = np.random.default_rng(0)
    for name in ("Across", "Down"):
        (root / name).mkdir()
        for index in range(12):
            colour, begin = rng.integers(120, 256, 3), rng.integers(0, 30)
            frames = np.zeros((20, 32, 48, 3), np.uint8)
            for t, frame in enumerate(frames):
                at = (begin + 2 * t) % (48 if name == "Across" else 32)
                bar = np.s_[:, at : at + 6] if name == "Across" else np.s_[at : at + 6]
                frame[bar] = colour
            write_video(root / name / f"{index}.avi", frames)
    return root


def config(moving, out, **more):
    return PretrainConfig(moving, out, **(SETTINGS | more))


def decoded(path):
    with av.open(str(path)) as file:
        return np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])


def test_test_clips_are_what_extraction_would_see(moving):
    paths = sorted((moving / "Down").iterdir())[:3]
    clips = Clips(paths, [20, 20, 20], PRESET, stride=3)  # starts 0 and 3
    frames, videos = clips[[Clip(number) for number in range(1, 6)]]
    assert videos.tolist() == [0, 1, 1, 2, 2]
    for clip, video, start in zip(frames, videos, [3, 0, 3, 0, 3], strict=True):
        whole = resize_crop(decoded(paths[video]), PRESET)
        assert (clip == whole[start : start + 16]).all()


@pytest.mark.parametrize("memory", [0, 40_000, 1 << 20])
def test_training_clips_are_crops_of_the_frames_and_their_mirrors(moving, memory):
    paths = sorted((moving / "Down").iterdir())[:3]
    clips = Clips(
        paths, [20, 20, 20], PRESET, stride=16, mirror=True, seed=4, memory=memory
    )
    asked = [Clip(place % 3, (0, place)) for place in range(24)]
    frames, videos = clips[asked]
    assert videos.tolist() == [0, 1, 2] * 8
    seen = set()
    for (video, place), clip in zip(asked, frames, strict=True):
        drawn = draw_window(place, (4, 8), True, 4)
        seen.add(drawn.mirrored)
        crop = replace(PRESET, top=drawn.top, left=drawn.left)
        whole = resize_crop(decoded(paths[video])[:16], crop)
        assert (clip == (whole[:, :, ::-1] if drawn.mirrored else whole)).all()
    assert seen == {True, False}
    assert clips.used <= memory


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_short_run_learns_and_tells_how_well(moving, tmp_path, micro):
    told = []
    asked = config(moving, tmp_path / "w.safetensors", iterations=45, batch=8,
                   learning_rate=0.03, dropout=0.1, evaluate_every=15)  # fmt: skip
    run = pretrain(asked, lambda *row: told.append(row))
    assert run.classes == ("Across", "Down") and run.path == asked.out
    assert run.clip_accuracy >= 0.8 and run.video_accuracy >= 0.8
    assert told[-1][:2] == (45, 45) and "training, loss" in told[-1][2]

    weights = load_weights(run.path)
    assert (weights.arch, weights.pool5) == ("micro", "ceil")
    assert weights.preprocessing == PRESET
    assert weights.notes["clip_accuracy"] == run.clip_accuracy
    assert weights.notes["recipe"]["init"].startswith("random:1 ")
    assert json.dumps(dict(weights.notes["recipe"]))
    course = rows(tmp_path / "w.safetensors.csv")
    assert [int(row["iteration"]) for row in course] == list(range(1, 46))
    assert float(course[-1]["clip_accuracy"]) == run.clip_accuracy
    assert not course[0]["clip_accuracy"] and course[14]["clip_accuracy"]

    # And one may go on from it.
    more = config(moving, tmp_path / "more.safetensors", iterations=1,
                  init=str(run.path), preprocessing=None)  # fmt: skip
    pretrain(more)
    assert load_weights(more.out).notes["recipe"]["init"].endswith(weights.sha256)


class Stop(Exception):
    pass


def stop_after(iteration):
    def progress(done, total, label):
        if label.startswith("training") and done == iteration:
            raise Stop

    return progress


@pytest.mark.parametrize("stops", [(3,), (1, 2, 5, 6)])
def test_stopped_and_resumed_is_not_stopped(moving, tmp_path, micro, stops):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain(config(moving, whole))
    for stop in stops:
        with pytest.raises(Stop):
            pretrain(config(moving, parts), stop_after(stop))
    pretrain(config(moving, parts))
    for suffix in ("", ".csv"):
        one, other = (path.with_name(path.name + suffix) for path in (whole, parts))
        assert one.read_bytes() == other.read_bytes()
    again = pretrain(config(moving, parts))  # finished: nothing is left to do
    assert parts.read_bytes() == whole.read_bytes()
    assert again.clip_accuracy == load_weights(parts).notes["clip_accuracy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_loses_no_iteration(moving, tmp_path, micro, number):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain(config(moving, whole))

    def interrupt(done, total, label):
        if label.startswith("training") and done == 2:
            signal.raise_signal(number)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    asked = config(moving, parts, checkpoint_every=1000)
    with pytest.raises(KeyboardInterrupt):
        pretrain(asked, interrupt)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == (
        handlers
    )
    # The step that was under way when the signal came was finished, and saved.
    with pytest.raises(AqaError, match="has done 3 already"):
        pretrain(replace(asked, iterations=1))
    pretrain(asked)
    assert whole.read_bytes() == parts.read_bytes()


def test_a_second_signal_is_not_held_back():
    with pytest.raises(KeyboardInterrupt), signals_deferred() as came:
        signal.raise_signal(signal.SIGINT)
        assert came.is_set()
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("interrupted before")


def test_it_is_also_saved_by_the_clock(moving, tmp_path, micro):
    asked = config(moving, tmp_path / "w", checkpoint_every=1000)
    with pytest.raises(Stop):
        pretrain(asked, stop_after(3))
    assert not (tmp_path / "w.checkpoint").exists()
    with pytest.raises(Stop):
        pretrain(replace(asked, checkpoint_seconds=0), stop_after(3))
    with pytest.raises(AqaError, match="has done 3 already"):
        pretrain(replace(asked, iterations=1))


@pytest.mark.parametrize(
    ("limits", "frames", "reason"),
    [
        # Longer than the tenth of a second between two looks at the clock.
        (Limits(seconds=1e-3), (19_000, 96, 128), "takes longer than 0.001 s"),
        (Limits(memory=1 << 22), (4, 720, 1280), "needs more memory|allocate memory"),
    ],
)
def test_a_video_that_costs_too_much_is_named(tmp_path, micro, limits, frames, reason):
    write_video(tmp_path / "a.avi", [np.zeros((*frames[1:], 3), np.uint8)] * frames[0])
    for name in ("Across/0", "Across/1", "Down/0", "Down/1"):
        path = tmp_path / "set" / f"{name}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((tmp_path / "a.avi").read_bytes())
    asked = config(tmp_path / "set", tmp_path / "w", limits=limits)
    with pytest.raises(AqaError, match=rf"Across/0\.avi: .*({reason})"):
        pretrain(asked)


def test_the_command_passes_on_and_only_rank_0_prints(tmp_path, monkeypatch):
    asked = []

    def stub(config, progress):
        asked.append(config)
        return Pretrained(config.out, 0.5, 0.75, ("a", "b"), config.iterations, 1.0)

    monkeypatch.setattr("aqa.extract.pretraining.train.pretrain", stub)
    command = ["pretrain", "--videos", "x", "--out", "y", "--checkpoint-every", "7"]
    ran = CliRunner().invoke(main, [*command, "--json"])
    assert json.loads(ran.stdout)["clip_accuracy"] == 0.5
    assert asked[0].checkpoint_every == 7
    monkeypatch.setenv("RANK", "1")
    ran = CliRunner().invoke(main, [*command, "--json"])
    assert (ran.exit_code, ran.stdout) == (0, "")


def test_the_tiny_network_resumes_bit_for_bit(moving, tmp_path):
    """The same with the network and the preset that are shipped."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    asked = replace(
        config(moving, whole, iterations=3, batch=2, checkpoint_every=1, init=None),
        **{"arch": "c3d-tiny", "preprocessing": None, "evaluate_every": 100},
        held_out=0.1,
    )
    pretrain(asked)
    with pytest.raises(Stop):
        pretrain(replace(asked, out=parts), stop_after(1))
    pretrain(replace(asked, out=parts))
    assert whole.read_bytes() == parts.read_bytes()

    # The checkpoint is a weights file, too, with FC-7 and FC-8 left aside.
    weights, checkpoint = (
        load_weights(whole),
        load_weights(tmp_path / "whole.checkpoint"),
    )
    assert checkpoint.preprocessing == weights.preprocessing == PRESETS["c3d"]
    assert torch.equal(checkpoint.state["fc6.weight"], weights.state["fc6.weight"])
    assert checkpoint.left_aside == ("fc7.weight", "fc7.bias", "fc8.weight", "fc8.bias")


def test_decoding_processes_and_memory_change_nothing(moving, tmp_path, micro):
    results = set()
    for workers, memory in ((0, 0), (0, 1024), (2, 1024)):
        out = tmp_path / f"{workers}-{memory}"
        pretrain(config(moving, out, workers=workers, memory=memory, iterations=3))
        results.add(out.read_bytes())
    assert len(results) == 1


def test_a_checkpoint_of_other_settings_is_refused(moving, tmp_path, micro):
    pretrain(config(moving, tmp_path / "w", iterations=2))
    with pytest.raises(AqaError, match="another run .learning_rate was 0.01, is 0.02"):
        pretrain(config(moving, tmp_path / "w", learning_rate=0.02))
    pretrain(config(moving, tmp_path / "w", iterations=3))  # going on is the same run
    with pytest.raises(AqaError, match="has done 3 already, 1 were asked for"):
        pretrain(config(moving, tmp_path / "w", iterations=1))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"arch": "c3d"}, "arch: expected one of"),
        ({"iterations": 0}, "iterations: expected at least 1"),
        ({"dropout": 1.0}, "dropout: expected 0 up to 1"),
        ({"precision": "fp16"}, "precision: expected"),
        ({"preprocessing": "vgg"}, "preprocessing: expected one of"),
        ({"preprocessing": "vgg", "init": None}, "preprocessing: expected one of"),
        ({"learning_rate": 1e9}, "diverged; start again with a smaller"),
        ({"learning_rate": -1.0}, "learning_rate: expected a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected .* found nan"),
        ({"momentum": float("nan")}, "momentum: expected 0 up to 1"),
        ({"weight_decay": -0.1}, "weight_decay: expected at least 0"),
        ({"gamma": float("inf")}, "gamma: expected a number above 0"),
        ({"seed": -1}, "seed: expected at least 0"),
        ({"memory": -1}, "memory: expected at least 0"),
        ({"held_out": 0.0}, "held_out: expected a part"),
    ],
)
def test_what_no_training_can_go_by_is_refused(moving, tmp_path, micro, more, reason):
    with pytest.raises(AqaError, match=reason):
        pretrain(config(moving, tmp_path / "w", **more))
    assert not (tmp_path / "w").exists()


def test_damaged_videos_are_named_or_allowed(moving, tmp_path, micro):
    for source in moving.rglob("*.avi"):
        target = tmp_path / "set" / source.relative_to(moving)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    (tmp_path / "set/Down/3.avi").write_bytes(b"no video at all")
    cut = tmp_path / "set/Across/5.avi"
    cut.write_bytes(cut.read_bytes()[:-700])
    asked = config(tmp_path / "set", tmp_path / "w", iterations=1)
    with pytest.raises(
        AqaError, match="(?s)Down/3.avi: expected.*Across/5.avi: expected a"
    ):
        pretrain(asked)
    with pytest.raises(AqaError, match="Down/3.avi") as error:
        pretrain(replace(asked, allow_damaged=True))
    assert "Across" not in str(error.value)
    (tmp_path / "set/Down/3.avi").unlink()
    pretrain(replace(asked, allow_damaged=True))


SCRIPT = """
import json, sys
from pathlib import Path
from aqa.extract.c3d import (ARCHITECTURES, Architecture)
from aqa.extract.preprocessing import (PRESETS, Preprocessing)
from aqa.extract.pretraining.train import (pretrain)
from aqa.extract.config import (PretrainConfig)

videos, out, settings = sys.argv[1:]
ARCHITECTURES["micro"] = Architecture("micro", ((4,), (8,), (8,), (8,), (8,)), 16, 16)
PRESETS["micro"] = Preprocessing(
    width=24, height=20, top=2, left=4, crop=16,
    mean=(0.1, 0.1, 0.1), std=(0.25, 0.25, 0.25), scale=1 / 255,
)
run = pretrain(PretrainConfig(Path(videos), Path(out), **json.loads(settings)))
print(json.dumps([run.clip_accuracy, run.video_accuracy]))
"""


@pytest.mark.slow
def test_two_processes_do_what_one_does(moving, tmp_path, micro):
    """As torchrun starts them: gradients averaged, one file, the same numbers."""
    settings = SETTINGS | {"dropout": 0.0}
    alone = tmp_path / "alone"
    one = pretrain(PretrainConfig(moving, alone, **settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = tmp_path / "shared"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, moving, shared, json.dumps(settings)],
            env=os.environ | {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2",
                              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stdout=subprocess.PIPE, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    told = [process.communicate(timeout=100)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert all(
        json.loads(text) == [one.clip_accuracy, one.video_accuracy] for text in told
    )
    mine, theirs = load_weights(alone).state, load_weights(shared).state
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-4, atol=1e-6)
    one_course, other = rows(tmp_path / "alone.csv"), rows(tmp_path / "shared.csv")
    np.testing.assert_allclose(
        [float(row["loss"]) for row in one_course],
        [float(row["loss"]) for row in other],
        rtol=1e-4,
    )
