"""The paper's numbers as carried against the record of its tables."""

import json
from dataclasses import replace

import numpy as np
import pytest
from fakes import compare

from aqa.cache.actions import BY_NAME, EXPERIMENT_ACTIONS
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import write_cache
from aqa.regress.config import CompareConfig, LstmConfig, SvrConfig
from aqa.regress.experiments import paper
from aqa.regress.experiments.paper import listed, unlisted
from aqa.regress.experiments.study import open_study

#: How the record names the rows of Table 2 that are named otherwise here.
NAMES = {
    "single-action SVR": "single-action C3D-SVR",
    "single-action LSTM": "single-action C3D-LSTM",
    "all-action LSTM": "all-action C3D-LSTM",
}


@pytest.fixture
def record(shared_data):
    return json.loads((shared_data / "paper_tables.json").read_text())


@pytest.mark.parametrize("table, name", [("TABLE_2", "table2"), ("TABLE_3", "table3")])
def test_tables_2_and_3_are_the_recorded_ones(record, table, name):
    ours = getattr(paper, table)
    assert tuple(record["actions"]) == EXPERIMENT_ACTIONS
    theirs = {row: cells for row, cells in record[name].items() if row[:7] != "average"}
    assert {NAMES.get(row, row) for row in ours} == set(theirs)
    for row, printed in ours.items():
        cells = theirs[NAMES.get(row, row)]
        found = [*printed.per_action.values(), printed.average]
        expected = [*cells["per_action"], cells["average"]]
        np.testing.assert_array_equal(found, np.array(expected, dtype=float))


def test_table_4_is_the_recorded_one(record):
    table = record["table4"]
    for start, name in {"random": "random-init", "multi-action": "all-action"}.items():
        assert paper.TABLE_4[start] == {
            action: list(rhos) for action, rhos in table[name].items()
        }


def test_the_released_lists_are_known_in_any_order(released):
    for action in EXPERIMENT_ACTIONS:
        assert len(released[action]) == BY_NAME[action].samples == listed(action)
        assert unlisted(action, reversed(released[action])) == []


def test_other_samples_with_the_same_keys_are_not_aqa7(released):
    diving = released["diving"]
    key, split, score = diving[0]
    assert unlisted("diving", [(key, split, score + 0.01), *diving[1:]]) == [key]
    assert unlisted("diving", [(key, "test", score)]) == [key]
    assert len(unlisted("rings", diving)) == len(diving)
    assert listed("rings") == 0
    for name in (
        "diving/371",
        "diving/000",
        "diving/x",
        "diving/" + "9" * 5000,
        "",
        "x/1",
    ):
        assert unlisted("diving", [(name, split, score)]) == [name]


def released_cache(released, path, kind="c3d", missing=()):
    generator = np.random.default_rng(0)
    samples = [
        Sample(key, action, split, score, 103, "")
        for action in sorted(EXPERIMENT_ACTIONS)
        for key, split, score in sorted(released[action])
        if key not in missing
    ]
    features = (
        (generator.normal(size=(1, 2, 4)) + sample.score / 50).astype(np.float32)
        for sample in samples
    )
    return write_cache(path, samples, features, Provenance({"features": kind}))


CONFIG = CompareConfig(
    iterations=40,
    lstm=LstmConfig(hidden=2),
    svr=SvrConfig(kernels=("linear",), costs=(1.0,), epsilons=(0.1,)),
    bootstrap=50,
)


@pytest.mark.slow
def test_beside_the_released_lists_the_papers_numbers_stand(released, tmp_path):
    cache = released_cache(released, tmp_path / "f.h5")
    table_2, table_3, table_4 = compare(cache, ["all"], CONFIG, tmp_path / "out")
    assert table_2["paper"]["rows"]["all-action LSTM"] == {
        "per_action": paper.TABLE_2["all-action LSTM"].per_action,
        "average": 0.6478,
    }  # fmt: skip
    assert table_2["paper"]["rows"]["Pose+DCT"]["average"] is None
    assert table_3["paper"]["rows"]["multi-action"]["average"] == 0.2037
    assert "Table 3" in table_3["paper"]["source"]
    printed = {
        (row["action"], row["n_train"], row["init"]): row["best"]
        for row in table_4["paper"]["rows"]
    }
    assert printed["sync_diving_10m", 35, "multi-action"] == 0.8123
    assert printed["diving", 25, "random"] == 0.5633
    assert len(printed) == len(table_4["rows"]) == 36
    markdown = (tmp_path / "out" / "report.md").read_text()
    # The average stands under the rule that formed it.
    assert "| *paper* | 0.618 | 0.675 | 0.495 | 0.365 | 0.841 | 0.734 | 0.648 |  |" in (
        markdown
    )
    assert "| 0.351 |  | 0.204 |" in markdown
    assert "| *paper: Pose+DCT* | 0.530 |  |" in markdown
    figure = (tmp_path / "out" / "figures" / "single-vs-all.svg").read_text()
    assert "the paper" in figure


