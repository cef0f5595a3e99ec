"""Heads train as if alone, wherever they train; finished ones are not made again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance
from aqa.regress.config import LstmConfig, Schedule
from aqa.regress.data import FeatureSet
from aqa.regress.loop import TrainingDiverged
from aqa.regress.training import HeadTask, predict, train_heads

LSTM = LstmConfig(hidden=8)
SCHEDULE = Schedule(iterations=25, step=10, batch=4)


def feature_set(n=12, copies=3, clips=4, width=10, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((n, copies, clips, width), dtype=np.float32)
    x = np.maximum(x, 0)
    x[..., 3] = 0
    return FeatureSet(
        x=x,
        key=np.array([f"diving/{i:03}" for i in range(n)]),
        action=np.array(["diving"] * n),
        split=np.array(["train"] * n),
        score=x[:, 0].sum((1, 2)).astype(float),
        provenance=Provenance({"features": "test"}),
    )


@pytest.fixture
def features():
    return feature_set()


@pytest.fixture
def targets(features):
    return features.score / features.score.std(ddof=1)


def task(name="head", seed=0, rows=tuple(range(8)), schedule=SCHEDULE, **more):
    return HeadTask(name=name, rows=rows, seed=seed, schedule=schedule, **more)


def same(a, b):
    assert a.parameters.keys() == b.parameters.keys()
    for name in a.parameters:
        assert np.array_equal(a.parameters[name], b.parameters[name]), name
    assert np.array_equal(a.watched, b.watched)
    assert np.array_equal(a.loss, b.loss)
    assert a.iterations == b.iterations


def test_runs(features, targets):
    base = task()
    heads = train_heads(
        features,
        targets,
        [base, task("w", watch=(8, 9), watch_every=10, init=base)],
        lstm=LSTM,
    )
    assert heads[1].iterations == (0, 10, 20, 25)
    assert heads[1].watched.shape == (4, 2)
    np.testing.assert_allclose(
        heads[1].watched[-1],
        predict(heads[1].parameters, features.x[8:10, 0]),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        heads[1].watched[0],
        predict(heads[0].parameters, features.x[8:10, 0]),
        rtol=1e-5,
    )
