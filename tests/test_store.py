"""The cache file: what is written comes back, and anyone with h5py can write one."""

import hashlib
import json
import math
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from fakes import MADE, numbers, ours, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from aqa.cache.errors import AqaError
from aqa.cache.parts import verify
from aqa.cache.samples import Sample, path_problem
from aqa.cache.store import FeatureCache, write_cache

KEYS = ("diving/001", "diving/002", "gym_vault/001")


@pytest.fixture
def cache(tmp_path):
    """Three samples, written by us."""
    return write_cache(
        tmp_path / "features.h5",
        [sample(key) for key in KEYS],
        numbers(3, 2, 3, 4),
        MADE,
    )


def write_by_hand(path, count=3, text=None, layout=None, **file_options):
    """Write a cache after the format's description, with h5py alone."""
    x, text = numbers(count, 2, 3, 4), text or h5py.string_dtype()
    record = json.dumps({"weights": {"name": "someone's"}, "clip": 16}, indent=1)
    with h5py.File(path, "w", **file_options) as file:
        layout = {"chunks": (1, *x.shape[1:]), "fletcher32": True, **(layout or {})}
        file.create_dataset("features", data=x, **layout)
        samples = file.create_group("samples")

        def texts(name, values):
            values = [value.encode() for value in values]
            samples.create_dataset(name, data=np.array(values, text), dtype=text)

        texts("key", [f"kür/{row:05d}" for row in range(count)])
        texts("action", ["diving"] * count)
        texts("split", ["train", "test", ""] * (count // 3))
        texts("source_sha256", [f"{row:064x}" for row in range(count)])
        texts(
            "feature_sha256", [hashlib.sha256(row.tobytes()).hexdigest() for row in x]
        )
        samples["score"] = np.append(np.arange(count - 1) * 2.5, np.nan)
        samples["frames"] = np.arange(count, dtype=np.int32)
        file.attrs["format"] = "aqa-features"
        file.attrs["version"] = 1
        file.attrs["provenance"] = record
        file.attrs["provenance_sha256"] = hashlib.sha256(record.encode()).hexdigest()
        file.attrs["complete"] = 1
    return x


texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)
keys = texts.filter(lambda key: path_problem(key) is None)
rows = st.fixed_dictionaries(
    dict(
        action=texts.filter(lambda t: not set(t) & set("/\\") and t[:1] != "."),
        split=st.sampled_from(["train", "test", ""]),
        score=st.floats(allow_infinity=False),
        frames=st.integers(0, 2**31 - 1),
        source_sha256=st.just("") | st.binary(min_size=32, max_size=32).map(bytes.hex),
        damage=st.just("") | texts,
        source_probe=st.just("") | st.binary(min_size=32, max_size=32).map(bytes.hex),
        clips=st.just(0) | st.just(1),
        rate=st.just(0.0) | st.floats(1e-3, 1e3),
        extra=st.dictionaries(st.sampled_from(["fold", "Person", "ü"]), texts),
    )
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(keys, rows, min_size=1, max_size=5), st.data())
def test_what_is_written_comes_back(tmp_path_factory, table, data):
    shape = data.draw(st.tuples(*[st.integers(1, 3)] * 3))
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    size = math.prod(shape)
    values = st.lists(finite, min_size=size, max_size=size)
    x = [np.array(data.draw(values), np.float32).reshape(shape) for _ in table]
    samples = [Sample(key, **fields) for key, fields in table.items()]
    path = tmp_path_factory.mktemp("cache") / "features.h5"

    write_cache(path, samples, x, MADE)
    assert verify(path) == []
    with FeatureCache.open(path) as cache:
        assert cache.provenance == MADE and cache.shape == (len(table), *shape)
        assert list(cache.samples.key) == sorted(table)
        for row, key in enumerate(cache.samples.key):
            at = list(table).index(key)
            assert not cache.samples[row].differences(samples[at])
            assert cache.samples[row].rate == samples[at].rate
            assert cache.read([row]).tobytes() == x[at].tobytes()


def test_h5py_alone_reads_what_the_format_says(cache):
    x = numbers(3, 2, 3, 4)
    with h5py.File(cache) as file:
        assert set(file) == {"features", "samples"}
        names = "key action split score frames source_sha256 feature_sha256"
        assert set(file["samples"]) == set(names.split())
        assert file.attrs["format"] == b"aqa-features"
        assert file.attrs["version"] == 2 and file.attrs["complete"] == 1
        assert json.loads(file.attrs["provenance"]) == MADE.record
        digest = hashlib.sha256(file.attrs["provenance"]).hexdigest()
        assert file.attrs["provenance_sha256"] == digest.encode()
        assert file["features"].dtype == np.float32
        assert file["features"].chunks == (1, 2, 3, 4)
        np.testing.assert_array_equal(file["features"][:], x)
        assert tuple(file["samples/key"].asstr()[:]) == KEYS
        assert file["samples/score"].dtype == np.float64
        assert file["samples/frames"].dtype == np.int32
        for name in ("key", "action", "split"):
            assert (
                h5py.check_string_dtype(file["samples"][name].dtype).encoding == "utf-8"
            )
        for row in range(3):
            digest = hashlib.sha256(x[row].tobytes()).hexdigest()
            assert file["samples/feature_sha256"][row].decode() == digest
        for dataset in (file["features"], *file["samples"].values()):
            assert dataset.fletcher32, dataset.name
    # No heap: nothing that HDF5 would have to believe a file about.
    assert b"GCOL" not in cache.read_bytes()
    # Superblock version 0: what default libver writes.
    assert cache.read_bytes()[:9] == b"\x89HDF\r\n\x1a\n\0"


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"text": h5py.string_dtype("utf-8", 64)},
        {"text": h5py.string_dtype("ascii")},
        {"layout": {"chunks": (2, 2, 3, 4), "fletcher32": False}},
        {"layout": {"chunks": None, "fletcher32": False}},
        {"count": 3000},
    ],
    ids=["plain", "fixed texts", "ascii", "two per chunk", "contiguous", "long"],
)
def test_a_cache_that_h5py_alone_wrote_is_as_good_as_ours(tmp_path, written):
    x = write_by_hand(tmp_path / "f.h5", **written)
    assert verify(tmp_path / "f.h5") == []
    with FeatureCache.open(tmp_path / "f.h5") as cache:
        assert cache.samples.key == tuple(f"kür/{row:05d}" for row in range(len(x)))
        assert cache.samples.split[:3] == ("train", "test", "")
        assert cache.samples.score[1] == 2.5 and np.isnan(cache.samples.score[-1])
        assert cache.samples.frames.tolist() == list(range(len(x)))
        assert cache.provenance.record["weights"] == {"name": "someone's"}
        np.testing.assert_array_equal(cache.read(), x)


