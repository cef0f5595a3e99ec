"""Hostile and damaged cache files: refused in one line, and nothing is followed.

Each hostile file is a sound cache in which one thing was changed with h5py, or byte by
byte; a canary beside it would show that something outside was read.
"""

import os
import random
import resource
import shutil
import struct
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from fakes import numbers, sample, spoil

from aqa.cache import processes
from aqa.cache.errors import AqaError, UnreadableFile
from aqa.cache.parts import merge, verify
from aqa.cache.provenance import Provenance
from aqa.cache.store import FeatureCache, write_cache

TEST = Provenance({"features": "test"})


def write(path, count=3):
    samples = [sample(f"a/{row}", split="test", score=2.5) for row in range(count)]
    return write_cache(path, samples, numbers(count, 1, 2, 3), TEST)


@pytest.fixture
def cache(tmp_path):
    """A sound cache."""
    return write(tmp_path / "features.h5")


#: What aqa 0.1.0 wrote as version 1 for `write(path)`: text attributes of varying
#: length, whose heap HDF5 believes.
VERSION_1 = Path(__file__).parent / "golden" / "version_1.h5"


@pytest.fixture
def version_1(tmp_path):
    """A sound cache of version 1."""
    return Path(shutil.copy(VERSION_1, tmp_path))


@pytest.fixture
def canary(tmp_path):
    """Another sound cache; tells whether anything has read it."""
    path = write(tmp_path / "canary.h5")
    os.utime(path, ns=(1, 1))  # so old that even a lazy file system notes a reading
    before = path.stat().st_atime_ns
    return SimpleNamespace(path=path, sings=lambda: path.stat().st_atime_ns == before)