def test_beside_other_features_the_papers_rows_keep_apart(released, tmp_path):
    cache = released_cache(released, tmp_path / "f.h5", kind="i3d")
    (report,) = compare(cache, ["single-vs-all"], CONFIG, tmp_path / "out")
    assert set(report["paper"]["rows"]) == {
        "Pose+DCT",
        "C3D single-action SVR",
        "C3D single-action LSTM",
        "C3D all-action LSTM",
    }
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "| *paper: C3D all-action LSTM* |" in markdown
    assert "| *paper* |" not in markdown


@pytest.mark.parametrize("first", ["c3d", "pose-dct"])
def test_the_papers_poses_stand_beside_ours(released, tmp_path, first):
    """Whichever cache comes first, a row of the paper stands under its like."""
    (second,) = {"c3d", "pose-dct"} - {first}
    few = {name: samples[:20] + samples[-8:] for name, samples in released.items()}
    caches = [
        released_cache(few, tmp_path / f"{kind}.h5", kind) for kind in (first, second)
    ]
    config = replace(CONFIG, actions=("diving", "gym_vault"), iterations=2)
    out = tmp_path / "out"
    (report,) = compare(caches[0], ["single-vs-all"], config, out, also=caches[1:])
    nu_svr = "single-action nu-SVR" + (", pose-dct" if first == "c3d" else "")
    svr = "single-action SVR" + (", c3d" if first == "pose-dct" else "")
    printed = report["paper"]["rows"]
    assert printed[nu_svr]["per_action"]["diving"] == 0.53
    assert printed[svr]["per_action"]["diving"] == 0.7902
    assert {nu_svr, svr} <= {row["name"] for row in report["rows"]}
    assert any("Pirsiavash" in note for note in report["notes"])
    for name in ("report.md", "report.html"):
        text = (out / name).read_text()
        assert (
            f"features&#34;: &#34;{second}" in text or f'features": "{second}' in text
        )


def test_beside_a_part_of_the_actions_stand_rows_of_one_action(released, tmp_path):
    """The paper's heads of many actions learnt from others than these."""
    few = {name: samples[:30] + samples[-10:] for name, samples in released.items()}
    cache = released_cache(few, tmp_path / "f.h5")
    config = replace(CONFIG, actions=("diving", "gym_vault"), iterations=2)
    table_2, table_3, table_4 = compare(cache, ["all"], config, tmp_path / "out")
    assert set(table_2["paper"]["rows"]) == {
        "Pose+DCT",
        "single-action SVR",
        "single-action LSTM",
    }
    assert "multi-action" not in table_3["paper"]["rows"]
    assert {"random", "diving", "gym_vault"} <= set(table_3["paper"]["rows"])
    assert {row["init"] for row in table_4["paper"]["rows"]} == {"random"}
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "| paper: scratch, best |\n" in markdown
    assert "paper: tuned" not in markdown


def test_lists_that_differ_say_why_the_paper_is_not_shown(released, tmp_path):
    gone = {"diving/001", "gym_vault/176"}
    cache = released_cache(released, tmp_path / "f.h5", missing=gone)
    study = open_study(cache, CONFIG)
    assert paper.released(study)
    (note,) = paper.about_lists(study)
    assert "2 of the 1106 released samples" in note
    key, split, score = released["diving"][0]
    released["diving"][0] = (key, split, score + 1)
    study = open_study(released_cache(released, tmp_path / "g.h5"), CONFIG)
    assert not paper.released(study)
    (note,) = paper.about_lists(study)
    assert note.startswith("the paper's numbers are not shown: 1 of 1106")
    assert key in note
