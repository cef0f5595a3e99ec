"""Which actions can be judged, what is said of the others, and whose data it is."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import write_cache
from aqa.regress.config import CompareConfig
from aqa.regress.experiments.fine_tune import columns_of, draw
from aqa.regress.experiments.paper import released as is_released
from aqa.regress.experiments.rows import near_random
from aqa.regress.experiments.study import open_study

CONFIG = CompareConfig(bootstrap=10)


def write(path, samples):
    """A cache of samples (key, action, split, score); the features do not matter."""
    rows = [Sample(*sample, 100, "") for sample in samples]
    features = (np.full((1, 1, 2), i, np.float32) for i in range(len(rows)))
    return write_cache(path, rows, features, Provenance({"features": "c3d"}))


def action(name, train, test):
    """Samples of one action: numbers of training and test samples, or their scores."""
    if isinstance(train, int):
        train, test = range(train), range(test)
    lists = {"train": train, "test": test}
    return [
        (f"{name}/{split}-{i:03d}", name, split, float(score))
        for split, scores in lists.items()
        for i, score in enumerate(scores)
    ]


@pytest.fixture
def released(released, tmp_path):
    """A cache with the author's own lists."""
    rows = [(key, name, *more) for name in released for key, *more in released[name]]
    return write(tmp_path / "released.h5", sorted(rows))


def test_actions_stand_in_the_data_sets_order_without_trampoline(tmp_path):
    names = ("trampoline", "rings", "gym_vault", "diving", "beam")
    samples = [sample for name in names[1:] for sample in action(name, 4, 4)]
    lists = ["train", "test"] * 4
    samples += [
        (f"trampoline/{i:03d}", "trampoline", split, 40.0 + i)
        for i, split in enumerate(lists)
    ]
    study = open_study(write(tmp_path / "f.h5", samples), CONFIG)
    assert study.actions == ("diving", "gym_vault", "beam", "rings")
    assert study.notes[0].startswith("left out: AQA-7's trampoline, as in the paper")
    asked = replace(CONFIG, actions=("trampoline", "diving"))
    assert open_study(tmp_path / "f.h5", asked).actions == ("diving", "trampoline")


def test_an_own_action_may_be_called_trampoline(tmp_path):
    samples = [s for name in ("rings", "trampoline") for s in action(name, 4, 4)]
    study = open_study(write(tmp_path / "f.h5", samples), CONFIG)
    assert study.actions == ("trampoline", "rings")
    assert not [note for note in study.notes if "left out" in note]


def test_what_cannot_be_judged_is_left_out_and_named(tmp_path):
    samples = [
        *action("diving", 5, 3),
        *action("gym_vault", 5, 2),
        *action("ski_big_air", 0, 5),
        *action("snowboard_big_air", [7, 7, 7], [1, 2, 3]),
        ("diving/none", "diving", "test", float("nan")),
    ]
    study = open_study(write(tmp_path / "f.h5", samples), CONFIG)
    assert study.actions == ("diving",)
    notes = "\n".join(study.notes)
    assert "left out: gym_vault: 2 labelled test samples" in notes
    assert "left out: ski_big_air: no labelled training sample" in notes
    assert "left out: snowboard_big_air: all 3 training scores are 7" in notes
    assert "not in this cache: sync_diving_3m, sync_diving_10m" in notes
    assert "1 sample without a score is not used" in notes


def test_no_action_at_all_is_an_error_that_says_why(tmp_path):
    cache = write(tmp_path / "f.h5", action("diving", 5, 2))
    with pytest.raises(AqaError, match="no action can be judged .*2 labelled test"):
        open_study(cache, CONFIG)
    nan = float("nan")
    cache = write(tmp_path / "g.h5", action("diving", [nan] * 3, [nan] * 3))
    with pytest.raises(AqaError, match="no action is labelled"):
        open_study(cache, CONFIG)


def test_labels_are_scaled_by_training_scores_alone(tmp_path):
    train, test = [10.0, 20.0, 60.0], [1000.0, 2000.0, 3000.0]
    study = open_study(write(tmp_path / "f.h5", action("diving", train, test)), CONFIG)
    deviation = np.std(train, ddof=1)
    [fold] = study.folds
    assert fold.scale.scale == {"diving": pytest.approx(deviation)}
    np.testing.assert_allclose(
        fold.targets(fold.train_rows(["diving"])), train / deviation
    )


def test_an_actions_resamples_do_not_depend_on_the_other_actions(tmp_path):
    both = [*action("diving", 4, 5), *action("gym_vault", 4, 5)]
    study = open_study(write(tmp_path / "f.h5", both), CONFIG)
    alone = open_study(tmp_path / "f.h5", replace(CONFIG, actions=("gym_vault",)))
    counts = [each.tests["gym_vault"].resamples.counts for each in (study, alone)]
    np.testing.assert_array_equal(*counts)
    assert (study.tests["diving"].resamples.counts != counts[0]).any()


