"""`fit` writes models that score, and learns nothing from the test list."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from fakes import MADE, compare, numbers
from safetensors.numpy import load_file
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.svm import NuSVR

from aqa.cache.console import silent
from aqa.cache.errors import AqaError
from aqa.cache.labels import Label, relabel
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import write_cache
from aqa.regress.config import (
    MODES,
    CompareConfig,
    FitConfig,
    LstmConfig,
    Schedule,
    SplitConfig,
    SvrConfig,
)
from aqa.regress.data import LabelScale, deal, load
from aqa.regress.heads import HEADS, HeadKind
from aqa.regress.heads.base import Part, kind_of
from aqa.regress.heads.fit import fit
from aqa.regress.heads.model_file import load_model, residual_bounds
from aqa.regress.heads.scoring import score, surprises
from aqa.regress.splits import split_features

COUNTS = {"diving": (14, 6), "gym_vault": (12, 5)}
QUICK = FitConfig(
    calibration_folds=2,
    schedule=Schedule(iterations=60, learning_rate=0.01, step=30),
    lstm=LstmConfig(hidden=8),
    svr=SvrConfig(costs=(0.1, 1.0), epsilons=(0.1,), folds=3, repeats=2),
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
        assert model.label_scale.scale[name] == pytest.approx(own.std(ddof=1))
        assert model.ranges[name] == (own.min(), own.max())
        assert dict(model.results[name]) == dict(found)
        assert model.frames[name] == (100, 100)
    assert report.average["arithmetic"] == pytest.approx(np.mean(rhos))
    assert report.average["fisher_z"] == pytest.approx(np.tanh(np.arctanh(rhos).mean()))
    assert report.average["undefined"] == 0


def test_why_rho_is_undefined_is_said(plant, tmp_path):
    counts = {"diving": (14, 6), "gym_vault": (12, 2), "ski_big_air": (8, 0)}
    path = plant(tmp_path / "features.h5", "shared", counts)
    report = fit(path, replace(QUICK, head="svr"), tmp_path / "out")
    said = "rho is undefined for gym_vault (2), ski_big_air (0): fewer than 3 labelled"
    (warning,) = [each for each in report.warnings if "undefined" in each]
    assert warning.startswith(said) and "--folds" in warning


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
    for name in ("label_scale", "calibration", "settings", "frames", "ranges"):
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
    rows = load(cache).rows("diving", "train")
    courses = [score(model, load(cache).x[row], "diving").course for row in rows]
    assert known.typical == pytest.approx(np.mean(courses, 0), rel=1e-5)
    assert np.cumsum(found.changes) == pytest.approx(found.course)
    lost = surprises(np.array(found.course)) - surprises(np.array(known.typical))
    assert found.lost == pytest.approx(lost)
    assert found.worst_clip == np.argmin(found.lost)
    padded = score(model, x, "diving", padding=found.worst_clip + 1)
    assert padded.worst_clip is None or padded.worst_clip > found.worst_clip


def test_clip_surprises_by_what_was_not_to_be_expected():
    course = np.array([2.0, 4.0, 5.0])
    # After 2 of 3 clips 4 points: the third was expected to make them 6.
    assert surprises(course).tolist() == [2, 0, -1]


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
    assert model.head.choice.nu == 0.5
    (warning,) = model.settings["warnings"]  # features of unit variance, not pixels
    assert "nothing is scaled" in warning
    with pytest.raises(AqaError, match="one action at a time: --mode single-action"):
        fit(cache, replace(config, mode="all-action"), tmp_path / "out")


def test_an_svr_that_was_stopped_is_a_warning(cache, tmp_path, monkeypatch):
    one = replace(QUICK.svr, costs=(1.0,))
    config = replace(QUICK, head="svr", actions=("diving",), svr=one)
    assert fit(cache, config, tmp_path / "a").warnings == ()
    monkeypatch.setattr("aqa.regress.heads.svr.MOST_ITERATIONS", 1)
    report = fit(cache, config, tmp_path / "b")
    assert "before it converged" in report.warnings[0]
    assert "before it converged" in load_model(report.models[0]).settings["warnings"][0]


def test_only_models_of_scores_so_far_say_where_most_was_lost(cache, tmp_path):
    report = fit(cache, QUICK, tmp_path / "out")
    found = score(load_model(report.models[0]), load(cache).x[3], "diving")
    assert found.lost == () and found.worst_clip is None
    assert "most lost" not in found.describe()
    assert "guess at the final score after each clip" in found.describe()
    assert (
        found.record()["course_meaning"] == "guess at the final score after each clip"
    )


def test_action_that_gives_the_units(cache, tmp_path):
    report = fit(cache, replace(QUICK, head="svr"), tmp_path / "out")
    model, x = load_model(report.models[0]), load(cache).x[0]
    diving, vault = (score(model, x, name).score for name in COUNTS)
    units = model.label_scale.scale
    assert diving / units["diving"] == pytest.approx(vault / units["gym_vault"])
    with pytest.raises(AqaError, match="knows diving, gym_vault: name one"):
        score(model, x)
    with pytest.raises(AqaError, match="luge: the model knows diving, gym_vault"):
        score(model, x, "luge")
    with pytest.raises(AqaError, match="of one video"):
        score(model, x[0], "diving")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "each"}, "mode: expected all-action or single-action, found 'each'"),
        ({"head": "mlp"}, f"head: expected {' or '.join(HEADS)}, found 'mlp'"),
        ({"label_scale": "minmax"}, "label_scale: expected std or zscore"),
        ({"loss": "rank", "head": "svr"}, "the rank loss is for LSTM heads"),
        ({"actions": ("luge",)}, "no sample of luge"),
        ({"labels": "all"}, "labels: expected final or incremental"),
    ],
)
def test_fits_that_cannot_be_had(cache, tmp_path, change, message):
    with pytest.raises(AqaError, match=message):
        fit(cache, replace(QUICK, **change), tmp_path / "out")


def test_bounds_are_order_statistics():
    residuals = np.random.default_rng(0).permutation(np.arange(-9.0, 10))
    # Of 20 gaps for the next residual, 5 % is one: below the lowest of 19.
    assert residual_bounds(residuals, 0.9) == (-9, 9, pytest.approx(0.9))
    assert residual_bounds(np.arange(-19.0, 20), 0.9)[:2] == (-18, 18)
    # Residuals of one sign: the model is off, but a score is in its own interval.
    assert residual_bounds(np.arange(1.0, 20), 0.9)[:2] == (0, 19)


@pytest.mark.parametrize("n", [2, 5, 10, 14, 19, 59])
def test_interval_holds_as_often_as_it_says(n):
    """The level that n residuals allow is computed: 67 % of 5, 82 % of 10."""
    generator = np.random.default_rng(n)
    hits = []
    for _ in range(4000):
        residuals = generator.exponential(size=n + 1) - 1
        low, high, level = residual_bounds(residuals[:n], 0.9)
        hits.append(low <= residuals[n] <= high)
    assert level == pytest.approx(1 - 2 * max(1, int((n + 1) * 0.05 + 1e-9)) / (n + 1))
    # Above the level by the times that 0 lies outside of the residuals.
    assert level - 0.02 < np.mean(hits) < level + 0.02 + (0.12 if n < 5 else 0.01)


def test_the_level_of_few_videos_is_printed(plant, tmp_path):
    cache = plant(tmp_path / "features.h5", "shared", {"diving": (5, 3)})
    model = load_model(fit(cache, QUICK, tmp_path / "out").models[0])
    found = score(model, load(cache).x[0])
    assert model.calibration["diving"].level == pytest.approx(2 / 3)
    assert "67 %, calibrated on 5 training videos" in found.describe()


@pytest.mark.parametrize("head", ["lstm", "svr"])
def test_held_out_predictions_are_those_of_heads_made_alike(cache, tmp_path, head):
    """The interval's residuals: each fold by a head fitted to the others in full."""
    config = replace(QUICK, head=head, mode="single-action", actions=("diving",))
    model = load_model(fit(cache, config, tmp_path / "out").models[0])
    features = load(cache, ("diving",))
    rows = features.rows("diving", "train")
    folds = deal(features.action[rows], 2, 0)
    residuals = np.empty(len(rows))
    scale = model.label_scale
    labels = scale.to_scaled(features.score, features.action)
    kind = kind_of(head)
    for fold in range(2):
        inside, outside = rows[folds != fold], rows[folds == fold]
        part = Part("alone", inside, labels[inside])
        (alone,) = kind.fit_heads(features, [part], config, tmp_path, silent)
        made = scale.to_units(alone.predict(features.x[outside, 0]), "diving")
        residuals[folds == fold] = features.score[outside] - made
    low, high, level = residual_bounds(residuals)
    known = model.calibration["diving"]
    assert (known.low, known.high) == (pytest.approx(low), pytest.approx(high))
    assert known.level == level and known.folds == 2


