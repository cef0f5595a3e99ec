"""The parts of the pre-training: lists, clips, solver, curve, checkpoint."""

import csv
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aqa.cache.errors import AqaError
from aqa.extract.c3d import ARCHITECTURES
from aqa.extract.preprocessing import PRESETS
from aqa.extract.pretraining.checkpoint import (
    loss_curve,
    read_checkpoint,
    write_checkpoint,
)
from aqa.extract.pretraining.classifier import (
    Accuracy,
    CaffeSGD,
    Classifier,
    as_input,
    evaluate,
    initial_state,
    rate_at,
)
from aqa.extract.pretraining.clips import (
    Clips,
    count_frames,
    draw_window,
    draws,
    read_frames,
)
from aqa.extract.pretraining.train import Processes
from aqa.extract.pretraining.ucf101 import read_classes

# Lists.


def layout(root, train, test, index="1 Jump\n2 Run\n", videos=()):
    """A data set of empty videos; the lists are given, the files are theirs."""
    lists = root / "lists"
    lists.mkdir(parents=True)
    (lists / "trainlist01.txt").write_text(train)
    (lists / "testlist01.txt").write_text(test)
    (lists / "classInd.txt").write_text(index)
    for name in videos or [line.split(" ")[0] for line in (train + test).splitlines()]:
        if name:
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).touch()
    return lists / "trainlist01.txt"


GOOD = "Jump/a.avi 1\nRun/b.avi 2\n", "Jump/c.avi\nRun/d.avi\n"


def test_official_lists_are_read_as_they_are(tmp_path):
    split = layout(tmp_path, *(text.replace("\n", "\r\n") for text in GOOD))
    found = read_classes(tmp_path, split)
    assert found.classes == ("Jump", "Run")
    assert [(v.name, v.label) for v in found.train] == [
        ("Jump/a.avi", 0),
        ("Run/b.avi", 1),
    ]
    assert [(v.name, v.label) for v in found.test] == [
        ("Jump/c.avi", 0),
        ("Run/d.avi", 1),
    ]
    assert found.division == "trainlist01.txt and testlist01.txt"


@pytest.mark.parametrize(
    ("train", "test", "index", "reason"),
    [
        ("Jump/a.avi 2\n", GOOD[1], "1 Jump\n2 Run\n", "agrees with classInd.txt"),
        ("Jump/a.avi\n", GOOD[1], "1 Jump\n2 Run\n", "agrees with classInd.txt"),
        ("Swim/a.avi 1\n", GOOD[1], "1 Jump\n2 Run\n", "found 'Swim/a.avi 1'"),
        (GOOD[0], "Swim/a.avi\n", "1 Jump\n2 Run\n", "found 'Swim/a.avi'"),
        (GOOD[0], "Jump/a.avi\nRun/d.avi\n", "1 Jump\n2 Run\n", "listed twice"),
        (GOOD[0], "", "1 Jump\n2 Run\n", "to train and to test on, found none"),
        (*GOOD, "1 Jump\n3 Run\n", "expected labels 1 to 2"),
        (*GOOD, "1 Jump\n1 Run\n", "expected labels 1 to 2, found 1, 1"),
        (*GOOD, "1 Jump\n2 Jump\n", "distinct classes"),
        (*GOOD, "", "distinct classes, found 0"),
        ("Jump/../../x.avi 1\n", GOOD[1], "1 Jump\n2 Run\n", "leads out of the folder"),
        ("Jump/a\x1b.avi 1\n", GOOD[1], "1 Jump\n2 Run\n", "leads out of the folder"),
    ],
)  # fmt: skip
def test_lists_that_contradict_themselves_are_refused(
    tmp_path, train, test, index, reason
):
    split = layout(tmp_path / "set", train, test, index, videos=["Jump/a.avi"])
    with pytest.raises(AqaError, match=reason):
        read_classes(tmp_path / "set", split)


def test_a_list_of_a_terabyte_is_not_read(tmp_path):
    split = tmp_path / "trainlist01.txt"
    (tmp_path / "classInd.txt").write_text("1 A\n2 B\n")
    with split.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(AqaError, match="trainlist01.txt: 1099511627776 bytes; at most"):
        read_classes(tmp_path, split)