def test_bytes_are_the_same_in_another_process(tmp_path, cache):
    """At another time, in another folder, in another order."""
    script = (
        "import sys, time, test_store as t\n"
        "time.sleep(1.1)  # a time stamp would have moved on\n"
        "samples = [t.sample(key) for key in reversed(t.KEYS)]\n"
        "x = t.numbers(3, 2, 3, 4)[::-1]\n"
        "t.write_cache(sys.argv[1], samples, iter(x), t.MADE)\n"
    )
    path = tmp_path / "elsewhere" / "other.h5"
    environment = {**ours(), "PYTHONHASHSEED": "1", "MALLOC_PERTURB_": "165"}
    subprocess.run([sys.executable, "-c", script, path], check=True, env=environment)
    assert path.read_bytes() == cache.read_bytes()


def test_rows_are_read_in_the_order_asked_for_into_the_array_given(tmp_path, cache):
    x = numbers(3, 2, 3, 4)
    with FeatureCache.open(cache) as opened:
        np.testing.assert_array_equal(opened.read(), x)
        for rows in ([2], [2, 1, 0], [0, 1, 1, 2, 0, 1], np.array([1, 2]), []):
            out = np.full((len(rows), 2, 3, 4), np.nan, np.float32)
            assert opened.read(rows, out=out) is out
            np.testing.assert_array_equal(out, x[list(rows)])
        np.testing.assert_array_equal(opened.read_sound(1), x[1])
        mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "f4", x.shape)
        opened.read(out=mapped)
    mapped.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), x)


@pytest.mark.parametrize(
    ("rows", "out", "error"),
    [
        (None, np.empty((3, 2, 3, 4)), AqaError),
        (None, np.empty((2, 2, 3, 4), np.float32), AqaError),
        (None, np.empty((3, 2, 4, 3), np.float32).swapaxes(2, 3), AqaError),
        ([3], None, IndexError),
        ([-1], None, IndexError),
        ([0, 99], None, IndexError),
    ],
)
def test_rows_that_are_not_there_and_arrays_that_do_not_fit(cache, rows, out, error):
    with FeatureCache.open(cache) as opened, pytest.raises(error):
        opened.read(rows, out)


def spoilt(value):
    x = numbers(3, 2, 3, 4)
    x[1, 1, 2, 3] = value
    return x


@pytest.mark.parametrize(
    ("keys", "x", "message"),
    [
        ("abc", spoilt(np.nan), "'b': features are not finite"),
        ("abc", spoilt(np.inf), "'b': features are not finite"),
        ("abc", numbers(3, 2, 3, 4).astype(np.float64), "expected float32"),
        ("abc", numbers(3, 4), "expected float32"),
        ("abc", numbers(3, 2, 0, 4), "expected float32"),
        (
            "abc",
            [*numbers(2, 2, 3, 4), numbers(1, 2, 3, 5)[0]],
            "'c': features are .* before",
        ),
        ("aab", numbers(3, 2, 3, 4), "'a' is there twice"),
        ("", numbers(0, 2, 3, 4), "no samples"),
        ("abcd", numbers(3, 2, 3, 4), "shorter"),  # a defect of the caller
    ],
)
def test_what_no_cache_may_hold_is_not_written(tmp_path, keys, x, message):
    path = tmp_path / "features.h5"
    path.write_bytes(b"what was there")
    with pytest.raises(ValueError, match=message):
        write_cache(path, [sample(key) for key in keys], x, MADE)
    assert [p.name for p in tmp_path.iterdir()] == ["features.h5"]
    assert path.read_bytes() == b"what was there"


@pytest.mark.parametrize("content", [None, b"", b"text", "folder", "pipe"])
def test_what_is_no_hdf5_file_is_one_line(tmp_path, content):
    path = tmp_path / "features.h5"
    if content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(AqaError, match=str(path)) as error:
        FeatureCache.open(path)
    assert "\n" not in str(error.value)


def test_a_cache_that_is_still_open_does_no_harm_at_the_end(cache):
    script = (
        "import sys; from aqa.cache.store import FeatureCache\n"
        "cache = FeatureCache.open(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script, cache], check=True)
