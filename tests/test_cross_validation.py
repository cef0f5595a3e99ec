"""Cross-validation in every experiment: against scikit-learn, and without leaks."""

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import write_cache
from aqa.regress.config import (
    CompareConfig,
    FineTuneConfig,
    FineTuneSetting,
    LstmConfig,
    Schedule,
    SplitConfig,
    SvrConfig,
)
from aqa.regress.data import load
from aqa.regress.experiments import EXPERIMENTS, fine_tune, single_vs_all, zero_shot
from aqa.regress.experiments.compare import compare, train
from aqa.regress.experiments.result import to_json
from aqa.regress.experiments.study import open_study

WIDTH = 6
SURGEONS = "ABCD"
CONFIG = CompareConfig(
    seeds=2,
    split=SplitConfig(leave_one_out="surgeon"),
    schedule=Schedule(iterations=12, step=6, learning_rate=0.02, batch=4),
    fine_tune=FineTuneConfig(few=(FineTuneSetting(4, 6, 3),), test=6, every=3),
    lstm=LstmConfig(hidden=4),
    svr=SvrConfig(kernels=("linear",), costs=(1.0,), epsilons=(0.1,), folds=3),
    untrained=3,
    bootstrap=100,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Two tasks by four surgeons, one copy per sample, no split of their own."""
    generator = np.random.default_rng(0)
    samples, features = [], []
    for action in ("knot_tying", "suturing"):
        for number in range(16):
            surgeon = SURGEONS[number % 4]
            quality = generator.normal() + SURGEONS.index(surgeon)
            extra = {"surgeon": surgeon, "fold": str(number % 3)}
            key = f"{action}/{number:03d}"
            samples.append(
                Sample(key, action, "", 15 + 3 * quality, 0, "", extra=extra)
            )
            made = generator.normal(size=(1, 3, WIDTH)) + 0.5 * quality
            features.append(made.astype(np.float32))
    path = tmp_path_factory.mktemp("folds") / "features.h5"
    return write_cache(path, samples, features, Provenance({"features": "made"}))


@pytest.fixture(scope="module")
def results(cache, tmp_path_factory):
    return compare(cache, ["all"], CONFIG, tmp_path_factory.mktemp("out"))


def test_svr_predictions_are_those_of_scikit_learns_group_folds(cache, results):
    features = load(cache)
    rows = np.flatnonzero(features.action == "suturing")
    means = features.x[rows, 0].mean(1, dtype=np.float64)
    score, groups = features.score[rows], features.extra["surgeon"][rows]

    class Scaled(SVR):
        """Scores over the standard deviation of the training part."""

        def fit(self, x, y):
            self.std_ = np.std(y, ddof=1)
            # The kernel is divided by the number of columns.
            return super().fit(x / np.sqrt(WIDTH), y / self.std_)

        def predict(self, x):
            return super().predict(x / np.sqrt(WIDTH)) * self.std_

    model = make_pipeline(StandardScaler(), Scaled(kernel="linear", C=1.0, epsilon=0.1))
    folds = GroupKFold(len(SURGEONS))
    expected = cross_val_predict(model, means, score, groups=groups, cv=folds)
    cell = results[0].cells["single-action SVR"]["suturing"]
    np.testing.assert_array_equal(cell.tests[0].rows, rows)
    for found in cell.predicted:
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    # The heads are ranked together at one mean over all samples.
    whole = [
        clone(model).fit(means[inside], score[inside]).predict(means).mean()
        for inside, _ in folds.split(means, score, groups)
    ]
    aligned = expected.copy()
    for mean, (_, outside) in zip(
        whole, folds.split(means, score, groups), strict=True
    ):
        aligned[outside] -= mean
    for ranked in cell.ranked:
        found = ranked - ranked.mean()
        np.testing.assert_allclose(found, aligned - aligned.mean(), atol=0.01)
    np.testing.assert_allclose(cell.rho, spearmanr(aligned, score).statistic)


def test_each_sample_is_predicted_once_and_each_fold_has_its_numbers(results):
    for result in results:
        for columns in result.cells.values():
            for cell in columns.values():
                for test, predicted in zip(cell.tests, cell.predicted, strict=True):
                    assert len(set(test.rows)) == len(predicted) == 16
                    assert np.isfinite(predicted).all()
    report = to_json(results[0].report)
    cell = report["rows"][1]["per_action"]["suturing"]
    assert list(cell["per_fold"]) == [f"surgeon {name}" for name in SURGEONS]
    assert sum(fold["n_test"] for fold in cell["per_fold"].values()) == 16
    assert report["samples"]["suturing"] == {"train": 12, "test": 16}
    assert any("leave one surgeon out" in note for note in report["notes"])
    assert any("other groups like these" in note for note in report["notes"])
    assert "split: leave one surgeon out" in report["settings"]["differs_from_paper"][0]


def test_intervals_resample_the_groups_that_are_left_out(cache):
    study = open_study(cache, CONFIG)
    surgeon = study.features.extra["surgeon"]
    drawn = {}
    for test in study.tests.values():
        assert test.groups == len(SURGEONS)
        for place, row in enumerate(test.rows):
            counts = test.resamples.counts[:, place]
            # A surgeon is drawn as often in one action as in the other.
            np.testing.assert_array_equal(
                drawn.setdefault(surgeon[row], counts), counts
            )
    given = replace(CONFIG, split=SplitConfig(folds="fold"))
    assert open_study(cache, given).tests["suturing"].groups is None


@pytest.mark.parametrize(
    "split",
    [
        SplitConfig(folds=4, seed=1),
        SplitConfig(folds="fold"),
        SplitConfig(leave_one_out="surgeon"),
    ],
)
def test_nothing_of_a_folds_test_samples_enters_its_heads(cache, tmp_path, split):
    """Replace one fold's test labels and features: that fold trains the same."""
    config = replace(CONFIG, split=split, seeds=1, label_scale="zscore")
    study = open_study(cache, config)
    number = 1
    tested = study.folds[number].test_rows(study.actions)
    score, x = study.features.score.copy(), study.features.x.copy()
    score[tested] = np.random.default_rng(0).permutation(score[tested]) * 3 + 7
    x[tested[1:]] += 100

    def spoilt(features):
        return replace(features, score=score, x=x, feature_sha256=None, shared=None)

    folds = [replace(f, features=spoilt(f.features)) for f in study.split.folds]
    # The label scales of its folds are learnt from the spoilt scores.
    split = replace(study.split, folds=tuple(folds))
    other = replace(study, features=spoilt(study.features), split=split)
    name = study.folds[number].name
    outcomes = []
    for each in (study, other):
        tasks = [
            (owner, task)
            for module in (single_vs_all, zero_shot, fine_tune)
            for owner, task in module.needs([each])
            if name in task.name
        ]
        assert len(tasks) == 20
        for _, task in tasks:
            assert not set(task.rows) & set(tested)
        trained = train([each], tasks, tmp_path / str(id(each)), lambda *_: None)
        outcomes.append([trained.outcomes["", kind] for kind in ("lstm", "svr")])
    (heads, svrs), (spoilt_heads, spoilt_svrs) = outcomes
    assert set(heads) == set(spoilt_heads) and set(svrs) == set(spoilt_svrs)
    for task, head in heads.items():
        for array, value in head.parameters.items():
            np.testing.assert_array_equal(value, spoilt_heads[task].parameters[array])
        kept = [place for place, row in enumerate(task.watch) if row == tested[0]]
        np.testing.assert_array_equal(
            head.watched[:, kept], spoilt_heads[task].watched[:, kept]
        )
    for task, tried in svrs.items():
        kept = task.tests.index(tested[0])
        np.testing.assert_array_equal(
            tried.predicted[:, kept], spoilt_svrs[task].predicted[:, kept]
        )


@pytest.mark.slow
def test_variants_stand_beside_the_papers_way(cache, tmp_path):
    config = replace(CONFIG, variants=True, seeds=2)
    single, zero = compare(cache, ["single-vs-all", "zero-shot"], config, tmp_path)
    names = [row.name for row in single.report.rows]
    assert names[4:] == [
        "single-action SVR, z-scored labels",
        "single-action LSTM, z-scored labels",
        "all-action LSTM, z-scored labels",
        "all-action SVR, z-scored labels",
        "single-action LSTM, rank loss",
        "all-action LSTM, rank loss",
    ]
    compared = {(each.better, each.other) for each in single.report.claims}
    assert ("all-action LSTM, rank loss", "all-action LSTM") in compared
    assert ("all-action SVR, z-scored labels", "all-action SVR") in compared
    alone = compare(
        cache, ["single-vs-all"], replace(CONFIG, label_scale="zscore"), tmp_path
    )
    rows = {row.name: row for row in single.report.rows}
    for row in alone[0].report.rows:
        beside = rows[f"{row.name}, z-scored labels"]
        assert beside.per_action == row.per_action
    assert "multi-action, rank loss" in {row.name for row in zero.report.rows}


def test_an_experiment_is_one_module_and_one_line(cache, tmp_path, monkeypatch, aqa):
    """A new experiment: does a head of one action rank the others' samples?"""
    from aqa.regress.experiments.result import Report, Result, opening
    from aqa.regress.experiments.rows import RowPlan, judge_rows

    module = ModuleType("first_action_only")

    def plan(study):
        first = study.actions[:1]
        return RowPlan("first action", "single-action", "svr", study, lambda _: first)

    def needs(studies):
        return plan(studies[0]).needs()

    def evaluate(studies, trained):
        study = studies[0]
        table, rows = judge_rows([plan(study)], trained)
        report = Report(
            **opening(study, "first-action"),
            rows=rows,
            claims=[],
            findings=["one finding"],
            paper=None,
        )
        question = "Does the first action's head rank all?"
        keys = study.features.key
        return Result(report, table, keys, "First action", question, ("t", "rho"))

    module.needs, module.evaluate = needs, evaluate
    monkeypatch.setitem(sys.modules, "first_action_only", module)
    monkeypatch.setitem(EXPERIMENTS, "first-action", "first_action_only")
    (result,) = compare(cache, ["first-action"], CONFIG, tmp_path)
    assert result.report.rows[0].average.actions == 2
    page = (tmp_path / "report.html").read_text()
    assert "Does the first action" in page and "one finding" in page
    assert (tmp_path / "figures" / "first-action.svg").is_file()