def test_the_released_lists_are_recognised_and_their_floor_is_known(released):
    study = open_study(released, CONFIG)
    [fold] = study.folds
    assert len(fold.train_rows(study.actions)) == 803
    assert len(fold.test_rows(study.actions)) == 303
    assert is_released(study)
    assert study.floor == pytest.approx(0.837, abs=5e-4)
    assert is_released(open_study(released, replace(CONFIG, actions=("diving",))))


def test_fine_tuning_sizes_of_the_released_lists_are_the_papers(released):
    study = open_study(released, CONFIG)
    columns, notes = columns_of(study)
    assert notes == []
    found = {}
    for column in columns:
        found.setdefault(column.action, []).append(column.n_train)
        assert column.n_test == 50
        asked = column.asked
        assert (asked.iterations, asked.step) == {
            125: (2000, 500),
            75: (1200, 300),
            35: (700, 140),
            25: (500, 100),
            15: (300, 60),
        }[asked.n_train]
    few = [15, 25, 35]
    assert found == {
        name: few if name.startswith("sync") else [25, 75, 125]
        for name in study.actions
    }


def test_drawn_samples_are_disjoint_nested_and_fixed_by_seed(released):
    study = open_study(released, CONFIG)
    [fold] = study.folds
    smaller = {}
    for column in columns_of(study)[0]:
        train, test = map(set, draw(study, column, fold, 3))
        assert (len(train), len(test)) == (column.n_train, 50)
        assert not test & train
        before = smaller.setdefault(column.action, [(set(), test)])
        assert before[-1][0] < train and before[-1][1] == test
        before.append((train, test))
        assert [set(rows) for rows in draw(study, column, fold, 3)] == [train, test]
        assert set(draw(study, column, fold, 4)[1]) != test
        assert set(study.features.split[list(test)]) == {"train", "test"}


def test_small_data_sets_get_sizes_in_proportion_and_say_so(tmp_path):
    samples = [*action("diving", 30, 5), *action("sync_diving_3m", 13, 4)]
    study = open_study(write(tmp_path / "f.h5", samples), CONFIG)
    columns, notes = columns_of(study)
    # 35 of 175: a fifth. 17 of 85: a fifth.
    sizes = {"diving": (5, 15, 25), "sync_diving_3m": (3, 5, 7)}
    assert [(c.action, c.n_train, c.n_test) for c in columns] == [
        (name, n, 10) for name, each in sizes.items() for n in each
    ]
    assert len(notes) == 1
    assert "Diving tests on 10 and trains on 5, 15, 25" in notes[0]
    assert "Sync. 3m tests on 10 and trains on 3, 5, 7" in notes[0]


def test_settings_that_cannot_be_had_are_skipped_by_name(tmp_path):
    samples = [
        *action("sync_diving_3m", range(5), range(10, 13)),
        *action("sync_diving_10m", range(4), range(10, 13)),
    ]
    study = open_study(write(tmp_path / "f.h5", samples), CONFIG)
    columns, notes = columns_of(study)
    names = ["sync_diving_3m n=2", "sync_diving_3m n=3", "sync_diving_10m n=2"]
    assert [column.name for column in columns] == names
    assert "skipped Sync. 3m for n = 15: 1 training sample, 2 are needed" in notes[1]
    assert "skipped Sync. 10m for n = 35: it would be n = 2 again" in notes[3]


def test_an_unknown_actions_sizes_follow_its_own_number_of_samples(tmp_path):
    samples = [*action("rings", 120, 60), *action("beam", 70, 20)]
    columns, _ = columns_of(open_study(write(tmp_path / "f.h5", samples), CONFIG))
    sizes = {"beam": (15, 25, 35), "rings": (25, 75, 125)}
    expected = [f"{name} n={n}" for name, each in sizes.items() for n in each]
    assert [column.name for column in columns] == expected


def test_rows_whose_interval_is_missing_are_not_said_to_cover_zero():
    ends = {"a": (0.1, 0.5), "b": (-0.1, 0.5), "c": (np.nan, np.nan)}
    ends["b, pose-clips"] = (-0.2, 0.1)
    averages = {
        name: SimpleNamespace(ci95={"fisher_z": each}) for name, each in ends.items()
    }
    assert near_random({"a": averages["a"]}) == []
    covering, missing = near_random(averages)
    assert "covers zero for b; b, pose-clips: not" in covering
    assert "no interval for c: " in missing