@pytest.mark.parametrize("head", ["lstm", "svr"])
def test_folds_test_each_sample_once(cache, tmp_path, head):
    """Scores of the pooled held-out predictions; nothing of a fold trains its heads."""
    config = replace(QUICK, head=head, split=SplitConfig(folds=3))
    report = fit(cache, config, tmp_path / "out")
    features = load(cache)
    split = split_features(features, config.split)
    made = np.full(len(features.x), np.nan)
    shift = np.zeros(len(features.x))
    for fold in split.folds:
        rows = fold.features.rows(split="train")
        outside = fold.features.rows(split="test")
        scale = LabelScale.learn(features, rows)
        labels = scale.to_scaled(features.score[rows], features.action[rows])
        part = Part("alone", rows, labels)
        (alone,) = kind_of(head).fit_heads(features, [part], config, tmp_path, silent)
        units = scale.to_units(alone.predict(features.x[:, 0]), features.action)
        assert np.isnan(made[outside]).all()
        made[outside] = units[outside]
        for name in COUNTS:  # all heads are compared at one mean over an action
            own = features.action == name
            shift[outside[own[outside]]] = units[own].mean()
    for name, counts in COUNTS.items():
        own = features.action == name
        found = report.results[name]
        rho = spearmanr(made[own] - shift[own], features.score[own]).statistic
        assert found["spearman"] == pytest.approx(rho)
        assert found["n_test"] == found["n_train"] == sum(counts)
    assert "3 folds" in report.split
    model = load_model(report.models[0])
    assert model.calibration["diving"].videos == sum(COUNTS["diving"])
    assert model.settings["tested_on"] == report.split


