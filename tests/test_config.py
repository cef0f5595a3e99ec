"""Settings come from defaults, a TOML file and options, in this order."""

from dataclasses import replace

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
    ],
)
def test_bad_settings_are_named(tmp_path, text, message):
    file = tmp_path / "study.toml"
    file.write_text(text)
    with pytest.raises(AqaError, match=message):
        configured(FitConfig(), file, {})


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