def refusal(path):
    """Return the one line that refuses `path`."""
    with pytest.raises(AqaError) as error:
        FeatureCache.open(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable() and len(message) < 600, message
    assert verify(path) == [message]
    return message


def replace(name, **created):
    """Make a change that puts another dataset in the place of one."""

    def change(file, _):
        del file[name]
        file.create_dataset(name, **created)

    return change


def link(name, made):
    """Make a change that puts a link in the place of a member."""

    def change(file, canary):
        del file[name]
        file[name] = made(canary)

    return change


def to_canary(name):
    return link(name, lambda canary: h5py.ExternalLink(canary, f"/{name}"))


def to_own(name, target):
    return link(name, lambda _: h5py.SoftLink(target))


def external_storage(file, canary):
    del file["features"]
    external = [(canary, 0, 72)]
    file.create_dataset("features", (3, 1, 2, 3), "f4", external=external)


def virtual(file, canary):
    del file["features"]
    layout = h5py.VirtualLayout((3, 1, 2, 3), "f4")
    layout[:] = h5py.VirtualSource(canary, "features", (3, 1, 2, 3))
    file.create_virtual_dataset("features", layout)


def unlimited_virtual(file, canary):
    del file["samples/score"]
    source = h5py.VirtualSource(canary, "samples/score", (3,), maxshape=(None,))
    layout = h5py.VirtualLayout((3,), "f8", maxshape=(None,))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    file.create_virtual_dataset("samples/score", layout)


def attribute(name, value):
    def change(file, _):
        if value is None:
            del file.attrs[name]
        else:
            file.attrs[name] = value

    return change


F4, STRING = np.zeros((3, 1, 2, 3), "f4"), h5py.string_dtype()
HUGE, SAMPLE = (1 << 40, 1, 2, 3), (1, 1, 2, 3)

HOSTILE = {
    "external link": (to_canary("features"), "ExternalLink to '.*canary"),
    "external group": (to_canary("samples"), "ExternalLink to '.*canary"),
    "external column": (to_canary("samples/key"), "ExternalLink"),
    "soft link": (to_own("features", "/samples/score"), "SoftLink"),
    "dangling link": (to_own("samples/key", "/nowhere"), "SoftLink"),
    "external storage": (external_storage, "stored outside, in .*canary"),
    "virtual": (virtual, "virtual"),
    "unlimited virtual": (unlimited_virtual, "virtual"),
    "group": (lambda f, _: (f.pop("features"), f.create_group("features")), "no data"),
    "dataset": (lambda f, _: (f.pop("samples"), f.create_dataset("samples", data=1)),
                "samples is no group"),
    "missing": (lambda f, _: f.pop("features"), "features is missing"),
    "missing column": (lambda f, _: f["samples"].pop("split"), "split is missing"),
    "one more": (lambda f, _: f.create_group("extra"), "no cache has"),
    "a million more": (lambda f, _: [f["samples"].create_group(str(n))
                                     for n in range(2000)], "no cache has"),
    "loop": (lambda f, _: f["samples"].__setitem__("loop", f["/"]), "no cache has"),
    "double": (replace("features", data=F4.astype("f8")), "float64, not float32"),
    "half": (replace("features", data=F4.astype("f2")), "float16, not float32"),
    "swapped": (replace("features", data=F4.astype(">f4")), ">f4, not float32"),
    "objects": (replace("samples/score", data=["a"] * 3, dtype=STRING), "not float64"),
    "references": (replace("samples/key", shape=3, dtype=h5py.ref_dtype), "not text"),
    "numbers": (replace("samples/key", data=[1, 2, 3]), "int64, not text"),
    "wide": (replace("samples/frames", data=np.zeros(3, "i8")), "int64, not int32"),
    "unsigned": (replace("samples/frames", data=np.zeros(3, "u4")), "not int32"),
    "rank": (replace("features", data=F4[0]), "expected 4 dimensions"),
    "scalar": (replace("samples/score", data=1.0), "expected 1 dimensions"),
    "null": (replace("samples/score", data=h5py.Empty("f8")), "expected 1 dimensions"),
    "empty": (replace("features", data=F4[:0]), "never empty"),
    "fewer rows": (replace("samples/score", data=np.zeros(2)), "2 of score for 3"),
    "more rows": (replace("samples/frames", data=np.zeros(4, "i4")), "4 of frames"),
    "huge, chunked": (replace("features", shape=HUGE, dtype="f4", chunks=SAMPLE),
                      "declares"),
    "huge, contiguous": (replace("features", shape=HUGE, dtype="f4"), "declares"),
    "huge column": (replace("samples/key", shape=1 << 40, dtype="S8"), "declares"),
    "huge texts": (replace("samples/key", shape=3, dtype="S100000"), "100000 bytes"),
    "huge chunk": (replace("features", data=F4, chunks=(1 << 20, 1, 2, 3),
                           maxshape=(None, 1, 2, 3)), "chunks .* beyond"),
    "never written": (replace("features", shape=F4.shape, dtype="f4", chunks=SAMPLE),
                      "not stored whole"),
    "in a header": (lambda f, _: low_level(f, "compact"), "not stored whole"),
    "gzip": (replace("features", data=F4, compression="gzip"), "filter 1;"),
    "lzf": (replace("features", data=F4, compression="lzf"), "filter 32000;"),
    "unknown filter": (lambda f, _: low_level(f, "filter"), "filter 32123;"),
    "not UTF-8": (replace("samples/action", data=[b"\xff"] * 3), "damaged"),
    "hostile key": (replace("samples/key", data=[b"../a", b"b", b"c"], dtype=STRING),
                    "leads outside"),
    # Every row could be that same text: small on disk, huge in memory.
    "long text": (replace("samples/action", data=["x" * 100_000] * 3, dtype=STRING),
                  "100000 bytes"),
    "hostile action": (replace("samples/action", data=["a/../b"] * 3), "file's name"),
    "terminal": (replace("samples/split", data=["\x1b[2J"] * 3, dtype=STRING), "split"),
    "unsorted": (replace("samples/key", data=["b", "a", "c"]), "not sorted"),
    "twice": (replace("samples/key", data=["a", "b", "b"]), "twice"),
    "infinite": (replace("samples/score", data=np.full(3, np.inf)), "infinite"),
    "label": (replace("samples/score", data=np.zeros(3)), "samples are damaged"),
    "format": (attribute("format", "aqa-model"), "format is 'aqa-model'"),
    "no format": (attribute("format", None), "format"),
    "version": (attribute("version", 3), "version is '3'; expected 1 or 2: .* newer"),
    "version as text": (attribute("version", "1"), "version"),
    "unfinished": (attribute("complete", None), "complete"),
    "incomplete": (attribute("complete", 0), "complete is '0'"),
    "array attribute": (attribute("version", [1, 1]), "neither one text nor"),
    "float attribute": (attribute("version", 1.0), "neither one text nor"),
    "object attribute": (attribute("provenance", h5py.Empty("f4")), "neither one text"),
    "no provenance": (attribute("provenance", None), "provenance"),
    "other provenance": (attribute("provenance", "{}"), "provenance is damaged"),
    "long provenance": (attribute("provenance", "x" * 70000), "more than 65536 bytes"),
    "deep provenance": (attribute("provenance", "[" * 50000), "provenance"),
}  # fmt: skip


def low_level(file, kind):
    """Make a score column with HDF5's own calls: compact, or of an unknown filter."""
    del file["samples/score"]
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if kind == "compact":
        layout.set_layout(h5py.h5d.COMPACT)
    else:
        layout.set_chunk((3,))
        layout.set_filter(32123, h5py.h5z.FLAG_OPTIONAL, ())
    space, double = h5py.h5s.create_simple((3,)), h5py.h5t.IEEE_F64LE
    made = h5py.h5d.create(file["samples"].id, b"score", double, space, layout)
    if kind == "compact":
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(3))


