"""Hostile weight files: whatever is in one, the answer is weights or an AqaError."""

import io
import json
import resource
import struct
import sys
import tracemalloc
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from aqa.cache.errors import AqaError
from aqa.extract.c3d import ARCHITECTURES
from aqa.extract.weights import read
from aqa.extract.weights.caffe import WireError, fields, read_blob, read_model
from aqa.extract.weights.formats import kind_of
from aqa.extract.weights.load import inspect, load_weights, read_mean

MODERATE = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


ONLY_LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux limits memory so"
)
VARINT, BYTES = 0, 2  # wire types


def parse(view):
    return list(fields(memoryview(view)))


def test_fields_by_hand():
    # The three examples of the format's own description, and a fixed32.
    assert parse(b"\x08\x96\x01") == [(1, 150)]
    assert parse(b"\x12\x07testing") == [(2, b"testing")]
    assert parse(b"\x1a\x03\x08\x96\x01") == [(3, b"\x08\x96\x01")]
    assert parse(b"\x25\x00\x00\x80\x3f") == [(4, struct.pack("<f", 1))]
    assert parse(b"") == []


@pytest.mark.parametrize(
    "view",
    [
        b"\x08",
        b"\x08\xff",
        b"\x08" + b"\xff" * 9 + b"\x7f",  # over 64 bits
        b"\x12\x08testing",
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x25\x00",
        b"\x00\x00",  # field number 0
        b"\x0b\x0c",  # wire types 3 and 7
        b"\x0f",
    ],
)
def test_lying_lengths_and_unknown_types_are_refused(view):
    with pytest.raises(WireError, match="does not end|no field of a message"):
        parse(view)


@pytest.mark.parametrize(
    "message",
    [
        b"\x3a\x02\x08\x03\x2a\x04" + bytes(4),  # shape (3), one number
        b"\x3a\x0b\x08" + b"\xff" * 9 + b"\x01\x2a\x04" + bytes(4),
        b"\x3a\x0c" + b"\x08\x01" * 6 + b"\x2a\x04" + bytes(4),  # six axes
        b"\x3a\x08\x0a\x06" + b"\x01" * 6 + b"\x2a\x04" + bytes(4),
        b"\x28\x02\x32\x04" + bytes(4),  # old, width 2, one number
        b"\x2a\x03" + bytes(3),  # not a whole number of numbers
    ],
)
def test_a_blob_whose_shape_lies_is_refused(message):
    with pytest.raises(WireError):
        read_blob(memoryview(message)).array()


def read_numbers(data):
    for blobs in read_model(memoryview(data))[1].values():
        assert all(each.array().shape == each.shape for each in blobs)


@pytest.mark.parametrize(
    "reader", [parse, lambda d: read_blob(memoryview(d)).array(), read_numbers]
)
@MODERATE
@given(data=st.binary(max_size=200))
@example(b"A" + np.array([1e300]).tobytes())  # a double that float32 cannot hold
def test_any_bytes_are_a_message_or_a_wire_error(reader, data):
    with suppress(WireError):
        reader(data)


def message(number, wire, value):
    key = bytes([number << 3 | wire])
    return key + (bytes([len(value)]) + value if wire == BYTES else value)


#: Messages of the numbers that Caffe uses, nested as it nests them, with any values.
LEAVES = st.one_of(
    st.builds(
        lambda n, v: message(n, VARINT, v),
        st.integers(1, 8),
        st.sampled_from([b"\0", b"\x01", b"\x04", b"\xff\xff\xff\xff\x0f"]),
    ),
    st.builds(
        lambda n, v: message(n, BYTES, v),
        st.integers(1, 8),
        st.sampled_from([b"", bytes(4), bytes(16), b"\x08\x02", b"\x0a\x01\x04"]),
    ),
)
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda n, v: message(n, BYTES, b"".join(v)[:127]),
        st.sampled_from([2, 6, 7]),
        st.lists(inner, max_size=4),
    ),
    max_leaves=12,
)


@MODERATE
@given(st.lists(NESTED, max_size=4).map(b"".join))
def test_any_nest_of_caffes_fields_is_a_model_or_a_wire_error(data):
    with suppress(WireError):
        read_numbers(data)