def test_missing_videos_are_named(tmp_path):
    split = layout(tmp_path, *GOOD, videos=["Jump/a.avi", "Run/d.avi"])
    with pytest.raises(AqaError, match="(?s)Run/b.avi is missing.*p/c.avi is missing"):
        read_classes(tmp_path, split)
    with pytest.raises(AqaError, match="expected a folder of class folders"):
        read_classes(tmp_path / "nowhere")
    with pytest.raises(AqaError, match="a list of UCF-101's"):
        read_classes(tmp_path, tmp_path / "trainlist09.txt")


def test_a_plain_folder_is_divided_by_recording_and_seed(tmp_path):
    for name in ("Jump", "Run"):
        (tmp_path / name).mkdir()
        for group in range(8):
            for clip in range(3):
                (tmp_path / name / f"v_x_g{group:02d}_c{clip:02d}.avi").touch()
    (tmp_path / "notes.txt").touch()
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".Trash-1000"):
        (tmp_path / name).mkdir()
        (tmp_path / "Jump" / name).mkdir()
        (tmp_path / name / "v_x_g00_c00.avi").touch()
    (tmp_path / "Jump" / "._v_x_g00_c00.avi").touch()
    one, same, other = (read_classes(tmp_path, seed=seed) for seed in (0, 0, 1))
    assert one == same and one.test != other.test and one.classes == ("Jump", "Run")
    assert len(one.test) == 2 * 2 * 3 and len(one.train) == 2 * 6 * 3
    groups = [{v.name[:-8] for v in side} for side in (one.train, one.test)]
    assert not groups[0] & groups[1]
    (tmp_path / "Swim").mkdir()
    with pytest.raises(AqaError, match="Swim: expected at least two recordings"):
        read_classes(tmp_path)


def test_the_official_lists_are_whole(shared_data, tmp_path):
    lists = shared_data / "ucf101_lists"
    for line in (lists / "trainlist01.txt").read_text().splitlines()[:400]:
        path = tmp_path / line.split(" ")[0]
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with pytest.raises(AqaError, match="more") as error:
        read_classes(tmp_path, lists / "trainlist01.txt")
    # 9,537 and 3,783 videos are on the lists of split 1; 400 are there.
    assert str(error.value).startswith(f"{9537 + 3783 - 400} problems")


# Clips.


def test_clips_start_a_stride_apart_and_never_run_over():
    clips = Clips([], [40, 16, 31, 32, 5], PRESETS["c3d"], stride=16)
    assert clips.videos.tolist() == [0, 0, 1, 2, 3, 3, 4]
    assert clips.starts.tolist() == [0, 16, 0, 0, 0, 16, 0]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5))
def test_every_epoch_sees_every_clip_once_whatever_the_batch(clips, batch, seed):
    seen = [d for i in range(3 * clips) for d in draws(i, batch, clips, seed)][
        : 3 * clips
    ]
    for epoch in range(3):
        part = seen[epoch * clips : (epoch + 1) * clips]
        assert sorted(clip.number for clip in part) == list(range(clips))
        assert {clip.drawn[0] for clip in part} == {epoch}


def test_windows_fall_where_caffes_do():
    drawn = [draw_window((0, i), (16, 59), True, 0) for i in range(3000)]
    assert {w.top for w in drawn} == set(range(16))
    assert {w.left for w in drawn} == set(range(59))
    assert 0.45 < np.mean([w.mirrored for w in drawn]) < 0.55
    assert not any(draw_window((0, i), (1, 1), False, 0).mirrored for i in range(50))
    assert draw_window((0, 0), (0, 0), False, 0)[:2] == (0, 0)


# The network and the solver.


def test_the_small_network_has_as_many_parameters_as_published():
    net = Classifier(ARCHITECTURES["c3d-small"], 101, 0.5)
    assert sum(value.numel() for value in net.parameters()) == 17_444_965
    names = list(net.caffe_state())
    assert names[0] == "conv1a.weight" and names[-1] == "fc8.bias"