def test_what_the_system_refuses_is_not_damage(cache):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(UnreadableFile, match=f"{cache}: cannot be read: Too many"):
            FeatureCache.open(cache)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert verify(cache) == []


def test_a_promise_of_millions_of_chunks_is_not_listed(cache):
    with h5py.File(cache, "r+") as file:
        del file["features"]
        file.create_dataset("features", (1 << 20, 1, 1, 1), "f4", chunks=(1, 1, 1, 1))
    os.truncate(cache, 1 << 23)  # as long as is promised, and nothing in it
    tracemalloc.start()
    assert "not stored whole" in refusal(cache)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(cache, canary, name):
    change, message = HOSTILE[name]
    with h5py.File(cache, "r+") as file:
        change(file, str(canary.path))
    os.utime(canary.path, ns=(1, 1))
    with pytest.raises(AqaError, match=message):
        FeatureCache.open(cache)
    refusal(cache)
    assert canary.sings()


def test_the_canary_would_be_heard(canary):
    canary.path.read_bytes()
    if canary.sings():
        pytest.skip("this file system does not note readings")


def patched(path, old, new, count=1):
    data = path.read_bytes()
    assert data.count(old) >= count
    path.write_bytes(data.replace(old, new, count))


def heap_of(path):
    return path.read_bytes().index(b"GCOL")


def test_a_cache_of_version_1_is_read_and_written_anew_as_version_2(version_1, cache):
    assert verify(version_1) == []
    with FeatureCache.open(version_1) as old, FeatureCache.open(cache) as new:
        assert (old.version, new.version) == (1, 2)
        assert list(old.samples) == list(new.samples)
        assert old.provenance == new.provenance == TEST
        np.testing.assert_array_equal(old.read(), new.read())
    merged = merge(cache.with_name("merged.h5"), [version_1])
    assert merged.read_bytes() == cache.read_bytes()


