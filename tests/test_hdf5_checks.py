"""Hostile and damaged cache files: refused in one line, and nothing is followed.

Each hostile file is a sound cache in which one thing was changed with h5py, or byte by
byte; a canary beside it would show that something outside was read.
"""

import base64
import os
import random
import resource
import struct
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest

from aqa.cache import sandbox
from aqa.cache.errors import AqaError, UnreadableFile
from aqa.cache.parts import merge, verify
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache, write_cache

MADE = Provenance({"features": "test"})


def write(path, count=3):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, 1, 2, 3), np.float32)
    samples = [
        Sample(f"a/{row}", "diving", "test", 2.5, 103, "0" * 64) for row in range(count)
    ]
    return write_cache(path, samples, x, MADE)


@pytest.fixture
def cache(tmp_path):
    """A sound cache."""
    return write(tmp_path / "features.h5")


#: What aqa 0.1.0 wrote as version 1 for `write(path)`: text attributes of varying
#: length, whose heap HDF5 believes.
VERSION_1 = zlib.decompress(
    base64.b85decode(
        r"c-rlqOKclO7=UMOC)qYF&7&eIRBDw=DFtO__Dvf(h@|a-G!;Q=B~Y8$-"
        r"PtrWiG%G#AcR_p3rMXHLPE4xE*zjdE>$I3M?3@wE)~7>A#vi2I8mvG;`Pq>vBXY84GGTwNzR{{|DVTBe"
        r"y@K2I~l)oc;w*L&5vzHA*zZ}s0&qdUobISTbBAsAr&Ft7V_hStnVo4`bB-"
        r"0=>M0~QTeQB_~HwrqoMWv7;+q(iex_mHX?^dpFJAN<D$G<$R855b^&Mkg)Gm>a*oZ;&lHQ&KkZeHEB#k"
        r"?prFH%OhpyRnE%V^BxAC^zQ3gF-n|Q@#Fh1_sPBx>w-"
        r"w(np+1pJD3N}tq)H*RR4?l~i|xX)qR4)u_gOH*^WG_*)o4_&ij_+y+Fom`Oid9}OP0Hg-"
        r"3KHSN5)5#qNytX4#~#rC*QBzx7V)20a1SW(T(ZP;r&i2E_eKXw{w;KEcHfmXUxx5;!dnx;sM*;?X4}Z<"
        r"liZ{bpZeX00000001<Fp-"
        r"0|LkDvdd@Zr?0YrkC{EA0DoM|#@_7p{Koesbm3+5FJ;{^Zp!e;>NmZeC13*>Nbn=gy~v3-"
        r"_+)=X*!f^!pQqt>2wXzjtDxa2J162)?;g$Xq!1bNIP*xt!e%@mYPc>N9MkoZZM1wK)J_V<B^PpNsNQAq"
        r"U-mcie8_ukjqy7Bnn!6&+|hQc>;{qlSsl4n--o=ql$i)S8?|*h=q1<+?-9jX$p-"
        r"R8Emq+l3gI8Xk3BYPm$yOieQ^u6uUzx8isN+r+bM$Fyx%_k7p)9LAY%=$7euE+dvtWDaGEknC0Vbah@+"
        r"=2m1X=8XZV9e8FS&vW^KH%s-Y*t|@NeXL>P5}WFp$9z2?%)z>2GU{UNV9IsJb_vDI2?AZ?)FLDxIM5B-"
        r"#s-t?t8N3|1^@s600000003Ga1+~Za1VtGxMXB8rRFTnMo!;)Ku1%D~Jw2iR!T0V&<0KP_b9*a8RPDf-"
        r"Uz7ES_5^j5cMSbV8r#c!#4gs@PNWafPh*Yk<X$9wPh-"
        r"2?LS{x9+hHLeKi1ez<~4WiZ_YYKdxHL+Pu*I_{;SwJ$Ndff0001h)`JaVHb~eY{bR!4`!GRidvk))o3t"
        r"`S`&tL3^@6E-"
        r"`^`7)Up|;>2R{P<004lN#h+fBo|~%vdFl52Qx6kWrJ55}4IZcrky@`&RaYJRlOxMVRq$_N00000(7J@X"
        r"k>%_B<(qG<KAw`tBc#P+zG0+yBK^KFXhM8-X0$S-"
        r"TABIen#NQ0jsf^=Z25Rf1y=(A004j%Cp8?GOIw!GtB<Xsqoul3R6csDNio&!BbA}5Qaz{s(^Xn+uB!9c"
        r"^05`<ssI200HAf5s(L9#>c&5Q_NPQ!+?x<b?K@r>Vz@HX_4VxU+dB3yO)ei#4TGxz0000$%Yy&s^z_Wk"
        r"tb-WvS9cx7fRfYv^^#;>emXOUP;P!^I$td3yiAsd*OO(l;bB#|%tF@VC*?_7@_7Dog*-ZIa-"
        r"GDi+fGBw3IG5A02>WU<5a^~_e`BT#MX5i8-{Bbfo*V%nP~+!@dJ%w>M(2t+}F6xeWn-NaOP9S9Ftgt2E"
        r"K1&4eQvV8o|_MmO)I9YXQ-?Ly5%$;&O|-"
        r"o^9$rW4`ZD$248raTxWnW!Nq?xNW)yF{o!*y!Z;dfP2(poZ3F;9uAmi*~BoIk6o8B%r(u`{Clswe^DNP"
        r"8viP;`0=MfCOgaWD<6Lv9z!aRKTVX%Sm@Q_?<!j4*<2U|hR>1Js%S~Juk<6nI;j{1hvUy@GmCtV&3Qc1"
        r"uQZR|s(B<!{T&tho>+gCc=JK}9j@v(RqEFk`c0+l^D^OANaeZok(I9VFNq@>w*"
    )
)


