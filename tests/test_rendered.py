"""The weights called `tiny`: what they are, how they were made, what they can do."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from action_clips import ClipTask, make_clip
from tiny_weights import Recipe, initial_weights, settings, train

import aqa.extract
from aqa.extract.c3d import ARCHITECTURES, build
from aqa.extract.pretraining.classifier import as_input
from aqa.extract.pretraining.clips import read_frames
from aqa.extract.weights.load import load_weights

DATA = Path(aqa.extract.__file__).parent / "data"


def test_training_begins_with_kernels_that_ignore_what_is_constant():
    state = initial_weights(3).state
    for name, values in state.items():
        if name.endswith("weight"):
            assert float(values.flatten(1).mean(1).abs().max()) < 1e-6
    first = state["conv1a.weight"]
    assert float(first.mean((2, 3, 4)).abs().max()) < 1e-6  # in each colour too
    assert float(first[::2].mean(2).abs().max()) < 1e-6  # and what stands still
    assert float(first[1::2].mean(2).abs().max()) > 0.01
    # He's variance, 2 / (3 x 27), but for what went with the means.
    assert float(first.var()) == pytest.approx(2 / 81, rel=0.1)


def test_the_shipped_weights_are_small_sound_and_documented():
    path = DATA / "tiny.safetensors"
    weights = load_weights("tiny")
    assert path.stat().st_size <= 3_000_000
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (weights.arch, weights.pool5) == ("c3d-tiny", "ceil")
    page = (DATA / "README.md").read_text(encoding="utf-8")
    assert weights.sha256 in page
    for name in ("clip_accuracy", "video_accuracy"):
        assert f"{weights.notes[name]:.1%}" in page
    assert weights.notes["clip_accuracy"] > 10 / 28


def test_the_shipped_weights_come_from_the_recipe():
    made, recipe = load_weights("tiny").notes["recipe"], Recipe()
    asked = settings(Path("folder"), Path("start"), Path("out"), recipe)
    same = (
        *("batch", "learning_rate", "step", "gamma", "iterations", "seed"),
        *("dropout", "weight_decay", "stride", "mirror", "momentum"),
    )
    assert {name: made[name] for name in same} == {
        name: getattr(asked, name) for name in same
    }
    assert made["init"].startswith(f"centred random:{recipe.seed} ")
    assert len(made["classes"]) == 28 and json.dumps(dict(made))


#: Six classes that show six things, and so few clips of each that a test can wait.
SHORT = ("Stand", "TuckFast", "EntryBigSplash", "LandingFall", "Run", "SpinFast")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Twelve rendered clips of each of the six: eight to train on, four to test."""
    root = tmp_path_factory.mktemp("clips")
    train, test = [], []
    for label, name in enumerate(SHORT, start=1):
        (root / name).mkdir()
        for index in range(12):
            task = ClipTask(root, name, index, seed=99)
            make_clip(task)
            if index < 8:
                train.append(f"{task.label} {label}\n")
            else:
                test.append(f"{task.label}\n")
    (root / "trainlist01.txt").write_text("".join(train))
    (root / "testlist01.txt").write_text("".join(test))
    (root / "classInd.txt").write_text(
        "".join(f"{label} {name}\n" for label, name in enumerate(SHORT, start=1))
    )
    return root


def features(weights, clips):
    """FC-6 of the middle of every clip, (6, 12, D)."""
    net = build(ARCHITECTURES[weights.arch], weights.state)
    pre, found = weights.preprocessing, []
    for name in SHORT:
        frames = [
            read_frames(path, pre, 0, 16)[:, 8:120, 29:141]
            for path in sorted((clips / name).iterdir())
        ]
        with torch.inference_mode():
            found.append(net(as_input(torch.from_numpy(np.stack(frames)), pre)))
    return torch.stack(found).numpy()


def nearest_class(found):
    """How often the nearest mean of the first eight is the own class's, of the rest."""
    found = (found - found.mean((0, 1))) / (found.std((0, 1)) + 1e-6)
    means = found[:, :8].mean(1)  # (classes, D)
    distance = np.linalg.norm(found[:, 8:, None] - means, axis=-1)
    return float((distance.argmin(-1) == np.arange(6)[:, None]).mean())


@pytest.mark.slow
def test_the_shipped_weights_tell_what_untrained_ones_do_not(clips):
    trained = nearest_class(features(load_weights("tiny"), clips))
    untrained = nearest_class(features(initial_weights(0), clips))
    assert trained >= 0.75 and trained > untrained + 0.2


@pytest.mark.slow
def test_a_short_form_of_the_recipe_learns(clips, tmp_path):
    """Two of the classes, which a few iterations tell apart."""
    two = tmp_path / "clips"
    two.mkdir()
    kept = SHORT[:2]
    for name in kept:
        shutil.copytree(clips / name, two / name)
    for split in ("trainlist01.txt", "testlist01.txt"):
        rows = (clips / split).read_text().splitlines()
        (two / split).write_text("\n".join(r for r in rows if r.startswith(kept)))
    (two / "classInd.txt").write_text("1 Stand\n2 TuckFast\n")
    recipe = Recipe(iterations=20, batch=8, step=15)
    run = train(two, tmp_path / "short.safetensors", recipe, workers=0)
    assert run.classes == kept
    assert run.clip_accuracy >= 0.8  # guessing gives 0.5
