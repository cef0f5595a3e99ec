"""`fit` writes models that score, and learns nothing from the test list."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.stats import spearmanr
from sklearn.svm import NuSVR

from aqa.cache.errors import AqaError
from aqa.cache.labels import Label, relabel
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import write_cache
from aqa.regress.config import FitConfig, LstmConfig, Schedule, SvrConfig
from aqa.regress.data import load
from aqa.regress.heads.fit import fit
from aqa.regress.heads.model_file import load_model, residual_bounds
from aqa.regress.heads.scoring import length_warning, score, surprises

COUNTS = {"diving": (14, 6), "gym_vault": (12, 5)}
QUICK = FitConfig(
    calibration_folds=2,
    schedule=Schedule(iterations=60, learning_rate=0.01, step=30),
    lstm=LstmConfig(hidden=8),
    svr=SvrConfig(costs=(0.1, 1.0), epsilons=(0.1,), folds=3),
    device="cpu",
    workers=1,
)


@pytest.fixture
def cache(plant, tmp_path):
    return plant(tmp_path / "features.h5", "shared", COUNTS)


@pytest.mark.parametrize("head", ["lstm", "svr"])
@pytest.mark.parametrize("mode", ["single-action", "all-action"])
def test_fit_reports_what_the_models_do(cache, tmp_path, mode, head):
    report = fit(cache, replace(QUICK, mode=mode, head=head), tmp_path / "out")
    names = ["all-action"] if mode == "all-action" else list(COUNTS)
    assert [path.name for path in report.models] == [
        f"{name}-{head}.safetensors" for name in names
    ]
    features = load(cache)
    rhos = []
    for name, (train, test) in COUNTS.items():
        path = report.models[0 if mode == "all-action" else names.index(name)]
        model = load_model(path)
        model.require(features.provenance)
        rows = features.rows(name, "test")
        scores = [score(model, features.x[row], name).score for row in rows]
        found = report.results[name]
        rhos.append(spearmanr(features.score[rows], scores).statistic)
        assert found["spearman"] == pytest.approx(rhos[-1])
        assert (found["n_train"], found["n_test"]) == (train, test)
        own = features.score[features.rows(name, "train")]
        assert model.deviations[name] == pytest.approx(own.std(ddof=1))
        assert dict(model.results[name]) == dict(found)
        assert model.frames[name] == (100, 100)
    assert report.average["arithmetic"] == pytest.approx(np.mean(rhos))
    assert report.average["fisher_z"] == pytest.approx(np.tanh(np.arctanh(rhos).mean()))
    assert report.average["undefined"] == 0


@pytest.mark.parametrize("head", ["lstm", "svr"])
def test_test_labels_leave_no_trace(plant, tmp_path, head):
    """Every test label changed: not one bit of what was fitted changes."""
    out = []
    for name in ("true", "false"):
        cache = plant(tmp_path / f"{name}.h5", "shared", COUNTS)
        features = load(cache)
        if name == "false":
            generator = np.random.default_rng(5)
            labels = {
                str(features.key[row]): Label(
                    str(features.action[row]), 100 * generator.normal(), "test"
                )
                for row in features.rows(split="test")
            }
            assert relabel(cache, labels, doubtful=True).changed == len(labels)
        report = fit(cache, replace(QUICK, head=head), tmp_path / name)
        out.append((report, load_model(report.models[0])))
    (true, model), (false, other) = out
    assert true.results != false.results
    arrays, others = (load_file(report.models[0]) for report in (true, false))
    assert arrays.keys() == others.keys()
    for name in arrays:
        assert arrays[name].tobytes() == others[name].tobytes()
    for name in ("deviations", "calibration", "settings", "frames"):
        assert getattr(model, name) == getattr(other, name)


def test_score_has_an_interval_and_a_course(cache, tmp_path):
    report = fit(cache, replace(QUICK, labels="incremental"), tmp_path / "out")
    model = load_model(report.models[0])
    x = load(cache).x[3]
    found = score(model, x, "diving")
    known = model.calibration["diving"]
    assert found.interval == (found.score + known.low, found.score + known.high)
    assert known.videos == 14 and known.folds == 2
    assert found.course[-1] == pytest.approx(found.score)
    assert np.cumsum(found.changes) == pytest.approx(found.course)
    lost = surprises(np.array(found.course), True) - surprises(
        np.array(known.typical), True
    )
    assert found.lost == pytest.approx(lost)
    assert found.worst_clip == np.argmin(found.lost)
    padded = score(model, x, "diving", padding=found.worst_clip + 1)
    assert padded.worst_clip is None or padded.worst_clip > found.worst_clip


def test_clip_surprises_by_what_was_not_to_be_expected():
    course = np.array([2.0, 4.0, 5.0])
    assert surprises(course, incremental=False).tolist() == [2, 2, 1]
    # After 2 of 3 clips 4 points: the third was expected to make them 6.
    assert surprises(course, incremental=True).tolist() == [2, 0, -1]


def test_course_marks_the_clip_where_quality_was_lost(tmp_path):
    """Planted errors: column 1 lights up in one clip, and the score drops by 10."""
    videos, clips, width = 160, 6, 12
    generator = np.random.default_rng(0)
    difficulty = generator.normal(size=videos)
    wrong = generator.integers(0, 2 * clips, videos)  # at or above clips: flawless
    x = 0.4 * generator.normal(size=(videos, 2, clips, width))
    x[..., 0] += difficulty[:, None, None]
    x[..., np.arange(clips), 4 + np.arange(clips)] += 2  # each clip has its look
    flawed = np.flatnonzero(wrong < clips)
    x[flawed, :, wrong[flawed], 1] += 2
    samples = [
        Sample(
            key=f"diving/{i:03}",
            action="diving",
            split="train" if i < 100 else "test",
            score=50 + 8 * difficulty[i] - 10 * (wrong[i] < clips),
            frames=100,
            source_sha256="",
        )
        for i in range(videos)
    ]
    cache = write_cache(
        tmp_path / "features.h5",
        samples,
        np.maximum(x, 0).astype(np.float32),
        Provenance({"features": "planted"}),
    )
    config = replace(
        QUICK,
        labels="incremental",
        schedule=Schedule(iterations=500, learning_rate=0.005, step=200),
        lstm=LstmConfig(hidden=16),
    )
    report = fit(cache, config, tmp_path / "out")
    model, features = load_model(report.models[0]), load(cache)
    tested = flawed[flawed >= 100]
    marked = [score(model, features.x[i]).worst_clip == wrong[i] for i in tested]
    assert len(marked) > 20 and np.mean(marked) > 0.6  # chance is 1 in 6


def test_typical_course_is_the_training_videos_mean(cache, tmp_path):
    report = fit(cache, QUICK, tmp_path / "out")
    model, features = load_model(report.models[0]), load(cache)
    rows = features.rows("gym_vault", "train")
    courses = [score(model, features.x[row], "gym_vault").course for row in rows]
    typical = model.calibration["gym_vault"].typical
    assert typical == pytest.approx(np.mean(courses, 0), rel=1e-5)


def test_svr_scores_without_a_course(cache, tmp_path):
    config = replace(QUICK, head="svr", mode="single-action", actions=("diving",))
    report = fit(cache, config, tmp_path / "out")
    found = score(load_model(report.models[0]), load(cache).x[0])
    assert found.action == "diving" and found.interval[0] < found.interval[1]
    assert found.course == found.changes == found.lost == ()
    assert found.worst_clip is None


def test_nu_svr_is_the_preset_for_one_action_at_a_time(cache, tmp_path):
    config = replace(QUICK, head="nu-svr", mode="single-action", actions=("diving",))
    report = fit(cache, config, tmp_path / "out")
    assert report.models[0].name == "diving-nu-svr.safetensors"
    features = load(cache)
    rows, test = (features.rows("diving", split) for split in ("train", "test"))
    samples = features.x.mean(2, dtype=np.float64)  # (N, copies, D)
    machine = NuSVR(kernel="linear", C=0.001 / 2, nu=0.5)  # two copies of a video
    machine.fit(samples[rows].reshape(-1, 16), np.repeat(features.score[rows], 2))
    model = load_model(report.models[0])
    scores = [score(model, features.x[row]).score for row in test]
    np.testing.assert_allclose(scores, machine.predict(samples[test, 0]), rtol=1e-3)
    assert model.settings["svr"]["nu"] == 0.5 and model.settings["converged"]
    with pytest.raises(AqaError, match="one action at a time: --mode single-action"):
        fit(cache, replace(config, mode="all-action"), tmp_path / "out")


def test_an_svr_that_was_stopped_is_a_warning(cache, tmp_path, monkeypatch):
    config = replace(QUICK, head="svr", actions=("diving",))
    assert fit(cache, config, tmp_path / "a").warnings == ()
    monkeypatch.setattr("aqa.regress.heads.svr.MOST_ITERATIONS", 1)
    report = fit(cache, config, tmp_path / "b")
    (warning,) = report.warnings
    assert "before it converged" in warning
    assert load_model(report.models[0]).settings["converged"] is False


def test_score_without_calibration_has_no_interval(cache, tmp_path):
    report = fit(cache, replace(QUICK, calibration_folds=0), tmp_path / "out")
    found = score(load_model(report.models[0]), load(cache).x[0], "diving")
    assert found.interval is None and found.lost == ()
    assert found.worst_clip == np.argmin(found.changes)


def test_action_that_gives_the_units(cache, tmp_path):
    report = fit(cache, replace(QUICK, head="svr"), tmp_path / "out")
    model, x = load_model(report.models[0]), load(cache).x[0]
    diving, vault = (score(model, x, name).score for name in COUNTS)
    units = model.deviations
    assert diving / units["diving"] == pytest.approx(vault / units["gym_vault"])
    with pytest.raises(AqaError, match="knows diving, gym_vault; name one"):
        score(model, x)
    with pytest.raises(AqaError, match="luge: the model knows diving, gym_vault"):
        score(model, x, "luge")
    with pytest.raises(AqaError, match="of one video"):
        score(model, x[0], "diving")


def test_length_far_from_what_was_learnt(cache, tmp_path):
    report = fit(cache, replace(QUICK, head="svr"), tmp_path / "out")
    model = load_model(report.models[0])
    assert length_warning(model, "diving", 90) == ""
    assert "learnt diving from videos of 100 to 100" in length_warning(
        model, "diving", 900
    )


def test_stopped_fit_goes_on(cache, tmp_path):
    def stop(done, total, label):
        if label.startswith("1 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(cache, QUICK, tmp_path / "out", stop)
    seen = []
    whole = fit(cache, QUICK, tmp_path / "out", lambda *what: seen.append(what))
    assert seen[0] == (60, 180, "0 of 2 heads trained")
    fresh = fit(cache, QUICK, tmp_path / "fresh")
    a, b = whole.models[0].read_bytes(), fresh.models[0].read_bytes()
    assert a == b


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "each"}, "cannot fit each lstm: modes are all-action and"),
        ({"head": "mlp"}, "heads lstm and svr"),
        ({"actions": ("luge",)}, "no sample of luge"),
        ({"labels": "all"}, "labels must be"),
    ],
)
def test_fits_that_cannot_be_had(cache, tmp_path, change, message):
    with pytest.raises(AqaError, match=message):
        fit(cache, replace(QUICK, **change), tmp_path / "out")


def test_nothing_to_learn_from(plant, tmp_path):
    cache = plant(tmp_path / "features.h5", "shared", {"diving": (0, 4)})
    with pytest.raises(AqaError, match="no labelled training video"):
        fit(cache, QUICK, tmp_path / "out")
    with pytest.raises(AqaError, match="diving: no labelled training video"):
        fit(cache, replace(QUICK, actions=("diving",)), tmp_path / "out")


def test_trampoline_is_fitted_only_by_name(plant, tmp_path):
    counts = {"diving": (6, 3), "trampoline": (6, 3)}
    cache = plant(tmp_path / "features.h5", "shared", counts)
    svr = replace(QUICK, head="svr")
    assert list(fit(cache, svr, tmp_path / "a").results) == ["diving"]
    named = replace(svr, actions=("trampoline",))
    assert list(fit(cache, named, tmp_path / "b").results) == ["trampoline"]


def test_actions_without_test_videos_are_fitted_and_not_judged(plant, tmp_path):
    cache = plant(tmp_path / "features.h5", "shared", {"diving": (8, 0)})
    report = fit(cache, QUICK, tmp_path / "out")
    assert report.results["diving"]["spearman"] is None
    assert report.average == {"fisher_z": None, "arithmetic": None, "undefined": 1}


def test_bounds_are_order_statistics():
    residuals = np.random.default_rng(0).permutation(np.arange(1.0, 20))
    # Of 20 places for the next residual, 5 % is one: below the lowest of 19.
    assert residual_bounds(residuals, 0.9) == (1, 19)
    assert residual_bounds(np.arange(1.0, 40), 0.9) == (2, 38)
    assert residual_bounds(np.arange(3.0), 0.9) == (0, 2)


def test_interval_holds_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(2000):
        low, high = residual_bounds(generator.exponential(size=59), 0.9)
        hits.append(low <= generator.exponential() <= high)
    assert np.mean(hits) == pytest.approx(0.9, abs=0.03)