@pytest.fixture
def version_1(tmp_path):
    """A sound cache of version 1."""
    path = tmp_path / "version_1.h5"
    path.write_bytes(VERSION_1)
    return path


@pytest.fixture
def canary(tmp_path):
    """Another sound cache; tells whether anything has read it."""
    path = write(tmp_path / "canary.h5")
    os.utime(path, ns=(1, 1))  # so old that even a lazy file system notes a reading
    before = path.stat().st_atime_ns

    class Canary:
        def __init__(self):
            self.path = path

        def sings(self):
            return path.stat().st_atime_ns == before

    return Canary()


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


def external_link(name):
    def change(file, canary):
        del file[name]
        file[name] = h5py.ExternalLink(canary, f"/{name}")

    return change


def soft_link(name, target):
    def change(file, _):
        del file[name]
        file[name] = h5py.SoftLink(target)

    return change


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


def rename(old, new):
    def change(file, _):
        file.move(old, new)

    return change


F4, STRING = np.zeros((3, 1, 2, 3), "f4"), h5py.string_dtype()
HUGE = (1 << 40, 1, 2, 3)

HOSTILE = {
    "external link": (external_link("features"), "ExternalLink to '.*canary"),
    "external group": (external_link("samples"), "ExternalLink to '.*canary"),
    "external column": (external_link("samples/key"), "ExternalLink"),
    "soft link": (soft_link("features", "/samples/score"), "SoftLink"),
    "dangling link": (soft_link("samples/key", "/nowhere"), "SoftLink"),
    "external storage": (external_storage, "stored outside, in .*canary"),
    "virtual": (virtual, "virtual"),
    "unlimited virtual": (unlimited_virtual, "virtual"),
    "group": (lambda f, _: (f.pop("features"), f.create_group("features")), "no data"),
    "dataset": (lambda f, _: (f.pop("samples"), f.create_dataset("samples", data=1)),
                "samples is no group"),
    "missing": (lambda f, _: f.pop("features"), "features is missing"),
    "missing column": (lambda f, _: f["samples"].pop("split"), "split is missing"),
    "one more": (lambda f, _: f.create_group("extra"), "no cache has"),
    "a million more": (
        lambda f, _: [f["samples"].create_group(str(n)) for n in range(2000)],
        "no cache has",
    ),
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
    "huge, chunked": (
        replace("features", shape=HUGE, dtype="f4", chunks=(1, 1, 2, 3)),
        "declares",
    ),
    "huge, contiguous": (replace("features", shape=HUGE, dtype="f4"), "declares"),
    "huge column": (replace("samples/key", shape=1 << 40, dtype="S8"), "declares"),
    "huge texts": (replace("samples/key", shape=3, dtype="S100000"), "100000 bytes"),
    "huge chunk": (
        replace("features", data=F4, chunks=(1 << 20, 1, 2, 3),
                maxshape=(None, 1, 2, 3)),
        "chunks .* beyond",
    ),
    "never written": (
        replace("features", shape=(3, 1, 2, 3), dtype="f4", chunks=(1, 1, 2, 3)),
        "not stored whole",
    ),
    "in a header": (
        lambda f, _: (f["samples"].pop("score"), compact(f["samples"], "score")),
        "not stored whole",
    ),
    "gzip": (replace("features", data=F4, compression="gzip"), "filter 1;"),
    "lzf": (replace("features", data=F4, compression="lzf"), "filter 32000;"),
    "unknown filter": (lambda f, _: unknown_filter(f), "filter 32123;"),
    "not UTF-8": (replace("samples/action", data=[b"\xff"] * 3), "damaged"),
    "hostile key": (
        replace("samples/key", data=[b"../a", b"b", b"c"], dtype=STRING),
        "leads outside",
    ),
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


def compact(group, name):
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((3,))
    kind = h5py.h5t.IEEE_F64LE
    made = h5py.h5d.create(group.id, name.encode(), kind, space, layout)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(3))


