import hashlib
import json

import numpy as np
import pytest
from scipy.io import loadmat

from aqa.cache.actions import ACTIONS, BY_NAME
from aqa.cache.errors import AqaError
from aqa.extract.synthetic import synthesise, synthesise_classes

ACTION_NAMES = ["gym_vault", "sync_diving_10m"]


def digests(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    return synthesise(folder, 0.01, seed=3, workers=1, actions=ACTION_NAMES)


def test_lists_read_back_as_the_released_ones(small):
    rows = {}
    for split in ("train", "test"):
        table = loadmat(small / "Split_4" / f"split_4_{split}_list.mat")
        rows[split] = table[f"consolidated_{split}_list"]
        assert rows[split].dtype == np.float64
        assert len(rows[split]) == 12
    everything = np.concatenate(list(rows.values()))
    assert len({(row[0], row[1]) for row in everything}) == 24
    for identity, number, score in everything:
        action = ACTIONS[int(identity) - 1]
        low, high = action.score_range
        assert low <= score / 100 <= high
        assert (small / "Actions" / action.name / f"{int(number):03d}.avi").is_file()
        poses = small / "poses" / action.name / f"{int(number):03d}.json"
        frames = json.loads(poses.read_text())
        assert {len(people) for people in frames} == {action.participants}


def test_same_seed_same_bytes_whoever_makes_them(small, tmp_path):
    again = synthesise(tmp_path, 0.01, seed=3, workers=2, actions=ACTION_NAMES)
    assert digests(again) == digests(small)


def test_refuses_what_it_cannot_make(small, tmp_path):
    with pytest.raises(AqaError, match="no such action: curling"):
        synthesise(tmp_path, actions=["curling"])
    with pytest.raises(AqaError, match="above 0"):
        synthesise(tmp_path, scale=0)
    with pytest.raises(AqaError, match="already"):
        synthesise(small.parent)
    with pytest.raises(AqaError, match="at least 5"):
        synthesise_classes(tmp_path, 4)
    assert set(BY_NAME) >= set(ACTION_NAMES)