def test_initial_values_are_those_of_the_prototxt():
    arch = ARCHITECTURES["c3d-small"]
    state = initial_state(arch, 101, 3, None)
    assert {n: float(v[0]) for n, v in state.items() if n.endswith("bias")} == {
        "conv1a.bias": 0, "conv2a.bias": 1, "conv3a.bias": 1, "conv4a.bias": 1,
        "conv5a.bias": 1, "fc6.bias": 1, "fc7.bias": 1, "fc8.bias": 0,
    }  # fmt: skip
    for name, std in (("conv3a", 0.01), ("fc6", 0.005), ("fc7", 0.005), ("fc8", 0.01)):
        assert float(state[f"{name}.weight"].std()) == pytest.approx(std, rel=0.02)
    given = initial_state(arch, 5, 3, {"fc6.bias": torch.ones(1)})
    assert set(given) == {
        "fc6.bias",
        "fc7.weight",
        "fc7.bias",
        "fc8.weight",
        "fc8.bias",
    }


def test_the_solver_is_caffes_formula():
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 2)), rng.normal(size=3)
    net = torch.nn.Linear(2, 3).double()
    net.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    solver = CaffeSGD(net.named_parameters(), 0.1, 0.9, 0.005)
    v_weight, v_bias = np.zeros((3, 2)), np.zeros(3)
    for iteration in range(6):
        rate = 0.1 if iteration < 3 else 0.01
        assert rate_at(iteration, 0.1, 3, 0.1) == pytest.approx(rate)
        for group in solver.param_groups:
            group["lr"] = rate
        g_weight, g_bias = rng.normal(size=(3, 2)), rng.normal(size=3)
        net.weight.grad, net.bias.grad = torch.tensor(g_weight), torch.tensor(g_bias)
        solver.step()
        # By hand: the rate inside the velocity, twice for a bias, which never decays.
        v_weight = 0.9 * v_weight + rate * (g_weight + 0.005 * weight)
        v_bias = 0.9 * v_bias + 2 * rate * g_bias
        weight, bias = weight - v_weight, bias - v_bias
        np.testing.assert_allclose(net.weight.detach(), weight, rtol=1e-12)
        np.testing.assert_allclose(net.bias.detach(), bias, rtol=1e-12)


def test_the_paper_s_rate_is_divided_by_ten_every_40000():
    rates = [rate_at(i, 0.001, 40_000, 0.1) for i in (0, 39_999, 40_000, 99_999)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])


# Judging.


class Fixed(torch.nn.Module):
    """Scores that were decided beforehand, whatever the clips."""

    def __init__(self, scores):
        super().__init__()
        self.fc8 = torch.nn.Linear(1, scores.shape[1])
        self.scores = list(scores.split(2))

    def forward(self, clips):
        return self.scores.pop(0)


def test_a_video_is_judged_by_its_clips_together():
    # Two videos, two clips each: one clip of the second is wrong, but less sure.
    scores = torch.tensor([[3.0, 0], [2, 0], [1, 0], [0, 4]])
    clips = np.zeros((2, 16, 112, 112, 3), np.uint8)
    batches = [(clips, np.array([0, 0])), (clips, np.array([1, 1]))]
    plain = torch.autocast("cpu", enabled=False)
    found = evaluate(
        Fixed(scores), batches, torch.tensor([0, 1]), PRESETS["c3d"], plain
    )
    assert found == Accuracy(clip=0.75, video=1.0)


def test_clips_reach_the_network_as_at_extraction():
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 112, 112, 3), np.uint8)
    values = as_input(torch.from_numpy(frames), PRESETS["c3d"])
    expected = frames[..., ::-1] - np.array([90.25, 97.66, 101.41])
    np.testing.assert_allclose(values, expected.transpose(0, 4, 1, 2, 3), atol=1e-4)


# Real footage.


@pytest.mark.parametrize(
    "name", ["v_ApplyEyeMakeup_g01_c01", "v_BaseballPitch_g01_c01"]
)
def test_real_clips_of_ucf101_are_read(shared_data, name):
    path, pre = shared_data / "videos" / f"{name}.avi", PRESETS["c3d"]
    count = count_frames(path, allow_damaged=False)
    assert count > 90
    frames = read_frames(path, pre, 16, 16)
    assert frames.shape == (16, 128, 171, 3)
    assert (
        frames[:, 8:120, 29:141]
        == read_frames(path, pre, 0, count)[16:32, 8:120, 29:141]
    ).all()
    assert len(read_frames(path, pre, count - 4, 16)) == 4


