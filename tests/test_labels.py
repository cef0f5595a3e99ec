"""New labels from a CSV that may be anything."""

import csv
import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqa.cache import tables
from aqa.cache.errors import AqaError
from aqa.cache.parts import merge, verify, write_part
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache, write_cache
from aqa.cache.tables import Label, parse_score, read_labels, read_rows, relabel

MADE = Provenance({"features": "test"})
KEYS = ("diving/001", "diving/002", "diving/003")


def write(path, labels):
    """Write a cache whose features never change, under `labels`."""
    x = np.random.default_rng(0).standard_normal((len(KEYS), 1, 2, 3), np.float32)
    samples = [
        Sample(key, **vars(label), frames=9, source_sha256="0" * 64)
        for key, label in zip(KEYS, labels, strict=True)
    ]
    return write_cache(path, samples, x, MADE)


@pytest.fixture
def cache(tmp_path):
    """Three samples, one of them unlabelled."""
    labels = [Label("diving", 1.5, "train"), Label("diving", 2.5, "test")]
    return write(tmp_path / "features.h5", [*labels, Label("diving", math.nan, "")])


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a CSV of just this text."""

    def write_text(text):
        path = tmp_path / "labels.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_text


def test_labels_are_read_in_any_order_of_columns(table):
    text = 'split,key,score,action\r\ntrain,"a,b/1",81.60,diving\r\n\r\n,b,,\r\n'
    for prefix in (b"", b"\xef\xbb\xbf"):
        labels = read_labels(table(prefix + text.encode()))
        assert list(labels) == ["a,b/1", "b"]
        assert labels["a,b/1"] == Label("diving", 81.6, "train")
        assert labels["b"].action == labels["b"].split == ""
        assert math.isnan(labels["b"].score)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "text",
    [
        'key,action,score,split\n"a",diving,"50,5",train',
        "key;action;score;split\na;diving;50,5;train",
        "key\taction\tscore\tsplit\na\tdiving\t50.5\ttrain",
        " Split , Score , Action , KEY \ntrain,50.5,diving,a",
    ],
)
def test_separators_encodings_and_headers_of_spreadsheets(
    table, text, newline, encoding
):
    path = table(text.replace("\n", newline).encode(encoding))
    assert read_labels(path) == {"a": Label("diving", 50.5, "train")}


def test_optional_and_extra_columns(table):
    path = table("key;Fold;action\na;3;diving\n")
    with pytest.raises(AqaError, match="optionally 'split'"):
        list(read_rows(path, ("key", "action"), ("split",)))
    rows = list(read_rows(path, ("key", "action"), ("split",), extra=True))
    assert rows == [(2, {"key": "a", "Fold": "3", "action": "diving", "split": ""})]


@pytest.mark.parametrize(
    ("text", "value"), [("50,5", 50.5), ("-0,1234", -0.1234), ("7", 7.0)]
)
def test_decimal_commas(text, value):
    assert parse_score(text) == value


def test_a_comma_that_may_separate_thousands_is_refused():
    with pytest.raises(AqaError, match="'1,234' is not a number"):
        parse_score("1,234")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header ''; expected 'key,action,score,split'"),
        ("key,action,score\n", "expected"),
        ("key,action,score,split,extra\n", "expected"),
        ("key,action,score,score\n", "expected"),
        ("key,action,score,split\na,b\n", "line 2: 2 fields; expected 4"),
        ("key,action,score,split\na,b,1,train,\n", "line 2: 5 fields"),
        ("key,action,score,split\n../a,b,1,train\n", "line 2: key '../a' .* outside"),
        ("key,action,score,split\n/etc/passwd,b,1,train\n", "absolute"),
        ('key,action,score,split\n"a\nb",b,1,train\n', "line 2: cannot be read as CSV"),
        ("key,action,score,split\na,diving,8160,\n", "line 2: expected a .* 102.6"),
        ("key,action,score,split\na\0,b,1,train\n", "control character"),
        ("key,action,score,split\na,../b,1,train\n", "file's name"),
        ("key,action,score,split\na,b,1,val\n", "not train, test or empty"),
        ("key,action,score,split\na,b,much,train\n", "score 'much' is not a number"),
        ("key,action,score,split\na,b,nan,train\n", "score 'nan' is not a number"),
        ("key,action,score,split\na,b,inf,train\n", "score 'inf' is not a number"),
        ("key,action,score,split\na,b,1e999,train\n", "not a number"),
        ("key,action,score,split\na,b,1_0,train\n", "not a number"),
        ("key,action,score,split\na,b,1,\na,b,2,\n", "line 3: key 'a' is there twice"),
        (b"key,action,score,split\n\xff,b,1,\n", "cannot be read as CSV"),
        ('key,action,score,split\n"a,b,1,\n', "cannot be read as CSV"),
        ("key,action,score,split\n" + "a" * 200_000 + ",b,1,\n", "65536 characters"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(table, text, message):
    path = table(text)
    with pytest.raises(AqaError, match=message) as error:
        read_labels(path)
    assert str(path) in str(error.value) and str(error.value).isprintable()


def test_all_bad_rows_are_counted_and_twenty_shown(table):
    rows = "".join(f"/{row},b,1,\n" for row in range(1000))
    with pytest.raises(AqaError) as error:
        read_labels(table("key,action,score,split\n" + rows))
    lines = str(error.value).splitlines()
    assert lines[0] == "1000 problems:" and lines[-1] == "  and 980 more"
    assert len(lines) == 22


@pytest.mark.parametrize("kind", ["missing", "folder", "huge"])
def test_what_is_no_file_of_reasonable_size_is_refused(tmp_path, kind):
    path = tmp_path / "labels.csv"
    if kind == "folder":
        path.mkdir()
    elif kind == "huge":
        with open(path, "wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(AqaError, match=str(path)):
        read_labels(path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_labels_or_an_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("csv") / "labels.csv"
    for start in (b"", b"key,action,score,split\n"):
        path.write_bytes(start + content)
        try:
            read_labels(path)
        except AqaError as error:
            assert str(path) in str(error)


def test_a_hundred_thousand_rows_take_seconds(tmp_path):
    path = tmp_path / "labels.csv"
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["key", "action", "score", "split"])
        rows.writerows([f"a/{row}", "a", row, "test"] for row in range(100_000))
    start = time.process_time()
    assert len(read_labels(path)) == 100_000
    assert time.process_time() - start < 5


def test_relabelling_is_as_if_extracted_with_the_new_labels(tmp_path, cache):
    new = {KEYS[0]: Label("diving", 9.0, "test"), KEYS[2]: Label("vault", 3.0, "train")}
    old = Label("diving", 2.5, "test")
    assert relabel(cache, new) == 2
    golden = write(tmp_path / "golden.h5", [new[KEYS[0]], old, new[KEYS[2]]])
    assert cache.read_bytes() == golden.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features.h5", "golden.h5"]


def test_labels_that_are_there_already_change_nothing(cache):
    before = cache.stat().st_ino
    same = {
        KEYS[1]: Label("diving", 2.5, "test"),
        KEYS[2]: Label("diving", math.nan, ""),
    }
    assert relabel(cache, same) == 0 and relabel(cache, {}) == 0
    assert cache.stat().st_ino == before


def test_unknown_keys_are_listed(cache):
    before = cache.read_bytes()
    new = {KEYS[0]: Label("a", 1, ""), "b": Label("a", 1, ""), "c": Label("a", 1, "")}
    with pytest.raises(
        AqaError, match="2 problems:\n.*no sample 'b'.*\n.*no sample 'c'"
    ):
        relabel(cache, new)
    assert cache.read_bytes() == before


def test_parts_that_a_killed_merge_left_are_merged_with_the_labels_they_had(cache):
    with FeatureCache.open(cache) as opened:
        write_part(cache, opened.samples[0], opened.read()[0], MADE)
    assert relabel(cache, {KEYS[0]: Label("diving", 9.0, "test")}) == 1
    with FeatureCache.open(merge(cache)) as opened:
        assert opened.samples.score[0] == 9


def test_a_line_without_end_and_a_file_of_too_many_are_not_read(table, monkeypatch):
    monkeypatch.setattr(tables, "MAX_LINES", 3)
    good = "key,action,score,split\n" + "a,b,1,\nc,d,1,\n"
    assert len(read_labels(table(good))) == 2
    with pytest.raises(AqaError, match="line 4: a CSV of at most 3 lines"):
        read_labels(table(good + "\n"))
    path = table(good)
    with open(path, "ab") as file:
        file.truncate(200 * 2**20)
    tracemalloc.start()
    with pytest.raises(AqaError, match="line 4: .*65536 characters"):
        read_labels(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_relabelling_does_not_make_damage_look_sound(cache):
    with FeatureCache.open(cache) as opened:
        x = opened.read()[1].tobytes()
    damaged = cache.read_bytes().replace(x, x[::-1])
    cache.write_bytes(damaged)
    with pytest.raises(AqaError, match=f"{KEYS[1]}' is damaged"):
        relabel(cache, {KEYS[0]: Label("diving", 0.0, "")})
    assert cache.read_bytes() == damaged and len(verify(cache)) == 1


def test_there_has_to_be_a_cache(tmp_path):
    with pytest.raises(AqaError, match="no such file"):
        relabel(tmp_path / "features.h5", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "label", [("../a", 1.0, ""), ("a", math.inf, ""), ("a", 1.0, "x")]
)
def test_a_label_that_no_cache_can_hold_is_refused(label):
    with pytest.raises(AqaError):
        Label(*label)
