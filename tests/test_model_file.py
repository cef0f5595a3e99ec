"""Models on disk: the same bytes, the same predictions, and nothing hostile read."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save, save_file

from aqa.cache.errors import AqaError, ProvenanceMismatch
from aqa.cache.provenance import Provenance
from aqa.regress.config import NU_SVR, LstmConfig, SvrConfig
from aqa.regress.data import LabelScale
from aqa.regress.heads import HEADS
from aqa.regress.heads.lstm import LstmHead, initial_parameters
from aqa.regress.heads.model_file import (
    ENTRY,
    Calibration,
    Model,
    load_model,
    save_model,
)
from aqa.regress.heads.plausibility import Plausibility
from aqa.regress.heads.svr import fit_svr

SCALE = LabelScale(
    "zscore", {"diving": 55.0, "luge": 7.0}, {"diving": 13.5, "luge": 0.25}
)
DIVING = LabelScale("std", {"diving": 0.0}, {"diving": 8.0})
CHEAP = SvrConfig(costs=(1.0,), epsilons=(0.1,), folds=2)


@pytest.fixture
def model():
    return Model(
        head=LstmHead(
            initial_parameters(5, LstmConfig(hidden=3), np.random.default_rng(0))
            | {"x_mean": np.arange(5, dtype="f4"), "x_std": np.full(5, 2, "f4")}
        ),
        actions=("diving", "luge"),
        label_scale=SCALE,
        provenance=Provenance({"features": "c3d", "weights": {"sha256": "12" * 32}}),
        settings={"seed": 3},
        results={"diving": {"spearman": None, "n_test": 7}},
        calibration={"diving": Calibration(-2.0, 3.5, 0.9, 12, 3, (1.5, 2.0))},
        frames={"diving": (80, 120)},
        ranges={"diving": (20.0, 99.5), "luge": (1.0, 1.0)},
        plausibility=Plausibility(
            samples=np.arange(30, dtype=np.float32).reshape(6, 5),
            scales=np.full((1, 5), 2, np.float32),
            counts={"diving": 6},
            thresholds={"diving": 1.5},
        ),
    )


@pytest.fixture
def written(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, model)
    return path


def test_missing_file_is_one_line(tmp_path):
    with pytest.raises(
        AqaError, match="none.safetensors: no such model; `aqa fit` makes"
    ):
        load_model(tmp_path / "none.safetensors")


def test_model_comes_back(model, written):
    again = load_model(written)
    x = np.random.default_rng(1).random((4, 6, 5), np.float32)
    assert np.array_equal(again.head.predict(x), model.head.predict(x))
    for name in ("actions", "label_scale", "provenance", "settings", "results"):
        assert getattr(again, name) == getattr(model, name)
    for name in ("calibration", "frames", "ranges"):
        assert getattr(again, name) == getattr(model, name)
    assert again.plausibility.thresholds == model.plausibility.thresholds
    for one in x[:, None]:
        distance = model.plausibility.distance(one, "diving")
        assert again.plausibility.distance(one, "diving") == distance
    assert again.head.kind == "lstm"


def test_predictions_are_in_judges_units(model):
    x = np.random.default_rng(1).random((4, 6, 5), np.float32)
    scaled = model.head.predict(x)
    assert model.predict(x, "luge") == pytest.approx(7 + 0.25 * scaled)
    both = model.predict(x, np.array(["diving", "luge", "luge", "diving"]))
    assert both[[0, 3]] == pytest.approx(55 + 13.5 * scaled[[0, 3]])


def test_any_sound_numbers_are_scored_alike(model):
    x = np.arange(20, dtype=np.float32).reshape(2, 2, 5)
    want = model.predict(x, "luge")
    for same in (x.astype("f8"), x.astype(int), x.astype(">f4"), x.tolist()):
        np.testing.assert_array_equal(model.predict(same, "luge"), want)
    for other, message in (
        (x * np.nan, "expected finite float32 numbers"),
        (x.astype("f8") * 1e300, "expected finite float32 numbers"),
        (x.astype("U9"), "expected an array of numbers, found <U9"),
        (None, "expected an array of numbers, found object"),
    ):
        with pytest.raises(AqaError, match=message):
            model.predict(other, "luge")
    for action, message in ((["luge"] * 3, "expected one name, or 2"), (3, "found 3")):
        with pytest.raises(AqaError, match=message):
            model.predict(x, action)


def test_padding_is_ignored_however_it_is_said(model):
    """Rows of 4, 2 and 3 clips: each predicts as it does alone."""
    x = np.random.default_rng(1).random((3, 2, 4, 5), np.float32)
    clips = [4, 2, 3]
    rows = zip(x, clips, strict=True)
    alone = [model.predict(row[None, :, -n:], "luge")[0] for row, n in rows]
    for filling in (np.nan, 0, 7):
        for row, n in zip(x, clips, strict=True):
            row[:, : 4 - n] = filling
        made = model.predict(x, "luge", clips=clips)
        np.testing.assert_allclose(made, alone, rtol=1e-6)
        if np.isnan(filling):
            made = model.predict(x, "luge")
            np.testing.assert_allclose(made, alone, rtol=1e-6)
    assert abs(model.predict(x, "luge") - alone)[1] > 1e-3  # of sevens


def test_padding_that_is_not_said_is_refused(model):
    x = np.random.default_rng(1).random((3, 4, 5), np.float32)
    x[1, :2] = 0
    imported = replace(
        model, provenance=Provenance({"features": "i3d", "imported": True})
    )
    for sequence in (x, x[:, ::-1]):
        with pytest.raises(AqaError, match="1 of 3 samples begin or end with clips"):
            imported.predict(sequence, "luge")
    assert imported.predict(x, "luge", clips=[4, 4, 4]).shape == (3,)
    assert model.predict(x, "luge").shape == (3,)  # of C3D: not known
    for clips, message in (
        ([4, 4], r"expected 3 values, one per video; found shape \(2,\)"),
        (4, r"expected 3 values, one per video; found shape \(\)"),
        ([4, 0, 4], "expected 1 to 4; found 0"),
        ([4, 5, 4], "expected 1 to 4; found 5"),
        ([4.0, 2.5, 4.0], "expected whole numbers, found float64"),
        ([True] * 3, "expected whole numbers, found bool"),
    ):
        with pytest.raises(AqaError, match=f"clips: {message}"):
            model.predict(x, "luge", clips=clips)
    for odd in (x[0], x[:, :0], x[None, None]):
        with pytest.raises(AqaError, match=r"\(n, copies, clips, D\), found"):
            model.predict(odd, "luge")


def test_same_model_same_bytes(model, written, tmp_path):
    shuffled = replace(
        model,
        head=LstmHead(dict(reversed(model.head.parameters.items()))),
        ranges=dict(reversed(model.ranges.items())),
    )
    save_model(tmp_path / "again.safetensors", shuffled)
    assert (tmp_path / "again.safetensors").read_bytes() == written.read_bytes()


@pytest.mark.parametrize(
    "config",
    [*(replace(CHEAP, kernels=(name,)) for name in ("linear", "rbf")), NU_SVR],
)
def test_svr_comes_back(make_features, tmp_path, config):
    features = make_features()
    head = fit_svr(features, features.score / 8, range(12), config)
    path = tmp_path / "svr.safetensors"
    made = Model(head, ("diving",), DIVING, features.provenance)
    save_model(path, made)
    again = load_model(path)
    x = features.x[12:, 0]
    assert np.array_equal(again.head.predict(x), head.predict(x))
    assert again.head.kind == "svr" and again.head.choice == head.choice


def test_other_features_are_refused_with_exit_code_4(model):
    model.require(Provenance({"weights": {"sha256": "12" * 32}, "features": "c3d"}))
    with pytest.raises(ProvenanceMismatch, match="weights.sha256: found 12") as raised:
        model.require(Provenance({"features": "c3d", "weights": {"sha256": "34" * 32}}))
    assert raised.value.exit_code == 4


def header_of(path):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(json.loads(raw[8 : 8 + length])["__metadata__"][ENTRY])


def test_file_is_safetensors_with_one_json_entry(model, written):
    arrays = load_file(written)
    assert np.array_equal(arrays["w_x"], model.head.parameters["w_x"])
    header = header_of(written)
    assert header["provenance"] == model.provenance.record
    assert header["label_scale"]["scale"] == {"diving": 13.5, "luge": 0.25}


def change(**fields):
    return lambda header, arrays: header.update(fields)


def scaled(**scale):
    return lambda header, arrays: header["label_scale"].update(scale=scale)


def put(**changed):
    return lambda header, arrays: arrays.update(changed)


def test_what_is_said_of_a_damaged_header_is_printable(tmp_path, model):
    path = tmp_path / "m.safetensors"
    save_model(path, model)
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"\x7f32"'))
    with pytest.raises(AqaError, match="not a model of this aqa") as caught:
        load_model(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (change(version=1), "version 1; version 2 is read: fit again"),
        (change(head="mlp"), f"head 'mlp': expected {', '.join(HEADS)}"),
        (change(head=["lstm"]), "not a model"),
        (change(head="svr"), "vectors: no such array"),
        (change(actions=[]), "at least one action"),
        (change(actions=["diving", "../x"]), "cannot be part of a file's name"),
        (change(actions=["diving", "\x1b[2J"]), "control character"),
        (change(actions=[1, 2]), "not a model"),
        (scaled(diving=1.0), "of different actions"),
        (scaled(diving=0.0, luge=1.0), "above 0, not 0.0"),
        (scaled(diving=1e999, luge=1.0), "not a JSON number"),
        (scaled(diving=10**400, luge=1.0), "not a model"),
        (scaled(diving="1", luge=1.0), "not a model"),
        (change(label_scale={"kind": "std"}), "not a model"),
        (
            change(label_scale={"kind": "x", "offset": {}, "scale": {}}),
            "label scale 'x' is not known",
        ),
        (
            change(label_scale={"kind": "std", "offset": {}, "scale": {}}),
            "a label scale for each",
        ),
        (change(ranges={"diving": [9, 3]}), "nothing lies from 9.0 to 3.0"),
        (change(plausibility=[]), "not a model"),
        (
            change(plausibility=[{"action": "diving", "videos": 9, "threshold": 1}]),
            "plausibility of 6 samples",
        ),
        (change(provenance=3), "not a model"),
        (change(settings=None), "not a model"),
        (change(settings={"x": math.inf}), "Infinity is not a JSON number"),
        (change(calibration={"ski": {}}), "not a model"),
        (change(calibration={"diving": {"typical": [], "low": 1}}), "not a model"),
        (change(frames={"diving": [3]}), "not a model"),
        (change(frames={"diving": [9, 3]}), "nothing lies from 9 to 3"),
        (put(extra=np.zeros(3, np.float32)), "expected the arrays"),
        (put(w_x=np.zeros((5, 12))), "expected the arrays"),
        (put(w_x=np.zeros((0, 12), np.float32)), "w_x: no such array, or an empty"),
        (put(w_h=np.zeros((4, 12), np.float32)), r"'w_h': \(\(3, 12\)"),
        (put(c=np.array(np.nan, np.float32)), "c: holds values that are not finite"),
    ],
)
def test_hostile_models_are_refused(written, hostile, message):
    header, arrays = header_of(written), load_file(written)
    hostile(header, arrays)
    save_file(arrays, written, {ENTRY: json.dumps(header)})
    with pytest.raises(AqaError, match=message) as raised:
        load_model(written)
    assert str(raised.value).startswith(f"{written}: not a model of this aqa")


def test_another_decoder_or_precision_is_named_and_not_refused(model):
    record = {**model.provenance.record, "decoder": {"pyav": "2"}, "precision": "fp32"}
    found = replace(model, provenance=Provenance(record))
    assert found.require(found.provenance) == []
    newer = {**record, "decoder": {"pyav": "3"}, "precision": "bf16"}
    pyav, precision = found.require(Provenance(newer))
    assert pyav.startswith("decoder.pyav: found")
    assert precision.startswith("precision: found")
    with pytest.raises(ProvenanceMismatch, match="features: found"):
        found.require(Provenance({**newer, "features": "i3d"}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a model"),
        (b"\xff" * 100, "at most 1048576 are read"),
        (save({}), "`aqa fit` writes models"),
        (save({}, {ENTRY: "[" * 100_000}), "not JSON"),
        (save({}, {ENTRY: "[]"}), "a header of version None"),
        (save({}, {ENTRY: "{"}), "not JSON"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(AqaError, match=message):
        load_model(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_flipped_bytes_are_refused_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "flips"
    path = folder / "model.safetensors"
    if not path.exists():
        start = initial_parameters(2, LstmConfig(hidden=1), np.random.default_rng(0))
        made = Model(LstmHead(start), ("diving",), DIVING, Provenance({"a": 1}))
        save_model(path, made)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    flipped = folder / "flipped.safetensors"
    flipped.write_bytes(content)
    try:
        model = load_model(flipped)
    except AqaError:
        return
    width = len(next(iter(model.head.parameters["w_x"].T)))
    assert model.head.predict(np.ones((1, 1, width), np.float32)).shape == (1,)


@pytest.mark.parametrize(
    "fields",
    [
        {"low": 2.0, "high": 1.0},
        {"low": math.nan},
        {"level": 1.0},
        {"typical": (math.inf,)},
    ],
)
def test_calibration_that_no_residuals_gave(fields):
    sound = Calibration(-1.0, 1.0, 0.9, 5, 3)
    with pytest.raises(AqaError, match="calibration"):
        replace(sound, **fields)
