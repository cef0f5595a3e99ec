"""Fixtures that more than one test file needs, named by the state they give."""

import csv
import os
import signal
import tempfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aqa.regress.config import (
    CompareConfig,
    FineTuneConfig,
    FineTuneSetting,
    LstmConfig,
    Schedule,
    SvrConfig,
)

ROOT = Path(__file__).parents[1]


def pytest_configure(config):
    """Let interrupts through: where a shell runs us in the background, it has us and
    all that we start ignore them.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Tests leave the user's own cache folder alone.
    folder = tempfile.TemporaryDirectory(prefix="aqa-tests-")
    os.environ["XDG_CACHE_HOME"] = folder.name
    config.add_cleanup(folder.cleanup)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A test with a Ray cluster is slow; begin with what is slow.

    So no processor waits for a slow test at the end.
    """
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def shared_data():
    """Real lists and videos beside the checkout; skips where there are none."""
    folder = Path(os.environ.get("AQA_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture
def released(shared_data):
    """The released lists: key, split and score of each sample by action."""
    lists = defaultdict(list)
    with open(shared_data / "aqa7" / "aqa7_split4_readable.csv") as file:
        for row in csv.DictReader(file):
            key = f"{row['action']}/{int(row['sample']):03d}"
            lists[row["action"]].append((key, row["split"], float(row["score"])))
    return lists


@pytest.fixture(autouse=True)
def seeds_fixed():
    """Make a test's own draws the same in every run and order."""
    torch.manual_seed(0)


@pytest.fixture
def aqa():
    """Run a command; asserts the exit code, returns what was printed."""
    from click.testing import CliRunner

    from aqa.cli import main

    def run(*arguments, code=0):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture(scope="session")
def make_features():
    """Make features in memory: `counts` maps an action to its training samples.

    A tenth as many test samples follow, two at least. The first three columns carry
    the score, column 3 is zero throughout, and a copy is its video with some noise.
    """
    from aqa.cache.provenance import Provenance
    from aqa.regress.data import FeatureSet

    def make(counts=None, *, copies=3, clips=4, width=10, seed=0):
        generator = np.random.default_rng(seed)
        action, split = [], []
        for name, train in (counts or {"diving": 12}).items():
            test = max(2, train // 10)
            action += [name] * (train + test)
            split += ["train"] * train + ["test"] * test
        base = generator.standard_normal((len(action), 1, clips, width))
        noise = generator.standard_normal((len(action), copies, clips, width))
        x = np.maximum(base + 0.2 * noise, 0).astype(np.float32)
        x[..., 3] = 0
        return FeatureSet(
            x=x,
            key=np.array([f"{a}/{i:03}" for i, a in enumerate(action)]),
            action=np.array(action),
            split=np.array(split),
            score=30 + 8 * x[:, 0, :, :3].sum((1, 2)).astype(np.float64),
            provenance=Provenance({"features": "made"}),
        )

    return make


@pytest.fixture(scope="session")
def plant():
    """Write a small cache whose truth is known: what quality looks like, and where.

    `truth` is "shared" (one direction of the features for all actions), "private"
    (a direction for each action) or "noise" (none), other directions varying as much,
    so that chance finds little of it; or "constant" (features that never change).
    `counts` maps an action to its numbers of training and test samples.
    """
    # Here, and not above: a stage that is broken must not break the others' tests.
    from aqa.cache.provenance import Provenance
    from aqa.cache.samples import Sample
    from aqa.cache.store import write_cache

    def write(path, truth, counts, *, width=16, kind="c3d", seed=0, clips=3):
        generator = np.random.default_rng(seed)
        samples, features = [], []
        for place, (action, (train, test)) in enumerate(counts.items()):
            directions = {
                "shared": np.eye(width)[0],
                "private": np.eye(width)[1 + place % (width - 1)],
            }
            direction = directions.get(truth, np.zeros(width))
            for number in range(train + test):
                quality = generator.normal()
                split = "train" if number < train else "test"
                score = 5 * quality + generator.normal()
                key = f"{action}/{number + 1:03d}"
                samples.append(Sample(key, action, split, score, 100, ""))
                look = quality * direction + generator.normal(size=width)
                made = look + generator.normal(scale=0.1, size=(2, 3, width))
                if truth == "constant":
                    made = np.ones_like(made)
                # (offsets, clips, width)
                features.append(made[:, :clips].astype(np.float32))
        provenance = Provenance({"features": kind, "arch": "planted"})
        return write_cache(path, samples, features, provenance)

    return write


#: A name that would break a page, a table, a formula or a picture that trusted it, and
#: ends as the columns of fine-tuning do.
HOSTILE = "<img src=x onerror=alert(1)> & $x_1$ | `a` 'b' \"c\" n=b"


@pytest.fixture(scope="session")
def compared(plant, tmp_path_factory):
    """All three experiments on a planted cache, short, one action with a vile name."""
    from aqa.regress.experiments.compare import compare
    from aqa.regress.experiments.result import to_json

    folder = tmp_path_factory.mktemp("compared")
    counts = {"diving": (14, 8), "sync_diving_10m": (10, 6), HOSTILE: (9, 7)}
    cache = plant(folder / "features.h5", "shared", counts)
    poses = plant(folder / "poses.h5", "shared", counts, kind="pose-dct", clips=1)
    config = CompareConfig(
        seeds=2,
        iterations=24,
        average_offsets=True,
        schedule=Schedule(iterations=48, step=20, learning_rate=0.02),
        fine_tune=FineTuneConfig(
            settings=(FineTuneSetting(4, 20, 8), FineTuneSetting(8, 40, 16)),
            few=(FineTuneSetting(3, 12, 6), FineTuneSetting(5, 20, 8)),
            test=8,
            every=10,
        ),
        lstm=LstmConfig(hidden=4),
        svr=SvrConfig(
            kernels=("linear",), costs=(0.1, 1.0), epsilons=(0.1,), folds=3, repeats=2
        ),
        bootstrap=200,
    )
    out = folder / "out"
    results = compare(cache, ["all"], config, out, also=[poses])
    return SimpleNamespace(
        cache=cache,
        poses=poses,
        config=config,
        out=out,
        results=results,
        reports=[to_json(result.report) for result in results],
    )