# Written things.


def read(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_a_curve_that_was_stopped_reads_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    whole, stopped = tmp_path / "whole.csv", tmp_path / "stopped.csv"
    for path, parts in ((whole, [(0, 6)]), (stopped, [(0, 5), (3, 6)])):
        for begin, end in parts:
            with loss_curve(path.with_suffix(""), begin) as add:
                for i in range(begin + 1, end + 1):
                    add(i, 0.1, 1 / i, Accuracy(0.5, 0.25) if i % 3 == 0 else None)
    assert whole.read_bytes() == stopped.read_bytes()
    rows = read(whole)
    assert rows[0][0] == "iteration" and rows[3] == [
        "3",
        "0.1",
        "0.33333333",
        "0.5",
        "0.25",
    ]


def test_a_curve_that_cannot_be_taken_up_keeps_its_rows(tmp_path, monkeypatch):
    path = tmp_path / "c.csv"
    with loss_curve(tmp_path / "c", 0) as add:
        add(1, 0.1, 2.0, None)
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt), loss_curve(tmp_path / "c", 1):
        pass
    assert path.read_bytes() == before


def test_tensorboard_is_written_where_there_is_one(tmp_path, monkeypatch):
    told = []
    writer = SimpleNamespace(
        add_scalar=lambda *row: told.append(row), close=lambda: told.append("closed")
    )
    module = SimpleNamespace(SummaryWriter=lambda folder, purge_step: writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    with loss_curve(tmp_path / "c", 0) as add:
        add(1, 0.1, 2.0, Accuracy(0.5, 0.25))
    assert ("loss", 2.0, 1) in told and ("video accuracy", 0.25, 1) in told
    assert told[-1] == "closed"


def checkpoint(**asked):
    state = {"conv1a.bias": torch.arange(3.0)}
    return {"aqa": "{}", "iteration": 3, "asked": asked, "state_dict": state,
            "velocity": {"conv1a.bias": torch.ones(3)}, "scaler": {}}  # fmt: skip


def test_a_checkpoint_of_another_run_or_of_no_run_is_refused(tmp_path):
    path = tmp_path / "x.checkpoint"
    assert read_checkpoint(path, {}) is None
    write_checkpoint(path, checkpoint(seed=0, batch=30))
    found = read_checkpoint(path, {"seed": 0, "batch": 30})
    assert found["iteration"] == 3
    assert found["state_dict"]["conv1a.bias"].tolist() == [0, 1, 2]
    with pytest.raises(
        AqaError, match=r"another run \(batch was 30, is 10; new was None"
    ):
        read_checkpoint(path, {"seed": 0, "batch": 10, "new": 1})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(AqaError, match="not a checkpoint of ours"):
        read_checkpoint(path, {})
    assert [p.name for p in tmp_path.iterdir()] == ["x.checkpoint"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory so")
def test_a_small_checkpoint_gets_no_gigabyte(tmp_path):
    path = tmp_path / "x.checkpoint"
    # A pickle of protocol 2: bytearray(2**34).
    asks = b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x04\x85R."
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", asks)
        file.writestr("x/version", "3")
    with pytest.raises(AqaError, match="needs more than 256 MiB of memory"):
        read_checkpoint(path, {})


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    path = tmp_path / "x.checkpoint"
    for name in (f".x.checkpoint.{'0' * 16}.tmp", f".y.checkpoint.{'0' * 16}.tmp"):
        (tmp_path / name).touch()
    write_checkpoint(path, checkpoint())
    assert {p.name for p in tmp_path.iterdir()} == {
        "x.checkpoint",
        f".y.checkpoint.{'0' * 16}.tmp",
    }


def test_a_batch_is_shared_out_equally():
    shares = [Processes(rank, 3, torch.device("cpu")).share(6) for rank in range(3)]
    assert [list(range(6))[share] for share in shares] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(AqaError, match="a multiple of the 4 processes, found 6"):
        Processes(0, 4, torch.device("cpu")).share(6)
