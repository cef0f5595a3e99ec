"""The SVR head equals scikit-learn's, and chooses inside the training rows."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR, NuSVR

from aqa.cache.provenance import Provenance
from aqa.regress.config import SVR_PRESETS, SvrConfig
from aqa.regress.data import FeatureSet
from aqa.regress.svr import fit_svr


def feature_set(n=40, copies=3, clips=4, width=12, actions=("diving",), seed=0):
    generator = np.random.default_rng(seed)
    base = generator.standard_normal((n, 1, 1, width))
    noise = generator.standard_normal((n, copies, clips, width))
    x = (base + 0.3 * noise).astype(np.float32)
    x[..., 3] = 2
    score = 20 + 5 * base[:, 0, 0, :3].sum(1) + generator.standard_normal(n)
    return FeatureSet(
        x=x,
        key=np.array([f"v/{i:03}" for i in range(n)]),
        action=np.array([actions[i % len(actions)] for i in range(n)]),
        split=np.array(["train"] * n),
        score=score,
        provenance=Provenance({"features": "test"}),
    )


@pytest.fixture
def features():
    return feature_set()


def pipeline(features, rows, machine, targets):
    x = features.x[rows].mean(2, dtype=np.float64).reshape(-1, features.x.shape[-1])
    scaler = StandardScaler().fit(x)
    machine.fit(scaler.transform(x), np.repeat(targets[rows], features.x.shape[1]))
    return lambda x: machine.predict(scaler.transform(x.mean(1, dtype=np.float64)))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_predictions_are_scikit_learns(features, kernel):
    rows, targets = np.arange(30), features.score / 5
    head = fit_svr(features, targets, rows, SvrConfig((kernel,), (3.0,), (0.1,)))
    width = features.x.shape[-1]
    # The linear kernel divided by D is scikit-learn's at a cost over D.
    cost = 1 / width if kernel == "linear" else 1
    machine = SVR(kernel=kernel, C=cost, gamma=1 / width, epsilon=0.1)
    expected = pipeline(features, rows, machine, targets)
    x = features.x[30:, 0]
    np.testing.assert_allclose(head.predict(x), expected(x), rtol=0, atol=5e-3)


def test_pose_preset_is_nu_svr_on_raw_scores(features):
    rows, targets = np.arange(30), features.score / 5
    x = features.x[:, :1, :1].copy()
    features = FeatureSet(**{**features.__dict__, "x": x})
    head = fit_svr(features, targets, rows, SVR_PRESETS["pose-dct"])
    machine = NuSVR(kernel="linear", C=0.001, nu=0.5)
    machine.fit(x[:30, 0, 0], features.score[:30])
    expected = machine.predict(x[30:, 0, 0]) / 5
    np.testing.assert_allclose(head.predict(x[30:, 0]), expected, atol=1e-3)


def test_chosen(features):
    head = fit_svr(features, features.score / 5, np.arange(30))
    print(head.choice, head.worth)
    assert head.worth > 0.8
