"""Labels and keys: what may stand in a cache."""

import hashlib
import math
import os.path
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aqa.cache.errors import AqaError
from aqa.cache.samples import Sample, SampleTable, path_problem

GOOD = dict(
    key="diving/001",
    action="diving",
    split="train",
    score=81.5,
    frames=103,
    source_sha256="0" * 64,
)


@pytest.mark.parametrize("key", ["a", "diving/001", "a b/ü.avi", "..a", ".a/b", "a/…"])
def test_normalised_relative_paths_are_keys(key):
    assert path_problem(key) is None
    assert Sample(**{**GOOD, "key": key}).key == key


@pytest.mark.parametrize(
    "key",
    ["", ".", "..", "../a", "a/..", "a/../b", "./a", "a/.", "a//b", "a/", "/a", "//a"]
    + ["a\\b", "a\0b", "a\nb", "\x1b[2J", "a\x85", "a\u2028", "\ud800", "x" * 1025],
)
def test_other_keys_are_refused_and_shown_harmlessly(key):
    with pytest.raises(AqaError) as error:
        Sample(**{**GOOD, "key": key})
    assert str(error.value).isprintable() and len(str(error.value)) < 600


@given(st.text())
@example("a/../../b")
def test_a_key_never_leads_out_of_its_folder(key):
    if path_problem(key) is None:
        assert os.path.normpath(os.path.join("/root", key)) == f"/root/{key}"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("action", "a/b", "file's name"),
        ("action", "..", "file's name"),
        ("action", "a\\b", "file's name"),
        ("action", "a\nb", "control character"),
        ("action", "x" * 256, "256 bytes"),
        ("split", "val", "not train, test or empty"),
        ("score", math.inf, "infinite"),
        ("frames", -1, "frames"),
        ("frames", 2**31, "frames"),
        ("source_sha256", "0" * 63, "SHA-256"),
        ("source_sha256", "A" * 64, "SHA-256"),
        ("damage", "line\nline", "control character"),
        ("damage", "é" * 513, "1026 bytes"),
    ],
)
def test_a_field_that_breaks_the_conventions_is_refused(field, value, message):
    with pytest.raises(AqaError, match=message) as error:
        Sample(**{**GOOD, field: value})
    assert "diving/001" in str(error.value)


def test_every_nan_becomes_the_same_nan():
    odd = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_0123))[0]
    score = Sample(**{**GOOD, "score": odd}).score
    assert struct.pack("<d", score) == struct.pack("<d", math.nan)


def test_differences_name_fields_and_nan_equals_nan():
    one = Sample(**{**GOOD, "score": math.nan})
    other = Sample(**{**GOOD, "score": float("nan"), "split": "test"})
    assert one.differences(other) == ["split"]


def test_the_table_gives_columns_and_rows():
    samples = [
        Sample(**{**GOOD, "key": "a", "score": 1.0}),
        Sample(**{**GOOD, "key": "b", "score": 2.5, "damage": "short"}),
    ]
    table = SampleTable.of(samples, ["1" * 64, "2" * 64])
    assert len(table) == 2 and list(table) == samples
    assert table.key == ("a", "b") and table.damage == ("", "short")
    assert table.score.dtype == np.float64 and table.score.tolist() == [1, 2.5]
    assert table.frames.dtype == np.int32
    written_out = (
        '["a", "diving", "train", 1.0, 103, "{}", "{}", ""]\n'
        '["b", "diving", "train", 2.5, 103, "{}", "{}", "short"]\n'
    ).format("0" * 64, "1" * 64, "0" * 64, "2" * 64)
    assert table.sha256 == hashlib.sha256(written_out.encode()).hexdigest()


@pytest.mark.parametrize(
    ("keys", "message"), [("ba", "not sorted"), ("aa", "twice"), ("aba", "not sorted")]
)
def test_keys_are_sorted_and_unique(keys, message):
    samples = [Sample(**{**GOOD, "key": key}) for key in keys]
    with pytest.raises(AqaError, match=message):
        SampleTable.of(samples, ["0" * 64] * len(keys))
