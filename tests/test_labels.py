"""New labels from a CSV that may be anything."""

import math
import tracemalloc

import pytest
from fakes import MADE, names, numbers, sample, spoil
from hypothesis import given, settings
from hypothesis import strategies as st

from aqa.cache import tables
from aqa.cache.errors import AqaError
from aqa.cache.exchange import list_samples
from aqa.cache.labels import Label, plan_relabel, read_labels, relabel
from aqa.cache.parts import merge, verify, write_part
from aqa.cache.store import FeatureCache, write_cache
from aqa.cache.tables import parse_score


def write(path, labels):
    """Write a cache whose features never change, under `labels`."""
    samples = [
        sample(f"diving/{number:03d}", **vars(label))
        for number, label in enumerate(labels, 1)
    ]
    return write_cache(path, samples, numbers(len(samples), 1, 2, 3), MADE)


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "text",
    [
        'key,action,score,split\n"a",diving,"50,5",train',
        "key;action;score;split\na;diving;50,5;train",
        "key\taction\tscore\tsplit\na\tdiving\t50.5\ttrain",
        " Split , Score , Action , KEY \n\ntrain,50.50,diving,a\n,,,\n",
        "sep=;\nkey;action;score;split\na;diving;50,5;train\n;;;\n",
        ",key,action,score,split\n0,a,diving,50.5,train",
        "Unnamed: 0,key,action,score,split\n0,a,diving,50.5,train",
    ],
)
def test_separators_encodings_and_headers_of_spreadsheets(
    table, text, newline, encoding
):
    labels = read_labels(table(text.replace("\n", newline).encode(encoding)))
    assert labels == {"a": Label("diving", 50.5, "train")}
    said = {
        "separated by semicolon": ";" in text,
        "separated by tab": "\t" in text,
        "encoded as UTF-16": encoding == "utf-16",
        "ignored columns: (unnamed)": text.startswith((",", "Unnamed")),
    }
    notes = [note.partition(": ")[2] for note in labels.notes]
    assert notes == [what for what, holds in said.items() if holds]


def test_what_is_not_there_is_empty(table):
    labels = read_labels(table('score,key,split\n1,"a,b/1",\n,b,\n'))
    assert labels.columns == ("score", "split") and list(labels) == ["a,b/1", "b"]
    assert labels["b"].action == labels["b"].split == ""
    assert math.isnan(labels["b"].score)


@pytest.mark.parametrize(
    ("text", "value"),
    [("50,5", 50.5), ("-0,1234", -0.1234), ("7", 7.0), ("1,234", None)],
)
def test_a_comma_is_a_decimal_one_unless_it_may_separate_thousands(text, value):
    if value is None:
        with pytest.raises(AqaError, match=f"{text!r} is not a number"):
            parse_score(text)
    else:
        assert parse_score(text) == value


LIST, NO_LIST = "key\tscore\nk\u00fcr\t7\n", ("utf-16-le", "utf-16-be", "utf-32")


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
        *((LIST.encode(name), "save it as .*UTF-8") for name in NO_LIST),
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
    new = {
        "diving/001": Label("diving", 9.0, "test"),
        "diving/003": Label("vault", 3.0, "train"),
    }
    old = Label("diving", 32.5, "test")
    done = relabel(cache, new)
    assert done.changed == 2 and done.counts == {"score": 2, "split": 2, "action": 1}
    assert done.unlisted == 1 and done.kept == tmp_path / "features.h5.bak"
    assert done.examples == (
        "diving/001: score 31.5 -> 9.0, split train -> test",
        "diving/003: action diving -> vault, score none -> 3.0, split none -> train",
    )
    golden = write(tmp_path / "golden.h5", [new["diving/001"], old, new["diving/003"]])
    assert cache.read_bytes() == golden.read_bytes()
    assert names(tmp_path) == ["features.h5", "features.h5.bak", "golden.h5"]


def test_labels_that_are_there_already_change_nothing(cache):
    before = cache.stat().st_ino
    same = {"diving/002": Label("diving", 32.5, "test")}
    same |= {"diving/003": Label("diving", math.nan, "")}
    assert relabel(cache, same).changed == relabel(cache, {}).changed == 0
    assert cache.stat().st_ino == before


def test_unknown_keys_are_listed(cache):
    before = cache.read_bytes()
    new = dict.fromkeys(("diving/001", "b", "c"), Label("a", 1, ""))
    with pytest.raises(AqaError, match="2 of 3 keys are not in the cache: 'b', 'c'. "):
        relabel(cache, new)
    assert cache.read_bytes() == before
    assert plan_relabel(cache, new).unknown == ("b", "c")
    assert relabel(cache, new, doubtful=True).changed == 1


def test_parts_that_a_killed_merge_left_are_merged_with_the_labels_they_had(cache):
    with FeatureCache.open(cache) as opened:
        write_part(cache, opened.samples[0], opened.read()[0], MADE)
    assert relabel(cache, {"diving/001": Label("diving", 9.0, "test")}).changed == 1
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
    spoil(cache, numbers(3, 1, 2, 3)[1])
    damaged = cache.read_bytes()
    with pytest.raises(AqaError, match="diving/002' is damaged"):
        relabel(cache, {"diving/001": Label("diving", 0.0, "")})
    assert cache.read_bytes() == damaged and len(verify(cache)) == 1
    assert not cache.with_name("features.h5.bak").exists()


def test_most_labels_different_needs_a_word(tmp_path):
    labels = [Label("diving", float(row), "train") for row in range(6)]
    cache = write(tmp_path / "f.h5", labels)
    keys = [f"diving/{number:03d}" for number in range(1, 7)]
    new = dict.fromkeys(keys, Label("diving", 50.0, "train"))
    before = cache.read_bytes()
    with pytest.raises(AqaError, match="6 of 6 samples get another score.*--yes"):
        relabel(cache, new)
    assert cache.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
    done = relabel(cache, new, doubtful=True)
    assert done.changed == 6 and done.kept.read_bytes() == before
    # Half of them is no doubt; a second relabelling keeps the first's file too.
    half = dict.fromkeys(keys[:3], Label("diving", 60.0, "train"))
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
    [note] = plan_relabel(cache, {"diving/001": Label("Diving", 31.5, "train")}).notes
    assert note.startswith("actions 'Diving' and 'diving' differ in case")


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
