"""What `verify` finds, each damage by its name, and that it changes nothing."""

import hashlib

import h5py
import numpy as np
import pytest

from aqa.cache.errors import AqaError
from aqa.cache.parts import merge, part_path, verify, write_part
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache, write_cache

MADE = Provenance({"features": "test"})
SAMPLES = [Sample(key, "a", "", 1.5, 9, "0" * 64) for key in ("a/1", "a/2", "a/3")]
X = np.random.default_rng(0).standard_normal((3, 1, 2, 3), np.float32)


@pytest.fixture
def cache(tmp_path):
    """Two samples in the cache, one in a part beside it."""
    write_part(tmp_path / "features.h5", SAMPLES[2], X[2], MADE)
    return write_cache(tmp_path / "features.h5", SAMPLES[:2], X[:2], MADE)


def test_sound_caches_and_parts_have_no_problems(cache):
    seen = []
    assert verify(cache, lambda *step: seen.append(step)) == []
    assert [step[:2] for step in seen] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert verify(part_path(cache, "a/3")) == []
    cache.unlink()
    assert verify(cache) == []


def test_a_part_that_a_merge_moves_away_meanwhile_is_no_problem(cache):
    def merge_now(done, total, label):
        if label.endswith(".h5"):
            merge(cache)

    assert verify(cache, merge_now) == []
    assert not part_path(cache, "a/3").exists()


def test_nothing_to_verify_is_an_error(tmp_path):
    with pytest.raises(AqaError, match="no cache"):
        verify(tmp_path / "features.h5")


def test_every_damaged_sample_and_part_is_named(cache):
    data = cache.read_bytes()
    for row in range(2):
        data = data.replace(X[row].tobytes(), X[row][:, ::-1].tobytes())
    cache.write_bytes(data)
    part = part_path(cache, "a/3")
    part.write_bytes(part.read_bytes()[:-1])
    stamps = [path.stat().st_mtime_ns for path in (cache, part)]
    first, second, third = verify(cache)
    assert first == f"{cache}: sample 'a/1' is damaged"
    assert second == f"{cache}: sample 'a/2' is damaged"
    assert third.startswith(f"{part}: damaged")
    assert [path.stat().st_mtime_ns for path in (cache, part)] == stamps


def test_features_that_others_wrote_are_held_against_their_digest(cache):
    with h5py.File(cache, "r+") as file:
        file["features"][1] = 0
    assert verify(cache) == [f"{cache}: sample 'a/2' is damaged: wrong SHA-256"]


def test_features_that_are_not_finite_are_found_though_their_digest_is_right(cache):
    x = np.full((1, 2, 3), np.inf, np.float32)
    with h5py.File(cache, "r+") as file:
        file["features"][1] = x
        del file["samples"].attrs["sha256"]
        digest = hashlib.sha256(x.tobytes()).hexdigest()
        file["samples/feature_sha256"][1] = digest.encode()
    assert verify(cache) == [f"{cache}: sample 'a/2' is not finite"]


def test_missing_features_are_not_taken_for_numbers(cache):
    with h5py.File(cache, "r+") as file:
        file["features"][1, 0, 0, 0] = np.nan
    with FeatureCache.open(cache) as opened:
        opened.read([0])
        with pytest.raises(AqaError, match="missing or not finite"):
            opened.read()
