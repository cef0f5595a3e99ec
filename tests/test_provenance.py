"""The record of how features were made: canonical, compared path by path, untrusted."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqa.cache.errors import AqaError, ProvenanceMismatch
from aqa.cache.provenance import MAX_BYTES, Provenance, require_same

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
    ),
    max_leaves=12,
)
RECORDS = st.dictionaries(TEXT, JSON, max_size=5)


def test_canonical_text_and_digest_are_those_written_out_by_hand():
    text = '{"a":[1,2.5],"b":{"c":"é","d":null}}'
    found = Provenance({"b": {"d": None, "c": "é"}, "a": (1, 2.5)})
    assert found.json == text
    assert found.sha256 == hashlib.sha256(text.encode("utf-8")).hexdigest()
    assert found.record == json.loads(text)
    spaced = '{ "b": {"d": null, "c": "é"},\n "a": [1, 2.5] }'
    digest = hashlib.sha256(spaced.encode()).hexdigest()
    assert Provenance.parse(spaced, digest) == found


def test_messages_show_no_character_that_a_terminal_obeys():
    vile = "\x7f\x1b[2J\u202e"
    with pytest.raises(AqaError, match="recorded as") as caught:
        Provenance.parse("{}", vile)
    found, asked = Provenance({vile: vile}), Provenance({"clip": 16})
    for text in (str(caught.value), *found.differences(asked)):
        assert text.isprintable(), text


@settings(max_examples=50)
@given(RECORDS)
def test_parse_gives_back_what_was_written(record):
    once = Provenance(record)
    again = Provenance.parse(once.json, once.sha256)
    assert again == once and again.sha256 == once.sha256
    assert again.record == once.record
    assert not once.differences(again)


def test_whole_numbers_and_fractions_differ():
    assert Provenance({"a": 1}) != Provenance({"a": 1.0})
    assert Provenance({"a": 1}).differences(Provenance({"a": 1.0}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"text"',
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"a": ' + "9" * 5000 + "}",
        '{"a": ' * 100 + "1" + "}" * 100,
        '{"a": ' + "[" * 20000 + "]" * 20000 + "}",
        '{"a": "' + "x" * MAX_BYTES + '"}',
        "\udcff",
    ],
)
def test_what_is_not_a_json_object_is_refused(text):
    with pytest.raises(AqaError):
        Provenance.parse(text)


@pytest.mark.parametrize(
    "record", [{"a": float("nan")}, {"a": object()}, {"a": "x" * MAX_BYTES}]
)
def test_a_record_that_json_cannot_hold_is_refused(record):
    with pytest.raises(AqaError, match="provenance"):
        Provenance(record)


def test_differences_are_named_by_their_path():
    found = Provenance({"weights": {"sha256": "12ab" * 16}, "arch": "c3d-tiny"})
    asked = Provenance({"weights": {"sha256": "34cd" * 16}, "clip": 16})
    assert found.differences(asked) == [
        'arch: found "c3d-tiny", asked for nothing',
        "clip: found nothing, asked for 16",
        "weights.sha256: found 12ab12ab12ab…, asked for 34cd34cd34cd…",
    ]


def test_a_mismatch_names_the_place_and_ends_with_exit_code_4():
    one, other = Provenance({"a": 1}), Provenance({"a": 2})
    require_same(one, one, "here")
    message = "there: .*a: found 1, asked for 2"
    with pytest.raises(ProvenanceMismatch, match=message) as e:
        require_same(one, other, "there")
    assert e.value.exit_code == 4
