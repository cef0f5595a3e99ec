"""New labels from a CSV that may be anything."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqa.cache import tables
from aqa.cache.errors import AqaError
from aqa.cache.exchange import list_samples
from aqa.cache.labels import Label, plan_relabel, read_labels, relabel
from aqa.cache.parts import merge, verify, write_part
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache, write_cache
from aqa.cache.tables import parse_score

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
    labels = [Label("diving", 31.5, "train"), Label("diving", 32.5, "test")]
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
        ("", "header '' lacks key; expected 'key,action,score,split'"),
        ("name,action,score\n", "lacks key"),
        ("key,action,socre,split\n", "column 'socre'; is it 'score'"),
        ("key,action,score,score\n", "'score' is there twice"),
        ("key,Action,score,action\n", "'action' is there twice"),
        ("key,a/b\n", "column 'a/b' needs another name"),
        ("key," + ",".join(f"c{n}" for n in range(65)), "65 further columns; at most"),
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
        (b"key,action,score,split\n\xff,b,1,\n", "not UTF-8 .*0xff.*save it as"),
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


def test_relabelling_is_as_if_extracted_with_the_new_labels(tmp_path, cache):
    new = {KEYS[0]: Label("diving", 9.0, "test"), KEYS[2]: Label("vault", 3.0, "train")}
    old = Label("diving", 32.5, "test")
    done = relabel(cache, new)
    assert done.changed == 2 and done.counts == {"score": 2, "split": 2, "action": 1}
    assert done.unlisted == 1 and done.kept == tmp_path / "features.h5.bak"
    assert done.examples == (
        "diving/001: score 31.5 -> 9.0, split train -> test",
        "diving/003: action diving -> vault, score none -> 3.0, split none -> train",
    )
    golden = write(tmp_path / "golden.h5", [new[KEYS[0]], old, new[KEYS[2]]])
    assert cache.read_bytes() == golden.read_bytes()
    names = ["features.h5", "features.h5.bak", "golden.h5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_labels_that_are_there_already_change_nothing(cache):
    before = cache.stat().st_ino
    same = {
        KEYS[1]: Label("diving", 32.5, "test"),
        KEYS[2]: Label("diving", math.nan, ""),
    }
    assert relabel(cache, same).changed == relabel(cache, {}).changed == 0
    assert cache.stat().st_ino == before


def test_unknown_keys_are_listed(cache):
    before = cache.read_bytes()
    new = {KEYS[0]: Label("a", 1, ""), "b": Label("a", 1, ""), "c": Label("a", 1, "")}
    with pytest.raises(AqaError, match="2 of 3 keys are not in the cache: 'b', 'c'. "):
        relabel(cache, new)
    assert cache.read_bytes() == before
    assert plan_relabel(cache, new).unknown == ("b", "c")
    assert relabel(cache, new, doubtful=True).changed == 1


def test_parts_that_a_killed_merge_left_are_merged_with_the_labels_they_had(cache):
    with FeatureCache.open(cache) as opened:
        write_part(cache, opened.samples[0], opened.read()[0], MADE)
    assert relabel(cache, {KEYS[0]: Label("diving", 9.0, "test")}).changed == 1
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
    assert not cache.with_name("features.h5.bak").exists()


def test_most_labels_different_needs_a_word(tmp_path):
    labels = [Label("diving", float(row), "train") for row in range(6)]
    x = np.zeros((6, 1, 2, 3), np.float32)
    samples = [
        Sample(f"{row}", **vars(label), frames=9, source_sha256="")
        for row, label in enumerate(labels)
    ]
    cache = write_cache(tmp_path / "f.h5", samples, x, MADE)
    new = {f"{row}": Label("diving", 50.0 + row, "train") for row in range(6)}
    before = cache.read_bytes()
    with pytest.raises(AqaError, match="6 of 6 samples get another score.*--yes"):
        relabel(cache, new)
    assert cache.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
    done = relabel(cache, new, doubtful=True)
    assert done.changed == 6 and done.kept.read_bytes() == before
    # Half of them is no doubt; a second relabelling keeps the first's file too.
    half = {f"{row}": Label("diving", 60.0 + row, "train") for row in range(3)}
    again = relabel(cache, new | half)
    assert again.changed == 3 and again.kept == tmp_path / "f.h5.bak2"


def test_columns_that_a_list_does_not_have_stay(cache, table):
    labels = read_labels(table("key,Fold\ndiving/001,2\ndiving/002, 3 \n"))
    assert labels.columns == ("Fold",)
    assert relabel(cache, labels).counts == {"Fold": 2}
    labels = read_labels(table("fold,key,score\n,diving/001,70\n"))
    relabel(cache, labels)
    with FeatureCache.open(cache) as opened:
        samples = list(opened.samples)
    assert samples[0].extra == {"Fold": "2"} and samples[0].score == 70
    assert samples[0].split == "train" and samples[0].action == "diving"
    labels = read_labels(table("key,Fold\ndiving/001,\n"))
    relabel(cache, labels)  # an empty cell takes a value back
    with FeatureCache.open(cache) as opened:
        assert opened.samples.extra == {"Fold": ("", "3", "")}


def test_names_of_actions_that_look_alike_are_one_or_named(table):
    nfc, nfd = "k\u00fcr", "ku\u0308r"
    text = f"key,action,score,split\na,diving ,30,train\nb,diving,40, Test\nc,{nfc},,\n"
    labels = read_labels(
        table(text + f"d,{nfd},,TRAIN\ne,Diving,,\n\u00a0f ,Gymvault,,\n")
    )
    assert [labels[key].action for key in "abcdef"] == [
        *("diving", "diving", nfc, nfc, "Diving", "Gymvault")
    ]
    assert [labels[key].split for key in "abd"] == ["train", "test", "train"]
    assert labels.notes == (
        "actions 'diving' and 'diving ' are one: 'diving'",
        "actions 'ku\\u0308r' and 'k\\xfcr' are one: 'k\u00fcr'",
        "actions 'Diving' and 'diving' differ in case or blanks only, and count as two",
        "action 'Gymvault': AQA-7 calls it 'gym_vault'",
    )


def test_new_names_are_compared_with_those_of_the_cache(cache):
    plan = plan_relabel(cache, {KEYS[0]: Label("Diving", 31.5, "train")})
    assert plan.notes == (
        "actions 'Diving' and 'diving' differ in case or blanks only, and count as two",
    )


@pytest.mark.parametrize(
    "key", ["diving/1", "Diving/001", "diving/001.avi", "diving/0001.MP4", "DIVING/1"]
)
def test_a_key_that_a_spreadsheet_changed_is_hinted_at(cache, key):
    with pytest.raises(AqaError, match=f"is '{key}' the cache's 'diving/001'"):
        relabel(cache, {key: Label("diving", 50.0, "train")})


def test_a_score_is_checked_against_the_action_in_the_cache(cache, table):
    labels = read_labels(table("key,score\ndiving/001,8160\n"))
    with pytest.raises(AqaError, match="diving/001: expected a score of 21.6 to 102.6"):
        plan_relabel(cache, labels)


def test_an_invisible_character_makes_no_second_action_in_silence(table):
    path = table("key,action\na,kata\nb,kat\u200ba\nc,knot tying\nd,knot\u00a0tying\n")
    first, second = read_labels(path).notes
    assert "'kata' and 'kat\\u200ba' differ" in first
    assert "'knot tying' and 'knot\\xa0tying' differ" in second


def test_a_list_as_excel_and_pandas_write_it(table):
    text = "sep=;\nkey;action;score;split\na;diving;50,5;train\n;;;\n"
    assert read_labels(table(text)) == {"a": Label("diving", 50.5, "train")}
    for index in ("", "Unnamed: 0"):
        labels = read_labels(table(f"{index},key,score\n0,a,1.5\n1,b,2\n"))
        assert [label.score for label in labels.values()] == [1.5, 2]
        assert labels.columns == ("score",)
        assert any("ignored columns: (unnamed)" in note for note in labels.notes)


def test_utf_16_is_read_and_said(table):
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        path = table("key\tscore\nk\u00fcr\t7\n".encode(encoding))
        if encoding == "utf-16":
            labels = read_labels(path)
            assert labels["k\u00fcr"].score == 7
            assert [note.split(": ")[1] for note in labels.notes] == [
                *("separated by tab", "encoded as UTF-16")
            ]
        else:
            with pytest.raises(AqaError, match="save it as .*UTF-8"):
                read_labels(path)


def test_what_aqa_lists_is_a_list_of_labels(tmp_path, table):
    labels = [Label("kata", 1.5, "train"), Label("kür", 2.5, "test", {"fold": "x"})]
    cache = write(tmp_path / "features.h5", [*labels, Label("", math.nan, "")])
    rows = list_samples(cache)
    text = ",".join(rows[0]) + "\n"
    for row in rows:
        text += ",".join("" if v is None else str(v) for v in row.values()) + "\n"
    assert plan_relabel(cache, read_labels(table(text))).changed == 0


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
