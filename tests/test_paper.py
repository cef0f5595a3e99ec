"""The paper's numbers as carried against the record of its tables."""

import csv
import json
from collections import defaultdict

import numpy as np
import pytest

from aqa.cache.actions import BY_NAME, EXPERIMENT_ACTIONS
from aqa.regress import paper

#: How the record names the rows of Table 2 that are named otherwise here.
NAMES = {
    "single-action SVR": "single-action C3D-SVR",
    "single-action LSTM": "single-action C3D-LSTM",
    "all-action LSTM": "all-action C3D-LSTM",
}


@pytest.fixture
def record(shared_data):
    return json.loads((shared_data / "paper_tables.json").read_text())


@pytest.fixture
def released(shared_data):
    lists = defaultdict(list)
    with open(shared_data / "aqa7" / "aqa7_split4_readable.csv") as file:
        for row in csv.DictReader(file):
            key = f"{row['action']}/{int(row['sample']):03d}"
            lists[row["action"]].append((key, row["split"], float(row["score"])))
    return lists


@pytest.mark.parametrize("table, name", [("TABLE_2", "table2"), ("TABLE_3", "table3")])
def test_tables_2_and_3_are_the_recorded_ones(record, table, name):
    ours = getattr(paper, table)
    assert tuple(record["actions"]) == EXPERIMENT_ACTIONS
    theirs = {row: cells for row, cells in record[name].items() if row[:7] != "average"}
    assert {NAMES.get(row, row) for row in ours} == set(theirs)
    for row, printed in ours.items():
        cells = theirs[NAMES.get(row, row)]
        found = [*printed.per_action, printed.average]
        expected = [*cells["per_action"], cells["average"]]
        np.testing.assert_array_equal(found, np.array(expected, dtype=float))


def test_table_4_is_the_recorded_one(record):
    table = record["table4"]
    assert paper.TABLE_4["random"] == {
        action: tuple(rhos) for action, rhos in table["random-init"].items()
    }
    assert paper.TABLE_4["multi-action"] == {
        action: tuple(rhos) for action, rhos in table["all-action"].items()
    }


def test_the_released_lists_are_known_in_any_order(released):
    for action in EXPERIMENT_ACTIONS:
        assert len(released[action]) == BY_NAME[action].samples
        assert paper.is_released(action, reversed(released[action]))


def test_other_samples_with_the_same_counts_are_not_aqa7(released):
    diving = released["diving"]
    key, split, score = diving[0]
    assert not paper.is_released("diving", [(key, split, score + 0.01), *diving[1:]])
    assert not paper.is_released("diving", diving[1:])
    assert not paper.is_released("rings", diving)
