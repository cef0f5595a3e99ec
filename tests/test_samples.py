"""Labels and keys: what may stand in a cache."""

import hashlib
import math
import os.path
import struct
from dataclasses import replace

import numpy as np
import pytest
from fakes import sample
from hypothesis import example, given
from hypothesis import strategies as st

from aqa.cache.errors import AqaError
from aqa.cache.samples import (
    SampleTable,
    is_inside,
    normal_text,
    path_problem,
    similar_names,
)


@pytest.mark.parametrize("key", ["a", "diving/001", "a b/ü.avi", "..a", ".a/b", "a/…"])
def test_normalised_relative_paths_are_keys(key):
    assert path_problem(key) is None
    assert sample(key).key == key


@pytest.mark.parametrize(
    "key",
    ["", ".", "..", "../a", "a/..", "a/../b", "./a", "a/.", "a//b", "a/", "/a", "//a"]
    + ["a\\b", "a\0b", "a\nb", "\x1b[2J", "a\x85", "a\u2028", "\ud800", "x" * 1025],
)
def test_other_keys_are_refused_and_shown_harmlessly(key):
    with pytest.raises(AqaError) as error:
        sample(key)
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
        ("action", "x" * 201, "201 bytes"),
        ("split", "val", "not train, test or empty"),
        ("score", math.inf, "infinite"),
        ("frames", -1, "frames"),
        ("frames", 2**31, "frames"),
        ("source_sha256", "0" * 63, "SHA-256"),
        ("source_sha256", "A" * 64, "SHA-256"),
        ("damage", "line\nline", "control character"),
        ("damage", "é" * 513, "1026 bytes"),
        ("source_probe", "0" * 63, "SHA-256"),
        ("clips", -1, "clips"),
        ("rate", float("nan"), "frames per second"),
        ("extra", {"fold": "a\nb"}, "control character"),
        ("extra", {"a/b": "1"}, "needs another name"),
        ("extra", {"": "1"}, "needs another name"),
        ("extra", {"x" * 65: "1"}, "65 bytes"),
    ],
)
def test_a_field_that_breaks_the_conventions_is_refused(field, value, message):
    with pytest.raises(AqaError, match=message) as error:
        sample("diving/001", **{field: value})
    assert "diving/001" in str(error.value)


def test_every_nan_becomes_the_same_nan():
    odd = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_0123))[0]
    score = sample("a", score=odd).score
    assert struct.pack("<d", score) == struct.pack("<d", math.nan)


def test_differences_name_fields_and_nan_equals_nan():
    one = sample("a", score=math.nan, extra={"b": "2", "a": "1", "none": ""})
    assert list(one.extra) == ["a", "b"]  # empty columns count as absent
    other = replace(one, score=float("nan"), split="test", extra={"a": "1", "b": "2"})
    assert one.differences(other) == ["split"]


def test_the_table_gives_columns_and_rows():
    samples = [
        sample("a", score=1, source_probe="1" * 64, clips=6),
        sample("b", score=2.5, damage="short", extra={"fold": "2"}, rate=25),
    ]
    table = SampleTable(samples, ["1" * 64, "2" * 64])
    assert len(table) == 2 and list(table) == samples
    assert table.key == ("a", "b") and table.damage == ("", "short")
    assert table.score.dtype == np.float64 and table.score.tolist() == [1, 2.5]
    assert table.frames.dtype == np.int32
    zeros, ones, twos = "0" * 64, "1" * 64, "2" * 64
    written_out = {
        1: f'["a", "diving", "train", 1.0, 103, "{zeros}", "{ones}", ""]\n'
        f'["b", "diving", "train", 2.5, 103, "{zeros}", "{twos}", "short"]\n',
        2: f'["a", "diving", "train", 1.0, 103, "{zeros}", "", "{ones}", 6, {{}}, '
        f'"{ones}"]\n'
        f'["b", "diving", "train", 2.5, 103, "{zeros}", "short", "", 0, '
        f'{{"fold": "2"}}, 25.0, "{twos}"]\n',
    }
    for version, text in written_out.items():
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert table.sha256(version) == digest
    assert table.clips.tolist() == [6, 0] and table.extra == {"fold": ("", "2")}


@pytest.mark.parametrize(
    ("keys", "message"), [("ba", "not sorted"), ("aa", "twice"), ("aba", "not sorted")]
)
def test_keys_are_sorted_and_unique(keys, message):
    samples = [sample(key) for key in keys]
    with pytest.raises(AqaError, match=message):
        SampleTable(samples, ["0" * 64] * len(keys))


def test_texts_that_look_alike_become_alike():
    assert normal_text("  Ku\u0308r\t") == "K\u00fcr" == normal_text("K\u00fcr")


def test_names_that_differ_in_case_and_blanks_are_told():
    names = ["Diving", "diving", "sync 3m", "sync_3m", "sync-3M", "luge", "\uff44iving"]
    assert similar_names(names) == [
        ("Diving", "diving", "\uff44iving"),
        ("sync 3m", "sync-3M", "sync_3m"),
    ]
    assert similar_names(["diving", "diving"]) == []


def test_links_are_followed_before_a_path_counts_as_inside(tmp_path):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    (inside / "link").symlink_to(tmp_path)
    assert is_inside(inside, tmp_path) and is_inside(tmp_path, tmp_path)
    assert is_inside(inside / "not there", tmp_path / "a")
    for outside in (inside / "link", tmp_path / "ab", inside / ".." / ".."):
        assert not is_inside(outside, tmp_path / "a")