def test_an_action_that_a_fold_cannot_train_is_left_out_and_said(tmp_path):
    # Every luge sample is of one person.
    generator = np.random.default_rng(0)
    people = {"diving": "AAABBBCCC", "luge": "AAAAAA", "skiing": "AABBBCC"}
    samples = [
        Sample(f"{a}/{n}", a, "", generator.normal(), 0, "", extra={"person": person})
        for a, persons in people.items()
        for n, person in enumerate(persons)
    ]
    features = generator.normal(size=(len(samples), 1, 2, 4)).astype(np.float32)
    provenance = Provenance({"features": "made"})
    cache = write_cache(tmp_path / "f.h5", samples, list(features), provenance)
    config = replace(QUICK, head="svr", split=SplitConfig(leave_one_out="person"))
    for mode in MODES:
        report = fit(cache, replace(config, mode=mode), tmp_path / mode)
        assert list(report.results) == ["diving", "skiing"]
        assert (
            "left out: luge: no labelled training sample in person A"
            in (report.warnings[0])
        )
    with pytest.raises(AqaError, match="in person A; without a cross-validation"):
        fit(cache, replace(config, actions=("diving", "luge")), tmp_path / "luge")


def test_z_scored_labels_and_ranks_are_scored_in_units(cache, tmp_path):
    features = load(cache)
    for change in ({"label_scale": "zscore"}, {"loss": "rank"}):
        config = replace(QUICK, **change)
        model = load_model(fit(cache, config, tmp_path / str(change)).models[0])
        for name in COUNTS:
            rows = features.rows(name, "train")
            made = [score(model, features.x[row], name).score for row in rows]
            truth = features.score[rows]
            assert np.mean(made) == pytest.approx(truth.mean(), abs=truth.std() / 2)
            assert spearmanr(made, truth).statistic > 0.6
    assert model.label_scale.kind == "rank"
    assert "loss rank (paper: squared)" in model.settings["unlike_paper"]


