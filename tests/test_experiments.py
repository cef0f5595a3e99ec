"""The experiments run together: what they share, report, refuse and never look at."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from fakes import compare

from aqa.cache.errors import AqaError
from aqa.cache.labels import read_labels, relabel
from aqa.regress.data import load
from aqa.regress.experiments import fine_tune, single_vs_all, zero_shot
from aqa.regress.experiments.compare import train
from aqa.regress.experiments.study import open_study
from aqa.regress.heads import trials
from aqa.regress.heads.tasks import HeadTask
from aqa.regress.heads.trials import Trial, train_tasks


def tasks_of(study, kind, *modules):
    """Return each task of a kind that experiments need, starts before the rest."""
    tasks = [task for module in modules for _, task in module.needs([study])]
    starts = [task.init for task in tasks if isinstance(task, HeadTask) and task.init]
    found = dict.fromkeys([*starts, *tasks])
    return [task for task in found if isinstance(task, kind)]


@pytest.fixture
def quick(compared):
    """The settings of `compared` with one seed and one copy."""
    return replace(compared.config, average_offsets=False, seeds=1)


def test_the_report_is_strict_json_and_what_compare_returns(compared):
    text = (compared.out / "report.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert found["experiment"] == "all"
    assert found["reports"] == compared.reports
    names = [report["experiment"] for report in compared.reports]
    assert names == ["single-vs-all", "zero-shot", "fine-tune"]
    for report in compared.reports:
        assert {"created_with", "settings", "rows"} <= set(report)
        assert report["provenance"] == {"features": "c3d", "arch": "planted"}
        assert report["seeds"] == [0, 1]
        assert report["samples"]["diving"] == {"train": 14, "test": 8}
        assert report["paper"] is None
        assert report["floor"]["pooled_action_mean"] is not None
        assert report["settings"]["paper_length"] is False
        assert report["settings"]["schedule"]["iterations"] == 24
        assert report["settings"]["schedule"]["step"] == 10
        assert any("not the paper's length" in note for note in report["notes"])


def test_single_vs_all_rows(compared):
    report = compared.reports[0]
    kinds = [
        "single-action SVR",
        "single-action LSTM",
        "all-action LSTM",
        "all-action SVR",
    ]
    assert [row["name"] for row in report["rows"]] == [
        *kinds,
        *(f"{kind}, mean of 2 copies" for kind in kinds),
        "single-action SVR, pose-dct",
        "all-action SVR, pose-dct",
        "single-action nu-SVR, pose-dct",
    ]
    for row in report["rows"]:
        assert list(row["per_action"]) == list(report["samples"])
        cell = row["per_action"]["diving"]
        assert len(cell["spearman"]) == 2
        assert cell["mean"] == pytest.approx(np.mean(cell["spearman"]))
        assert cell["n_test"] == 8
        cells = row["per_action"].values()
        rho = np.array([cell["spearman"] for cell in cells])  # (actions, seeds)
        z = np.arctanh([limited(cell) for cell in cells])
        assert row["average"]["fisher_z"] == pytest.approx(np.tanh(z.mean(0)).mean())
        assert row["average"]["arithmetic"] == pytest.approx(rho.mean())


def limited(cell):
    """rho per seed, a perfect ranking as what it counts."""
    limit = 1 - 6 / (cell["n_test"] ** 3 - cell["n_test"])
    return np.clip(cell["spearman"], -limit, limit)


def test_a_claim_is_the_difference_of_the_rows_that_it_names(compared):
    for report in compared.reports[:2]:
        rows = {row["name"]: row for row in report["rows"]}
        for claim in report["claims"]:
            better, other = rows[claim["better"]], rows[claim["other"]]
            for action, found in claim["per_column"].items():
                a, b = (limited(row["per_action"][action]) for row in (better, other))
                assert found["difference"] == pytest.approx(np.mean(a) - np.mean(b))


def test_what_each_svr_chose_is_on_record(compared):
    rows = {row["name"]: row for row in compared.reports[0]["rows"]}
    for seeds in rows["single-action SVR"]["choices"].values():
        assert [choice["kernel"] for choice in seeds] == ["linear"] * 2
        assert {choice["cost"] for choice in seeds} <= {0.1, 1.0}
    named = rows["single-action nu-SVR, pose-dct"]["choices"]["diving"][0]
    assert (named["cost"], named["nu"], named["epsilon"]) == (0.001, 0.5, None)
    assert rows["all-action LSTM"]["choices"] == {}
    assert rows["single-action SVR, pose-dct"]["features"] == "pose-dct"
    assert rows["all-action SVR"]["features"] == "c3d"


def test_zero_shot_rows_leave_the_matched_case_out_of_their_average(compared):
    report = compared.reports[1]
    actions = list(report["samples"])
    assert [row["name"] for row in report["rows"]] == [
        "random",
        *actions,
        "multi-action",
        "multi-action SVR",
    ]
    for row in report["rows"]:
        matched = [name for name in actions if row["per_action"][name]["matched"]]
        assert matched == [name for name in actions if name == row["name"]]
        unseen = [row["per_action"][a]["mean"] for a in actions if a not in matched]
        assert row["average"]["arithmetic"] == pytest.approx(np.mean(unseen))
        assert row["average"]["actions"] == len(unseen)


def test_single_action_heads_are_the_same_in_both_tables(compared):
    table_2 = {row["name"]: row for row in compared.reports[0]["rows"]}
    table_3 = {row["name"]: row for row in compared.reports[1]["rows"]}
    for action in compared.reports[0]["samples"]:
        ours = table_2["single-action LSTM"]["per_action"][action]["spearman"]
        assert table_3[action]["per_action"][action]["spearman"] == ours


def test_fine_tune_rows(compared):
    rows = compared.reports[2]["rows"]
    assert {row["init"] for row in rows} == {"multi-action", "random"}
    for row in rows:
        iterations = [iteration for iteration, _ in row["curve"]]
        assert iterations[0] == 0
        assert iterations == sorted(iterations)
        assert iterations[-1] == row["iterations"]
        per_seed = np.array(row["curve_per_seed"], dtype=float)
        assert per_seed.shape == (2, len(iterations))
        assert row["best_per_seed"] == pytest.approx(np.nanmax(per_seed, axis=1))
        assert row["last_per_seed"] == pytest.approx(per_seed[:, -1], nan_ok=True)
        assert row["last"] == pytest.approx(row["curve"][-1][1])


def test_a_head_that_two_experiments_need_is_one_task(compared):
    study = open_study(compared.cache, compared.config)
    # Before the first iteration a tuned head is the multi-action one of zero-shot.
    tuned = [task for task in tasks_of(study, HeadTask, fine_tune) if task.init]
    assert {task.init for task in tuned} <= set(tasks_of(study, HeadTask, zero_shot))
    together = tasks_of(study, HeadTask, single_vs_all, zero_shot, fine_tune)
    actions, seeds, settings = 3, 2, len(compared.reports[2]["rows"]) // 2
    # Single-action, all-action, all but one, both starts; then the untrained ones.
    heads = actions + 1 + actions + 2 * settings
    assert len(together) == seeds * heads + study.config.untrained
    assert len({task.name for task in together}) == len(together)  # for messages


def test_fine_tuning_ranks_all_samples_of_its_action(compared):
    """Groups are of the samples that it trains on, not of those before."""
    study = open_study(compared.cache, replace(compared.config, loss="rank"))
    tuned = [task for task in tasks_of(study, HeadTask, fine_tune) if task.watch]
    assert tuned and all(task.groups == (0,) * len(task.rows) for task in tuned)


def test_one_seed_gives_no_verdict_and_says_what_is_left_out(compared, quick, tmp_path):
    reports = compare(compared.cache, ["all"], quick, tmp_path)
    for report in reports:
        (note,) = [note for note in report["notes"] if note.startswith("one seed")]
        assert "intervals cover test samples only" in note and "--seeds N" in note
    text = (tmp_path / "report.md").read_text()
    assert "test samples and seeds" not in text
    assert "no verdict" in text and "is better than" not in text
    text = (compared.out / "report.md").read_text()
    assert "test samples and seeds" in text and "order: no verdict" not in text


def test_poses_follow_the_split_and_say_so(compared):
    said = ["Pirsiavash" in "".join(report["notes"]) for report in compared.reports]
    assert said == [True, False, False]


def test_an_svr_that_was_stopped_is_named(compared, quick, tmp_path, monkeypatch):
    monkeypatch.setattr("aqa.regress.heads.svr.MOST_ITERATIONS", 1)
    config = replace(quick, actions=("diving",))
    (report,) = compare(compared.cache, ["single-vs-all"], config, tmp_path)
    (note,) = [note for note in report["notes"] if "before it converged" in note]
    assert "single-action SVR on diving" in note
    assert not any("converged" in n for n in compared.reports[0]["notes"])


def test_fine_tunings_test_sets_are_resampled_as_one_pool(compared):
    """What two seeds draw from one pool varies together in each resample."""
    study = open_study(compared.cache, compared.config)
    rows = study.listed_rows("diving")
    a, b = study.held_out("diving", rows[3:9]), study.held_out("diving", rows[5:12])
    np.testing.assert_array_equal(a.resamples.counts[:, 2:], b.resamples.counts[:, :4])
    assert len(set(a.resamples.counts.sum(1))) > 1


def test_a_second_run_trains_nothing_and_writes_the_same(compared, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr("aqa.regress.heads.workers.train_side_by_side", refuse)
    monkeypatch.setattr("aqa.regress.heads.svr.fit_svr", refuse)
    names = ("report.json", "report.md", "report.html", "numbers.csv")
    before = [(compared.out / name).read_bytes() for name in names]
    again = compare(
        compared.cache, ["all"], compared.config, compared.out, also=[compared.poses]
    )
    assert again == compared.reports
    assert [(compared.out / name).read_bytes() for name in names] == before


def test_progress_rises_to_its_total(compared, quick, tmp_path):
    seen = []
    arguments = (compared.cache, ["single-vs-all"], quick, tmp_path)
    compare(*arguments, lambda *step: seen.append(step))
    done = [step[0] for step in seen]
    assert done == sorted(done)
    assert len({step[1] for step in seen}) == 1
    assert seen[-1][0] == pytest.approx(seen[-1][1])


def test_test_labels_change_no_head_and_no_prediction(compared, quick, tmp_path):
    """Leakage: scale every test label anew; all that is fitted must stay the same."""
    spoilt = tmp_path / "spoilt.h5"
    spoilt.write_bytes(compared.cache.read_bytes())
    features = load(spoilt)
    labels = tmp_path / "labels.csv"
    with labels.open("w") as file:
        table = csv.writer(file)
        table.writerow(("key", "action", "score", "split"))
        for row in np.flatnonzero(features.split == "test"):
            key, action = features.key[row], features.action[row]
            table.writerow((key, action, 50 + row * 7 % 13, "test"))
    relabel(spoilt, read_labels(labels), doubtful=True)
    predicted = {}
    for name, cache in (("kept", compared.cache), ("spoilt", spoilt)):
        study = open_study(cache, quick)
        modules = (single_vs_all, zero_shot)
        tasks = [task for module in modules for task in module.needs([study])]
        trained = train([study], tasks, tmp_path / name, lambda *_: None)
        heads, svrs = (trained.outcomes["", kind] for kind in ("lstm", "svr"))
        predicted[name] = [
            *(array for head in heads.values() for array in head.parameters.values()),
            *(tried.predicted for tried in svrs.values()),
        ]
        assert len(svrs) == 3 + 1 + 3
    for kept, changed in zip(predicted["kept"], predicted["spoilt"], strict=True):
        np.testing.assert_array_equal(kept, changed)


def test_fine_tuning_never_sees_the_labels_that_it_is_tested_on(compared):
    study = open_study(compared.cache, replace(compared.config, seeds=1))
    features = study.features
    tasks = [task for task in tasks_of(study, HeadTask, fine_tune) if task.watch]
    chosen = [task for task in tasks if features.action[task.watch[0]] == "diving"]
    score = features.score.copy()
    for task in chosen:
        score[list(task.watch)] += 1000
    other = replace(study, features=replace(features, score=score))
    changed = {task.name: task for task in tasks_of(other, HeadTask, fine_tune)}
    assert chosen
    for task in chosen:
        assert not set(task.rows) & set(task.watch)
        assert changed[task.name].targets == task.targets
        assert changed[task.name].rows == task.rows


def test_further_caches_must_hold_the_same_samples(compared, plant, tmp_path):
    config = replace(compared.config, actions=("diving",))
    other = plant(tmp_path / "other.h5", "noise", {"diving": (13, 9)}, kind="x")
    with pytest.raises(AqaError, match=r"other\.h5.*first diving/014") as refusal:
        compare(compared.cache, ["single-vs-all"], config, tmp_path, also=[other])
    assert "\n" not in str(refusal.value)
    with pytest.raises(AqaError, match="single-vs-all alone"):
        compare(compared.cache, ["zero-shot"], config, tmp_path, also=[other])


def test_a_further_cache_with_a_course_stands_in_the_table_as_it_would_alone(
    plant, compared, tmp_path
):
    counts = {"diving": (14, 8), "gym_vault": (14, 8)}
    config = replace(compared.config, average_offsets=False)
    good = plant(tmp_path / "good.h5", "shared", counts)
    poor = plant(tmp_path / "poor.h5", "shared", counts, kind="poor")  # same scores
    (alone,) = compare(poor, ["single-vs-all"], config, tmp_path / "alone")
    (both,) = compare(good, ["single-vs-all"], config, tmp_path / "both", also=[poor])
    rows = {row["name"]: row for row in both["rows"]}
    for row in alone["rows"]:
        beside = rows[f"{row['name']}, poor"]
        assert beside["per_action"] == row["per_action"]
    assert [(claim["better"], claim["other"]) for claim in both["claims"]] == [
        ("all-action LSTM", "single-action LSTM"),
        ("all-action SVR", "single-action SVR"),
        ("single-action LSTM", "single-action LSTM, poor"),
        ("all-action LSTM", "all-action LSTM, poor"),
    ]


@pytest.mark.parametrize(
    ("asked", "times", "message"),
    [
        (["single-vs-all"], 4, "given twice"),
        (["table-5"], 0, "expected single-vs-all, zero-shot"),
        ([], 0, "expected single-vs-all, zero-shot"),
    ],
)
def test_what_cannot_be_compared_is_refused(compared, tmp_path, asked, times, message):
    also = [compared.poses] * times
    with pytest.raises(AqaError, match=message):
        compare(compared.cache, asked, compared.config, tmp_path, also=also)


@pytest.mark.parametrize("name", ["seeds", "bootstrap", "iterations"])
def test_nothing_is_not_a_number_of_anything(compared, name):
    with pytest.raises(AqaError, match=f"{name}: expected at least 1, found 0"):
        replace(compared.config, **{name: 0})


def test_transfer_needs_a_second_action(plant, quick, tmp_path):
    cache = plant(tmp_path / "one.h5", "shared", {"diving": (8, 4)})
    for name in ("zero-shot", "fine-tune"):
        with pytest.raises(AqaError, match=f"{name}: .* diving only"):
            compare(cache, [name], quick, tmp_path / "out")
    (report,) = compare(cache, ["single-vs-all"], quick, tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved == report
    cells = {row["name"]: row["per_action"] for row in report["rows"]}
    assert cells["single-action LSTM"] == cells["all-action LSTM"]
    assert not report["claims"]
    assert any("one action only" in note for note in report["notes"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1 action, 8 to train" in page and "pooled" not in page


def test_constant_predictions_are_named_and_counted(quick, plant, tmp_path):
    """Features that never change leave every head with one prediction for all."""
    counts = {"diving": (12, 6), "gym_vault": (12, 6)}
    constant = plant(tmp_path / "constant.h5", "constant", counts)
    reports = compare(constant, ["all"], quick, tmp_path / "out")
    for row in (*reports[0]["rows"], *reports[1]["rows"]):
        assert row["average"]["fisher_z"] is None
        seeds = len(row["average"]["per_seed"]["fisher_z"])
        assert row["average"]["undefined"] == seeds * row["average"]["actions"]
        assert all(cell["mean"] is None for cell in row["per_action"].values())
    assert "undefined" in reports[0]["claims"][0]["words"]
    assert all(
        row["last"] is None and row["best"] is None for row in reports[2]["rows"]
    )
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Rho is undefined where all predictions are equal" in text
    assert "nan" not in text.lower()


def test_svrs_fitted_in_processes_are_the_same(quick, plant, tmp_path, monkeypatch):
    counts = {"diving": (8, 4), "gym_vault": (8, 4)}
    study = open_study(plant(tmp_path / "f.h5", "shared", counts), quick)
    tasks = tasks_of(study, Trial, single_vs_all)
    monkeypatch.setattr(trials, "WORTH_PROCESSES", 0)
    found = []
    for workers in (1, 2):
        config, store = replace(quick, workers=workers), tmp_path / str(workers)
        svrs = train_tasks(study.features, tasks, config, store)
        found.append([svrs[task].predicted for task in tasks])
    np.testing.assert_array_equal(*found)


def test_a_damaged_svr_in_the_store_is_named(quick, plant, tmp_path):
    cache = plant(tmp_path / "f.h5", "shared", {"diving": (8, 4)})
    study = open_study(cache, quick)
    task, *_ = tasks_of(study, Trial, single_vs_all)
    arguments = (study.features, [task], quick, tmp_path)
    first, again = (train_tasks(*arguments)[task] for _ in range(2))
    np.testing.assert_array_equal(first.predicted, again.predicted)
    assert again.choice == first.choice
    (kept,) = tmp_path.glob("*.safetensors")
    kept.write_bytes(b"not this")
    with pytest.raises(AqaError, match="remove it, and it is trained again"):
        train_tasks(*arguments)[task]