def test_lying_sizes_allocate_nothing():
    """A promise of terabytes, in a shape or a length, is checked before use."""
    huge = b"\xff" * 5 + b"\x07"  # 2**40 and more
    tracemalloc.start()
    for data in (
        b"\x12" + huge,
        b"\x3a\x07\x08" + huge + b"\x2a\x04" + bytes(4),
        b"\x3a\x0e" + (b"\x08" + huge) * 2 + b"\x2a\x04" + bytes(4),
    ):
        with pytest.raises(WireError):
            read_blob(memoryview(data))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def answers(path):
    """Load and inspect: neither may raise anything but an AqaError."""
    try:
        load_weights(path)
    except AqaError as error:
        assert str(error).isprintable() and len(str(error)) < 2000
    inspect(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "F8_E4M3", "X", 1]),
        "shape": st.lists(st.integers(-1, 2**64), max_size=5) | JSON,
        "data_offsets": st.lists(st.integers(-1, 2**64), max_size=3) | JSON,
        "surplus": JSON,
    },
)
NAMES = st.sampled_from(["conv1a.weight", "fc6.weight", "__metadata__", "mean_image"])


@MODERATE
@given(
    st.dictionaries(NAMES | st.text(max_size=5), ENTRY | JSON, max_size=5),
    st.binary(max_size=64),
)
@example(
    {"fc6.weight": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}, b""
)
@example({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, b"")
@example({"__metadata__": {"aqa": 1}}, b"")
@example({"conv1a.weight": ["\n\x1b"]}, b"")  # found: it went into the message
@example({}, b"")
def test_any_safetensors_header_is_refused_in_a_line(tmp_path, header, data):
    text = json.dumps(header).encode()
    (tmp_path / "w").write_bytes(struct.pack("<Q", len(text)) + text + data)
    answers(tmp_path / "w")


@pytest.mark.parametrize("length", [0, 1, 2**27, 2**63, 2**64 - 1])
def test_a_safetensors_length_that_lies_is_refused(tmp_path, length):
    (tmp_path / "w").write_bytes(struct.pack("<Q", length) + b'{"a": 1}')
    answers(tmp_path / "w")


def tiny():
    state = {
        name: torch.zeros(shape)
        for name, shape in ARCHITECTURES["c3d-tiny"].shapes().items()
        if not name.startswith("fc6")
    }
    return state | {"fc6.weight": torch.zeros(1).expand(256, 1024)}


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


RUN = {"epoch": 1, "state_dict": tiny()}
WHOLE = {
    "zip": saved(RUN),
    "legacy": saved(RUN, _use_new_zipfile_serialization=False),
    "safetensors": save({name: value.contiguous() for name, value in tiny().items()}),
}


@pytest.mark.parametrize("kind", WHOLE)
@settings(MODERATE, max_examples=40)
@given(data=st.data())
def test_a_file_with_bytes_changed_is_weights_or_an_error(tmp_path, kind, data):
    whole = bytearray(WHOLE[kind])
    # What structure there is lies at the two ends; the middle is numbers.
    ends = st.integers(0, 3000) | st.integers(len(whole) - 3000, len(whole) - 1)
    for place in data.draw(st.lists(ends, min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del whole[data.draw(ends) :]
    (tmp_path / "w").write_bytes(whole)
    answers(tmp_path / "w")


@ONLY_LINUX
def test_a_zip_with_two_directories_is_refused(tmp_path):
    """A small honest directory at the end; the stated place leads to a bomb."""
    honest, bomb = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(honest, "w") as archive:
        archive.writestr("w/data.pkl", b"")
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", bytes(1 << 29))
    inner, outer = bomb.getvalue(), honest.getvalue()
    at = outer.index(b"PK\x01\x02")
    end = bytearray(outer[at:])
    end[-6:-2] = struct.pack("<I", inner.index(b"PK\x01\x02"))
    data = inner[: inner.rindex(b"PK\x05\x06")] + end
    (tmp_path / "w").write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        AqaError, match="not a sound PyTorch file|more than .* MiB of m"
    ):
        load_weights(tmp_path / "w")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 17  # KiB


def rezipped(content, path, change=lambda name, data: data, **options):
    """Write a zip of torch.save anew, some of its files changed."""
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(path, "w", **options) as new,
    ):
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


@ONLY_LINUX
def test_a_deflated_checkpoint_gets_no_gigabyte(tmp_path):
    """torch.save never compresses; a storage of zeros would shrink a thousandfold."""
    whole = saved({"conv1a.weight": torch.zeros(1 << 27)})
    options = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 1}
    rezipped(whole, tmp_path / "w", **options)
    assert (tmp_path / "w").stat().st_size < 1 << 23
    with pytest.raises(AqaError, match="needs more than 2.. MiB of memory"):
        load_weights(tmp_path / "w")


