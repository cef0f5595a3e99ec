"""Scores say when features or scores are unlike those of training."""

from dataclasses import replace

import numpy as np
import pytest

from aqa.regress.config import FitConfig, LstmConfig, Schedule, SvrConfig
from aqa.regress.data import load
from aqa.regress.heads.fit import fit
from aqa.regress.heads.model_file import load_model
from aqa.regress.heads.plausibility import LEAST_SAMPLES, Plausibility
from aqa.regress.heads.scoring import score

QUICK = FitConfig(
    head="svr",
    calibration_folds=2,
    svr=SvrConfig(kernels=("linear",), costs=(1.0,), epsilons=(0.1,)),
    schedule=Schedule(iterations=10),
    lstm=LstmConfig(hidden=4),
    device="cpu",
)


def by_hand(train, sample):
    """The distance in plain loops."""
    scale = [max(train[:, d].var(), train.var(0).mean()) ** 0.5 for d in range(10)]
    distances = sorted(
        (sum(((row[d] - sample[d]) / scale[d]) ** 2 for d in range(10)) / 10) ** 0.5
        for row in train
    )
    return sum(distances[:3]) / 3


def test_distance_and_threshold_by_hand(make_features):
    features = make_features({"diving": 8, "luge": 6})
    found = Plausibility.learn(features, features.rows(split="train"))
    means = features.x[:, 0].mean(1, dtype=float)
    for action, count in (("diving", 8), ("luge", 6)):
        own = means[features.rows(action, "train")]
        test = features.rows(action, "test")[0]
        distance = found.distance(features.x[test, :1], action)
        assert distance == pytest.approx(by_hand(own, means[test]), rel=1e-5)
        others = []
        for place in range(count):  # scales are those of all samples
            rest = np.delete(own, place, 0)
            scale = np.sqrt(np.maximum(own.var(0), own.var(0).mean()))
            gaps = np.sqrt((((rest - own[place]) / scale) ** 2).mean(1))
            others.append(np.sort(gaps)[:3].mean())
        expected = max(others) * (1 + 2.5 / count)
        assert found.thresholds[action] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [6, 20, 60])
def test_false_alarms_are_few_and_strangers_are_found(make_features, count):
    """Videos of the kind exceed the threshold in at most 5 %; others do."""
    generator = np.random.default_rng(count)
    alarms, found = [], []
    made = make_features({"diving": count})
    rows = range(count)
    columns = ("key", "action", "split", "score")
    every = replace(
        made, x=made.x[rows], **{name: getattr(made, name)[rows] for name in columns}
    )
    for _ in range(60):
        basis = generator.normal(size=(4, 40))

        def draw(n, basis=basis):
            hidden = generator.normal(size=(n, 4)) @ basis
            return np.maximum(hidden + 0.5 * generator.normal(size=(n, 40)), 0)

        samples, other = draw(count + 20), draw(20)[:, ::-1] + 4
        x = samples[:count, None, None].astype(np.float32)
        features = replace(every, x=x)
        known = Plausibility.learn(features, np.arange(count))
        limit = known.thresholds["diving"]
        alarms += [_distance(known, one) > limit for one in samples[count:]]
        found += [_distance(known, one) > limit for one in other]
    assert np.mean(alarms) <= 0.05
    assert np.mean(found) > 0.99


def _distance(known, sample):
    return known.distance(sample[None, None].astype(np.float32), "diving")


def test_few_samples_give_no_threshold(make_features):
    features = make_features({"diving": LEAST_SAMPLES, "luge": LEAST_SAMPLES - 1})
    rows = features.rows(split="train")
    assert list(Plausibility.learn(features, rows).thresholds) == ["diving"]
    assert Plausibility.learn(features, features.rows("luge", "train")) is None


@pytest.mark.parametrize("head", ["svr", "lstm"])
def test_scores_warn_of_what_training_never_showed(plant, tmp_path, head):
    cache = plant(tmp_path / "features.h5", "shared", {"diving": (20, 4)})
    model = load_model(fit(cache, replace(QUICK, head=head), tmp_path).models[0])
    x = load(cache).x
    usual = [score(model, x[row]).warnings for row in range(20)]
    assert not any("features unlike" in text for said in usual for text in said)
    strange = score(model, 30 + 50 * x[0])
    assert "features unlike any training video of diving" in strange.warnings[0]
    assert strange.record()["warnings"] == list(strange.warnings)
    assert "nor the level of its interval holds" in strange.warnings[0]
    (unknown,) = score(replace(model, plausibility=None), x[0]).warnings
    assert "fewer than 5 training videos of it to compare with" in unknown
    narrow = replace(model, ranges={"diving": (-0.001, 0.001)})
    (text,) = score(narrow, x[0]).warnings
    assert "score outside the judges' range" in text and "-0.001 to 0.001" in text
    assert score(narrow, x[0]).record()["range"] == (-0.001, 0.001)
    timed = replace(model, rates={"diving": 25.0})
    for rate, warned in ((25.0, False), (29.97, False), (60.0, True), (None, False)):
        said = score(timed, x[0], rate=rate).warnings
        assert any("60 frames per second" in text for text in said) == warned
    for frames, warned in ((49, True), (50, False), (200, False), (201, True)):
        said = score(model, x[0], frames=frames).warnings
        assert any("videos of diving have 100 to 100" in one for one in said) == warned