def test_a_text_of_four_gigabytes_is_not_allocated(version_1):
    # HDF5 fills them with zeros, and only then finds that nothing is there.
    heap = heap_of(version_1)
    reference = struct.pack("<IQ", len(TEST.json), heap)
    patched(version_1, reference, struct.pack("<IQ", 0xFF00_0000, heap))
    tracemalloc.start()
    refusal(version_1)
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 8, 17, 2**40, 2**64 - 1])
@pytest.mark.parametrize("at", [8, 24, 4000])
def test_a_heap_that_lies_about_its_sizes_does_not_hang(version_1, at, size):
    heap = heap_of(version_1)
    data = bytearray(version_1.read_bytes())
    if at == 4000:  # the free space at the end
        at = data.rindex(struct.pack("<HH4x", 0, 0), heap, heap + 4096) - heap + 8
    data[heap + at : heap + at + 8] = struct.pack("<Q", size)
    version_1.write_bytes(data)
    try:
        FeatureCache.open(version_1).close()
    except AqaError as error:
        assert str(error).startswith(f"{version_1}: ") and str(error).isprintable()


def test_texts_of_varying_length_under_new_headers_are_read(version_1, tmp_path):
    with (
        h5py.File(version_1) as old,
        h5py.File(tmp_path / "g.h5", "w", libver="latest", track_order=True) as new,
    ):
        for name in old:
            old.copy(name, new)
        new.attrs.update(old.attrs)
    assert verify(tmp_path / "g.h5") == []


def test_a_cache_that_is_replaced_while_it_is_opened_is_not_mixed_up(
    version_1, cache, monkeypatch
):
    """The child must read the file that is open here, not its successor."""

    def replace_then_call(function, path):
        os.replace(cache, path)
        return call(function, path)

    call = processes.call
    monkeypatch.setattr(processes, "call", replace_then_call)
    with pytest.raises(UnreadableFile, match="replaced while it was opened"):
        FeatureCache.open(version_1)


def test_truncated_at_any_length_it_is_refused(cache):
    data = cache.read_bytes()
    for size in [*range(0, len(data), 997), len(data) - 1]:
        cache.write_bytes(data[:size])
        refusal(cache)


def test_a_flipped_bit_is_found_or_does_no_harm(cache):
    data = cache.read_bytes()
    with FeatureCache.open(cache) as sound:
        x, samples = sound.read().tobytes(), list(sound.samples)
    rng = random.Random(os.environ.get("AQA_SEED", 0))
    # Half of the file is padding that nobody reads.
    used = [at for at, byte in enumerate(data) if byte]
    found = 0
    for _ in range(150):
        at = rng.choice([rng.choice(used), rng.randrange(len(data))])
        bit = rng.randrange(8)
        spoilt = bytearray(data)
        spoilt[at] ^= 1 << bit
        cache.write_bytes(spoilt)
        problems = verify(cache)
        found += bool(problems)
        assert all(problem.isprintable() for problem in problems)
        if not problems:
            with FeatureCache.open(cache) as opened:
                assert opened.read().tobytes() == x, (at, bit)
                assert list(opened.samples) == samples, (at, bit)
                assert opened.provenance == TEST, (at, bit)
    assert found > 40


def test_damaged_features_are_an_error_to_read(cache):
    spoil(cache, numbers(3, 1, 2, 3)[1])
    with FeatureCache.open(cache) as opened:
        opened.read([0, 2])
        with pytest.raises(AqaError, match="damaged"):
            opened.read()
        with pytest.raises(AqaError, match="'a/1' is damaged"):
            opened.read_sound(1)


def test_a_chunk_that_the_index_has_lost_is_not_read_as_zeros(cache):
    with h5py.File(cache) as file:
        offset = file["features"].id.get_chunk_info(2).chunk_offset
    # The key of the last chunk in the index: size, filters skipped, place in the array.
    key = struct.pack("<IIQ", 28, 0, offset[0])
    patched(cache, key, struct.pack("<IIQ", 28, 0, 7))
    assert "not stored whole" in refusal(cache)