RIDGE = """
'A trial head: ridge regression on the mean features.'

from dataclasses import dataclass

import numpy as np

from aqa.regress.heads.base import Head, averaged


@dataclass(frozen=True, eq=False)
class RidgeHead(Head):
    kind = "ridge"
    weights: np.ndarray

    def predict(self, x, clips=None):
        return averaged(x, clips) @ self.weights[1:] + self.weights[0]

    def arrays(self):
        return {"weights": self.weights}

    def warnings(self):
        return ["this is a trial"]


def fit_heads(features, parts, config, store, progress):
    heads = []
    for part in parts:
        x = features.clip_means(part.rows)
        x = np.hstack([np.ones((len(x), 1)), x])
        gram = x.T @ x + np.diag([0.0] + [ALPHA] * (x.shape[1] - 1))
        heads.append(RidgeHead(np.linalg.solve(gram, x.T @ part.labels)))
    return heads


def read_head(arrays, facts):
    return RidgeHead(arrays["weights"])
"""


@pytest.fixture
def ridge(tmp_path, monkeypatch):
    """Register a head of ridge regression: one file and one line."""

    def register(alpha):
        (tmp_path / "trial_ridge.py").write_text(RIDGE.replace("ALPHA", str(alpha)))
        monkeypatch.delitem(sys.modules, "trial_ridge", raising=False)
        monkeypatch.setitem(HEADS, "ridge", HeadKind("trial_ridge", "ridge regression"))

    monkeypatch.syspath_prepend(tmp_path)
    return register


def of_ridge(features, train, action, alpha=1.0):
    """What scikit-learn's machine, trained on these actions, predicts for tests."""
    x = features.x[:, 0].mean(1, dtype=float)
    listed = features.split == "train"
    deviations = {
        name: features.score[listed & (features.action == name)].std(ddof=1)
        for name in COUNTS
    }
    units = np.array([deviations[name] for name in features.action])
    rows = listed & np.isin(features.action, train)
    tests = ~listed & (features.action == action)
    machine = Ridge(alpha).fit(x[rows], features.score[rows] / units[rows])
    return machine.predict(x[tests]) * units[tests], features.score[tests]


def test_a_new_head_is_one_file_and_one_line(cache, tmp_path, ridge):
    ridge(1.0)
    report = fit(cache, replace(QUICK, head="ridge"), tmp_path / "out")
    model, features = load_model(report.models[0]), load(cache)
    expected, truth = of_ridge(features, [*COUNTS], "diving")
    test = features.rows("diving", "test")
    found = [score(model, features.x[row], "diving") for row in test]
    np.testing.assert_allclose([one.score for one in found], expected, rtol=1e-6)
    assert found[0].interval[0] < found[0].score < found[0].interval[1]
    assert report.results["diving"]["spearman"] == pytest.approx(
        spearmanr(expected, truth).statistic
    )


