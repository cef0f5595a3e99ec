"""Settings come from defaults, a TOML file and options, in this order."""

from dataclasses import replace

import numpy as np
import pytest

from aqa.cache.errors import AqaError
from aqa.regress.config import (
    CompareConfig,
    FineTuneSetting,
    FitConfig,
    Schedule,
    configured,
    unlike_paper,
)

STUDY = """
iterations = 1000
label_scale = "zscore"
actions = ["diving", "gym_vault"]
standardise = true

[schedule]
learning_rate = 1

[lstm]
hidden = 64

[svr]
costs = [1, 10.0]
nu = 0.5

[split]
folds = "fold"
"""


@pytest.fixture
def study(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(STUDY)
    return file


def test_any_field_can_stand_in_a_file(study):
    config = configured(FitConfig(), study, {})
    assert config.label_scale == "zscore" and config.standardise is True
    assert config.actions == ("diving", "gym_vault")
    assert config.schedule == replace(Schedule(), learning_rate=1.0)
    assert isinstance(config.schedule.learning_rate, float)
    assert config.lstm.hidden == 64 and config.lstm.init_std == 0.1
    assert config.svr.costs == (1.0, 10.0) and config.svr.nu == 0.5
    assert config.split.folds == "fold"


def test_options_replace_the_file(study):
    options = {"hidden": 8, "label_scale": "std", "seeds": None, "folds": 5, "step": 7}
    config = configured(CompareConfig(), study, options)
    assert config.lstm.hidden == 8 and config.label_scale == "std"
    assert config.split.folds == 5 and config.seeds == 1
    # The step is that of the training as it runs, 1,000 iterations long.
    assert config.schedule.scaled(config.scale).step == 7


def test_tables_of_a_list(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(
        "[fine_tune]\ntest = 20\n"
        "[[fine_tune.few]]\nn_train = 5\niterations = 10\nstep = 3\n"
    )
    config = configured(CompareConfig(), file, {})
    assert config.fine_tune.few == (FineTuneSetting(5, 10, 3),)
    assert config.fine_tune.settings == CompareConfig().fine_tune.settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("iteration = 3", "unknown setting 'iteration'; did you mean iterations?"),
        ("[lstm]\nhiden = 3", r"lstm: unknown setting 'hiden'; did you mean hidden?"),
        ("xyz = 3", "unknown setting 'xyz'; known: actions"),
        ("iterations = 1.5", "iterations: expected int"),
        ("iterations = true", "iterations: expected int"),
        ("label_scale = 3", "label_scale: expected str, found 3"),
        ("schedule = 3", "schedule: expected Schedule, found 3"),
        ("[svr]\ncosts = ['a']", "costs: expected float, found 'a'"),
        ("[schedule]\ngamma = nan", "gamma: expected float"),
        ("iterations =", "not TOML"),
        ("iterations = 0", "iterations: expected at least 1, found 0"),
        ("seed = -1", "seed: expected at least 0, found -1"),
        ("calibration_folds = -1", "calibration_folds: expected at least 0"),
        ("[schedule]\niterations = 0", "schedule: iterations: expected at least 1"),
        ("[schedule]\nbatch = 0", "batch: expected at least 1, found 0"),
        ("[schedule]\ngamma = 0", "gamma: expected a number above 0, found 0.0"),
        ("[schedule]\nlearning_rate = inf", "a number above 0, found inf"),
        ("[lstm]\nhidden = -3", "lstm: hidden: expected at least 1, found -3"),
        ("[svr]\ncosts = []", "costs: expected one candidate or more, found none"),
        ("[svr]\ncosts = [1, 0]", "costs: expected a number above 0, found 0.0"),
        ("[svr]\nepsilons = [-1]", "epsilons: expected at least 0, found -1.0"),
        ("[svr]\nnu = 2", "nu: expected above 0, at most 1, found 2.0"),
        ("[svr]\nfolds = 1", "folds: expected at least 2, found 1"),
        ("[split]\nseed = -1", "split: seed: expected at least 0"),
    ],
)
def test_bad_settings_are_named(tmp_path, text, message):
    file = tmp_path / "study.toml"
    file.write_text(text)
    with pytest.raises(AqaError, match=message):
        configured(FitConfig(), file, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": "5"}, "iterations: expected int, found '5'"),
        ({"hidden": 2.5}, "hidden: expected int, found 2.5"),
        ({"folds": 2.5}, "folds: expected int, found 2.5"),
        ({"actions": "squat"}, "actions: expected list, found 'squat'"),
        ({"standardise": "no"}, "standardise: expected bool, found 'no'"),
        ({"schedule": 5}, "schedule: expected Schedule, found 5"),
        ({"lstm": {"hiden": 3}}, "did you mean hidden"),
        ({"untrained": 0}, "untrained: expected at least 1, found 0"),
        ({"bootstrap_seed": -1}, "bootstrap_seed: expected at least 0, found -1"),
        ({"fine_tune": {"few": [{"n_train": 5}]}}, "expected iterations, step as well"),
    ],
)
def test_options_are_checked_as_files_are(options, message):
    with pytest.raises(AqaError, match=message):
        configured(CompareConfig(), None, options)


def test_numbers_of_numpy_and_lists_are_taken():
    options = {"seed": np.int64(3), "actions": ["squat"], "gamma": np.float32(0.25)}
    config = configured(FitConfig(), None, options)
    assert type(config.seed) is int and config.seed == 3
    assert config.actions == ("squat",) and config.schedule.gamma == 0.25


def test_differences_from_the_paper_are_listed():
    assert unlike_paper(FitConfig(), "c3d") == []
    config = configured(
        FitConfig(), None, {"hidden": 64, "iterations": 2_000, "loss": "rank"}
    )
    assert unlike_paper(config, "pose-dct") == [
        "iterations 2,000 (paper: 20,000)",
        "step 300 (paper: 3,000)",
        "hidden 64 (paper: 256)",
        "loss rank (paper: squared)",
        "standardised inputs yes (paper: no)",
    ]