def unknown_filter(file):
    del file["samples/score"]
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk((3,))
    layout.set_filter(32123, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((3,))
    kind = h5py.h5t.IEEE_F64LE
    h5py.h5d.create(file["samples"].id, b"score", kind, space, layout)


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
        assert old.provenance == new.provenance == MADE
        np.testing.assert_array_equal(old.read(), new.read())
    merged = merge(cache.with_name("merged.h5"), [version_1])
    assert merged.read_bytes() == cache.read_bytes()


def test_a_text_of_four_gigabytes_is_not_allocated(version_1):
    # HDF5 fills them with zeros, and only then finds that nothing is there.
    heap = heap_of(version_1)
    reference = struct.pack("<IQ", len(MADE.json), heap)
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


def test_a_long_text_of_varying_length_is_refused(cache):
    # Every row could be that same text: small on disk, huge in memory.
    with h5py.File(cache, "r+") as file:
        del file["samples/action"]
        texts = ["x" * 100_000, "diving", "diving"]
        file["samples"].create_dataset("action", data=texts, dtype=STRING)
    assert "100000 bytes" in refusal(cache)


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

    call = sandbox.call
    monkeypatch.setattr(sandbox, "call", replace_then_call)
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
        at, bit = (
            rng.choice([rng.choice(used), rng.randrange(len(data))]),
            rng.randrange(8),
        )
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
                assert opened.provenance == MADE, (at, bit)
    assert found > 40


def test_damaged_features_are_an_error_to_read(cache):
    with FeatureCache.open(cache) as opened:
        feature = opened.read()[1].tobytes()
    patched(cache, feature, feature[::-1])
    with FeatureCache.open(cache) as opened:
        opened.read([0, 2])
        with pytest.raises(AqaError, match="damaged"):
            opened.read()
        with pytest.raises(AqaError, match="'a/1' is damaged"):
            opened.read_sound(1)
    assert verify(cache) == [f"{cache}: sample 'a/1' is damaged"]


def test_a_chunk_that_the_index_has_lost_is_not_read_as_zeros(cache):
    with h5py.File(cache) as file:
        offset = file["features"].id.get_chunk_info(2).chunk_offset
    # The key of the last chunk in the index: size, filters skipped, place in the array.
    key = struct.pack("<IIQ", 28, 0, offset[0])
    patched(cache, key, struct.pack("<IIQ", 28, 0, 7))
    assert "not stored whole" in refusal(cache)