def test_a_new_head_has_rows_in_the_tables(cache, tmp_path, ridge):
    features = load(cache)
    config = CompareConfig(
        schedule=replace(QUICK.schedule, iterations=2),
        lstm=QUICK.lstm,
        svr=replace(QUICK.svr, costs=(1.0,)),
        variants=True,
        untrained=2,
        bootstrap=20,
        device="cpu",
        workers=1,
    )
    ridge(1.0)
    names, plain = ["single-vs-all", "zero-shot"], replace(config, variants=False)
    compare(cache, names[1:], plain, tmp_path / "report")
    ridge(500.0)  # heads of before the module was edited are not taken
    table_2, table_3 = compare(cache, names, config, tmp_path / "report")
    assert any(note.startswith("this is a trial: ") for note in table_2["notes"])
    rows = {row["name"]: row for row in (*table_2["rows"], *table_3["rows"])}
    for action, other in zip(COUNTS, reversed(COUNTS), strict=True):
        trained_on = {
            "single-action": [action],
            "all-action": [*COUNTS],
            "multi-action": [other],
        }
        for mode, train in trained_on.items():
            row = rows[f"{mode} ridge regression"]
            expected, truth = of_ridge(features, train, action, 500.0)
            (rho,) = row["per_action"][action]["spearman"]
            assert row["head"] == "ridge"
            assert rho == pytest.approx(spearmanr(expected, truth).statistic)
            if mode != "multi-action":  # and in judges' units
                error = ((expected - truth) / np.ptp(truth)) ** 2
                (rl2,) = row["per_action"][action]["rl2_x100"]
                assert rl2 == pytest.approx(100 * error.mean())
    assert "all-action ridge regression, z-scored labels" in rows
    assert "all-action LSTM, rank loss" in rows
    assert "all-action ridge regression, rank loss" not in rows  # it has no loss


def test_lists_too_short_to_train_or_to_test(plant, tmp_path):
    """Fewer than three test videos have no rank correlation; trampoline by name."""
    counts = {"diving": (8, 2), "gym_vault": (6, 0), "trampoline": (6, 3)}
    cache = plant(tmp_path / "features.h5", "shared", counts)
    config = replace(QUICK, head="svr", calibration_folds=0)
    report = fit(cache, config, tmp_path / "out")
    assert list(report.results) == ["diving", "gym_vault"]
    assert "left out: AQA-7's trampoline, as in the paper" in report.warnings[0]
    for name, tests in (("diving", 2), ("gym_vault", 0)):
        found = report.results[name]
        assert found["spearman"] is found["kendall"] is found["rl2_x100"] is None
        assert found["n_test"] == tests
    assert report.average == {"fisher_z": None, "arithmetic": None, "undefined": 2}
    said = score(load_model(report.models[0]), load(cache).x[0], "diving")
    assert said.interval is None and said.course == said.lost == ()
    named = replace(config, actions=("trampoline",))
    assert list(fit(cache, named, tmp_path / "b").results) == ["trampoline"]
    alone = plant(tmp_path / "alone.h5", "shared", {"trampoline": (6, 3)})
    with pytest.raises(
        AqaError, match="^left out: AQA-7's trampoline, as in the paper"
    ):
        fit(alone, config, tmp_path / "c")
    samples = [
        Sample(f"me/{i}", "trampoline", "train", 30 + i, 9, "") for i in range(6)
    ]
    features = (numbers(1, 2, 3, seed=row) for row in range(6))
    mine = write_cache(tmp_path / "mine.h5", samples, features, MADE)
    report = fit(mine, config, tmp_path / "d")
    assert list(report.results) == ["trampoline"]
    assert not [said for said in report.warnings if "left out" in said]
    empty = plant(tmp_path / "empty.h5", "shared", {"diving": (0, 4)})
    with pytest.raises(AqaError, match="no labelled training video; `aqa cache"):
        fit(empty, QUICK, tmp_path / "out")
    with pytest.raises(AqaError, match="diving: no labelled training video"):
        fit(empty, replace(QUICK, actions=("diving",)), tmp_path / "out")