def hungry(size, path):
    """Write a checkpoint of a few hundred bytes that asks for `size` of them."""
    pickled = b"\x80\x02cbuiltins\nbytearray\nJ" + struct.pack("<i", size) + b"\x85R."
    rezipped(
        saved({"a": b""}),
        path,
        lambda name, data: pickled if name.endswith("data.pkl") else data,
    )


@ONLY_LINUX
def test_a_small_checkpoint_gets_no_gigabyte(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_DATA)
    hungry(2**31 - 1, tmp_path / "w")
    with pytest.raises(AqaError, match="needs more than 256 MiB of memory"):
        load_weights(tmp_path / "w")
    hungry(1000, tmp_path / "w")
    with pytest.raises(AqaError, match="expected a state dict, found bytearray"):
        load_weights(tmp_path / "w")
    assert resource.getrlimit(resource.RLIMIT_DATA) == limit


def test_a_safetensors_header_may_be_of_any_length(tmp_path):
    """Its length comes first, and may look like the start of anything else."""
    path = tmp_path / "w.pkl"
    for length in (*range(2, 700), 0x8B1F, 0x3C, 0xFD37):
        header = b"{}".ljust(length)
        path.write_bytes(struct.pack("<Q", length) + header)
        assert kind_of(path) == "safetensors", length


def test_a_message_in_many_pieces_takes_no_more_memory_than_it_may(
    tmp_path, monkeypatch
):
    """In the child; here, nothing but its answer arrives."""
    monkeypatch.setattr(read, "ROOM", 64 << 20)
    crumbs = b"\x2a\x04" + bytes(4)
    one = b"\x32\x06" + crumbs
    layers = b"".join(
        b"\x12\x0c\x22\x02%c%c" % (33 + n // 90, 33 + n % 90) + one for n in range(2000)
    )
    size = len(one) * 400_000
    length = bytes([size >> 7 * place & 0x7F | 0x80 for place in range(3)])
    pieces = b"\x12" + length + bytes([size >> 21]) + one * 400_000
    for data, reason in ((pieces, "needs more"), (layers, "not a C3D")):
        (tmp_path / "w").write_bytes(data)
        tracemalloc.start()
        with pytest.raises(AqaError, match=reason):
            load_weights(tmp_path / "w")
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
        tracemalloc.stop()


def test_names_in_a_file_cannot_write_to_the_terminal(tmp_path):
    torch.save({"conv1a.weight\n\x1b[31m": torch.zeros(1)}, tmp_path / "w")
    answers(tmp_path / "w")
    torch.save({"\x1b" * 999: 3}, tmp_path / "w")
    answers(tmp_path / "w")


# Means.


def test_means_of_every_form(tmp_path):
    cube = np.random.default_rng(0).uniform(0, 255, (3, 4, 5, 6)).astype("f")
    path = tmp_path / "mean.npy"
    for stored in (cube, cube[None], cube.astype("f8"), cube[None, None]):
        np.save(path, stored)
        np.testing.assert_array_equal(read_mean(path), stored.reshape(cube.shape))
    np.save(path, cube[:, 0])
    assert read_mean(path).shape == (3, 1, 5, 6)
    found = inspect(path)
    assert found["kind"] == "mean" and len(found["channel_means"]) == 3


@pytest.mark.parametrize(
    ("volume", "reason"),
    [
        (np.zeros((16, 3, 8, 8), "f"), "transpose it"),
        (np.zeros((3, 8), "f"), "transpose it"),
        (np.full((3, 1, 8, 8), 300, "f"), "grey levels 0-255"),
        (np.full((3, 1, 8, 8), np.nan, "f"), "grey levels 0-255"),
        (np.full((3, 1, 8, 8), 1e300), "grey levels 0-255"),
        (np.zeros((3, 1, 8, 8), complex), "expected numbers"),
        (np.array([{}]), "expected numbers, found object"),
    ],
)
def test_other_arrays_are_no_means(tmp_path, volume, reason):
    np.save(tmp_path / "mean.npy", volume)
    with pytest.raises(AqaError, match=reason):
        read_mean(tmp_path / "mean.npy")


@MODERATE
@given(shape=st.text("0123456789,() -", max_size=20), data=st.binary(max_size=50))
@example(shape="(3, 99999999999, 9999, 9999)", data=b"")
@example(shape="(-3, -4)", data=bytes(48))
def test_a_npy_header_that_lies_is_refused(tmp_path, shape, data):
    header = (
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    )
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
    (tmp_path / "mean.npy").write_bytes(start + header + data)
    with suppress(AqaError):
        read_mean(tmp_path / "mean.npy")
