"""The experiments on data whose truth is known: they must find it, and no more.

Quality is a direction of the features: shared by all actions, private to each, or
absent. Each truth is run once, small; what the reports say of it is judged here.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from fakes import compare

from aqa.regress.config import (
    CompareConfig,
    FineTuneConfig,
    FineTuneSetting,
    LstmConfig,
    Schedule,
    SvrConfig,
)

pytestmark = pytest.mark.slow

ACTIONS = ("diving", "gym_vault", "ski_big_air", "snowboard_big_air")
# Small initial weights: what was never trained on must not show through them.
CONFIG = CompareConfig(
    seeds=2,
    schedule=Schedule(iterations=150, step=75, learning_rate=0.02),
    fine_tune=FineTuneConfig(
        settings=(FineTuneSetting(10, 30, 10),),
        few=(FineTuneSetting(10, 30, 10),),
        test=40,
        every=10,
    ),
    lstm=LstmConfig(hidden=8, init_std=0.02),
    svr=SvrConfig(kernels=("linear",), costs=(0.1, 1.0), epsilons=(0.1,), repeats=2),
    bootstrap=1_000,
)

#: The paper's rate, a twentieth of its length.
LONGER = Schedule(iterations=1_000, step=400)


@pytest.fixture(scope="module")
def found(plant, tmp_path_factory):
    """The three reports for a truth, run once a truth."""
    known = {}

    def run(truth):
        if truth not in known:
            folder = tmp_path_factory.mktemp(truth)
            counts = dict.fromkeys(ACTIONS, (60, 40))
            cache = plant(folder / "features.h5", truth, counts)
            reports = compare(cache, ["all"], CONFIG, folder / "out")
            known[truth] = SimpleNamespace(
                single=reports[0],
                zero_shot=reports[1],
                fine_tune=reports[2],
                page=(folder / "out" / "report.html").read_text(),
            )
        return known[truth]

    return run


def row(report, name):
    return next(row for row in report["rows"] if row["name"] == name)


def average(report, name):
    return row(report, name)["average"]["fisher_z"]


def interval(report, name):
    return row(report, name)["average"]["ci95"]["fisher_z"]


def test_shared_quality_is_found_in_an_action_never_seen(found):
    report = found("shared").zero_shot
    low, _ = interval(report, "multi-action")
    assert low > 0.3
    for action in ACTIONS:
        assert row(report, "multi-action")["per_action"][action]["ci95"][0] > 0
    claim = report["claims"][0]["average"]["fisher_z"]
    assert claim["probability"] > 0.97
    assert claim["ci95"][0] > 0
    assert "is better than random" in report["findings"][0]


def test_shared_quality_makes_more_actions_better_than_one(found):
    single = found("shared").single
    assert average(single, "all-action LSTM") > average(single, "single-action LSTM")
    assert average(single, "all-action SVR") > average(single, "single-action SVR")
    assert single["claims"][0]["average"]["fisher_z"]["probability"] > 0.9
    zero_shot = found("shared").zero_shot
    alone = [average(zero_shot, action) for action in ACTIONS]
    assert average(zero_shot, "multi-action") > max(alone)


def test_shared_quality_makes_fine_tuning_start_high(found):
    report = found("shared").fine_tune
    start, last = (
        {
            init: report["averages"][init][moment]["fisher_z"]
            for init in report["averages"]
        }
        for moment in ("start", "last")
    )
    assert start["multi-action"] > 0.4
    assert abs(start["random"]) < 0.3
    assert last["multi-action"] > last["random"]
    assert report["claims"][0]["average"]["fisher_z"]["probability"] > 0.9


def test_the_papers_own_head_finds_shared_quality(plant, tmp_path):
    """256 hidden units, initial weights of 0.1: only the training is shorter."""
    counts = dict.fromkeys(ACTIONS, (60, 40))
    cache = plant(tmp_path / "features.h5", "shared", counts)
    config = replace(CONFIG, seeds=1, lstm=LstmConfig(), schedule=LONGER)
    (report,) = compare(cache, ["single-vs-all"], config, tmp_path / "out")
    for mode in ("single-action", "all-action"):
        assert interval(report, f"{mode} LSTM")[0] > 0.3


def test_private_quality_does_not_transfer(found):
    report = found("private").zero_shot
    low, high = interval(report, "multi-action")
    assert low < 0 < high
    assert abs(average(report, "multi-action")) < 0.2
    assert "do not settle" in report["findings"][0]
    assert any("no transfer to these is shown" in text for text in report["findings"])


def test_private_quality_is_learnt_where_it_is_trained_on(found):
    truth = found("private")
    for name in ("single-action SVR", "single-action LSTM"):
        assert interval(truth.single, name)[0] > 0.2
    matched = [
        row(truth.zero_shot, action)["per_action"][action]["mean"] for action in ACTIONS
    ]
    assert min(matched) > 0
    assert sum(matched) / len(matched) > 0.3
    assert abs(truth.fine_tune["averages"]["multi-action"]["start"]["fisher_z"]) < 0.25


def test_noise_is_called_noise(found):
    truth = found("noise")
    for report in (truth.single, truth.zero_shot):
        for found_row in report["rows"]:
            low, high = found_row["average"]["ci95"]["fisher_z"]
            assert low < 0 < high
            assert abs(found_row["average"]["fisher_z"]) < 0.2
        assert any("a random ranking" in text for text in report["findings"])
    for init in ("random", "multi-action"):
        last = truth.fine_tune["averages"][init]["last_over_samples"]
        low, high = last["ci95"]["fisher_z"]
        assert low < 0 < high
    assert any("a random ranking" in text for text in truth.fine_tune["findings"])
    for report in (truth.single, truth.zero_shot, truth.fine_tune):
        assert "do not settle which is better" in report["claims"][0]["words"]
        assert 0.02 < report["claims"][0]["average"]["fisher_z"]["probability"] < 0.98
    assert "do not settle which is better" in truth.page
