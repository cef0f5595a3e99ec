"""Features made elsewhere: taken as numbers or refused, and never from elsewhere."""

import hashlib
import io
import math
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqa.cache.errors import AqaError
from aqa.cache.exchange import import_features, read_features
from aqa.cache.files import probe
from aqa.cache.parts import verify, write_part
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache

HEADER = "key,action,score,split,file\n"


@pytest.fixture
def folder(tmp_path):
    """A folder of features, and room for files that must not be read beside it."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def numbers(shape=(4, 5), kind=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(kind)


def table(folder, rows):
    path = folder / "labels.csv"
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def test_features_come_in_with_their_labels(tmp_path, folder):
    (folder / "deep").mkdir()
    x = [numbers(seed=seed) for seed in range(3)]
    np.save(folder / "deep" / "b.npy", x[0])
    np.save(folder / "a.npy", x[1].astype(np.float64))
    np.save(folder / "c.npy", np.asfortranarray(x[2])[None])
    rows = ["v/b,diving,81.5,train,deep/b.npy", "v/a,,,,a.npy", "v/c,x,1,test,c.npy"]
    seen = []
    made = import_features(
        table(folder, rows), "I3D", tmp_path / "f.h5", lambda *step: seen.append(step)
    )
    path = made.cache
    assert (made.samples, made.shape, made.notes) == (3, (1, 4, 5), ())
    assert verify(path) == []
    with FeatureCache.open(path) as cache:
        assert cache.provenance.record == {"features": "I3D", "imported": True}
        assert cache.samples.key == ("v/a", "v/b", "v/c") and cache.shape == (
            3,
            1,
            4,
            5,
        )
        np.testing.assert_array_equal(
            cache.read(), np.stack([x[1], x[0], x[2]])[:, None]
        )
        digest = hashlib.sha256((folder / "deep" / "b.npy").read_bytes()).hexdigest()
        seen_at = probe(folder / "deep" / "b.npy")
        expected = Sample(
            "v/b", "diving", "train", 81.5, 0, digest, source_probe=seen_at
        )
        assert cache.samples[1] == expected
        assert math.isnan(cache.samples.score[0])
    assert seen[-1] == (3, 3, str(path)) and len(seen) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.h5", "in"]


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5)])
def test_every_float_is_cast_as_numpy_casts_it(tmp_path, folder, kind, shape):
    x = numbers(shape, kind)
    np.save(folder / "x.npy", x)
    import_features(table(folder, ["x,a,1,train,x.npy"]), "I3D", tmp_path / "f.h5")
    with FeatureCache.open(tmp_path / "f.h5") as cache:
        read = cache.read()
    assert read.shape == (1, *((1,) + shape)[-3:])
    np.testing.assert_array_equal(read.reshape(shape), x.astype(np.float32))


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def npy(header, values=b"", version=b"\1\0"):
    header = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + values


def saved(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def zipped():
    file = io.BytesIO()
    np.savez(file, x=numbers())
    return file.getvalue()


F4 = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}"
REFUSED = {
    "pickle": (pickle.dumps(Bomb()), "not a sound .npy file"),
    "objects": (
        saved(np.array([[Bomb()]]), allow_pickle=True),
        "expected numbers, found object",
    ),
    "npz": (zipped(), "not a sound .npy file"),
    "text": (b"1 2 3", "not a sound .npy file"),
    "empty": (b"", "not a sound .npy file"),
    "header only": (saved(numbers())[:20], "not a sound .npy file"),
    "code in the header": (
        npy("__import__('os').mkdir('pwned')"),
        "not a sound .npy file",
    ),
    "deep header": (npy("(" * 100 + ")" * 100), "not a sound .npy file"),
    "version 9": (npy(F4 % "(1, 1)", b"0000", b"\x09\0"), "not a sound .npy file"),
    "short": (saved(numbers())[:-1], "says .* has"),
    "long": (saved(numbers()) + b"0", "says .* has"),
    "huge shape": (npy(F4 % "(1048576, 1073741824)", b"0000"), "says .* has"),
    "negative shape": (npy(F4 % "(-1, -1)", b"0000"), "says"),
    "no clips": (saved(numbers((0, 5))), "says"),
    "scalar": (saved(np.float32(5)), "expected .D,., .clips, D"),
    "four dimensions": (saved(numbers((1, 1, 1, 5))), "expected .D,., .clips, D"),
    "integers": (saved(np.ones((4, 5), np.int64)), "int64; expected one"),
    "complex": (
        saved(np.ones((4, 5), np.complex64)),
        "expected numbers, found complex64",
    ),
    "structure": (saved(np.zeros((4, 5), [("a", "<f4")])), "expected numbers, found"),
    "nan": (saved(np.full((4, 5), np.nan)), "not finite float32"),
    "too large": (saved(np.full((4, 5), 1e39)), "not finite float32"),
    "other width": (saved(numbers((4, 6))), r"\(1, 4, 6\); files before have"),
    "other offsets": (saved(numbers((2, 4, 5))), r"\(2, 4, 5\); files before have"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_file_is_refused_and_nothing_runs(tmp_path, folder, name, monkeypatch):
    content, message = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    np.save(folder / "good.npy", numbers())
    (folder / "bad.npy").write_bytes(content)
    rows = ["good,a,1,train,good.npy", "bad,a,1,train,bad.npy"]
    tracemalloc.start()
    with pytest.raises(AqaError, match=f"line 3: .*{message}"):
        import_features(table(folder, rows), "I3D", tmp_path / "f.h5")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("", "is empty"),
        ("../secret.npy", "leads outside"),
        ("a/../../secret.npy", "leads outside"),
        ("{}/secret.npy", "is absolute"),
        ("link.npy", "leads out of"),
        ("linked/secret.npy", "leads out of"),
        ("loop.npy", "is not in"),
        ("missing.npy", "is not in"),
        ("é" * 200 + ".npy", "is not in"),  # longer than any name on disk
        ("inner", "is not in"),
        ("pipe", "is not in"),
        ("a\\b.npy", "backslash"),
        ("a\0.npy", "control character"),
    ],
)
def test_a_file_outside_the_folder_is_not_read(tmp_path, folder, file, message):
    np.save(tmp_path / "secret.npy", numbers())
    (folder / "link.npy").symlink_to(tmp_path / "secret.npy")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop.npy").symlink_to(folder / "loop.npy")
    (folder / "inner").mkdir()
    os.mkfifo(folder / "pipe")
    rows = table(folder, [f"a,a,1,train,{file.format(tmp_path)}"])
    with pytest.raises(AqaError, match=f"line 2: file .*{message}"):
        import_features(rows, "I3D", tmp_path / "f.h5")
    assert not (tmp_path / "f.h5").exists()


def test_a_link_that_stays_inside_and_a_csv_reached_by_a_link_are_fine(
    tmp_path, folder
):
    np.save(folder / "x.npy", numbers())
    (folder / "link.npy").symlink_to("x.npy")
    table(folder, ["a,a,1,train,link.npy"])
    (tmp_path / "data").symlink_to(folder)
    import_features(tmp_path / "data" / "labels.csv", "I3D", tmp_path / "f.h5")


def test_every_problem_is_listed_before_anything_is_written(tmp_path, folder):
    np.save(folder / "x.npy", numbers())
    rows = ["a,a,1,train,x.npy", "a,a,1,train,x.npy", "/b,a,1,train,x.npy"]
    rows += ["c,a,one,train,x.npy", "d,a,1,val,x.npy", "e,a,1,train,y.npy"]
    rows += ["f,gym_vault,1458.5,train,x.npy"]
    with pytest.raises(AqaError) as error:
        import_features(table(folder, rows), "I3D", tmp_path / "f.h5")
    message = str(error.value)
    assert message.startswith("6 problems:")
    whats = ("twice", "absolute", "'one'", "'val'", "y.npy", "12.3 to 16.87")
    for line, what in enumerate(whats, 3):
        assert any(
            f"line {line}" in row and what in row for row in message.splitlines()
        )


def test_an_import_makes_a_cache_of_its_own(tmp_path, folder):
    np.save(folder / "x.npy", numbers())
    rows, cache = table(folder, ["a,a,1,train,x.npy"]), tmp_path / "f.h5"
    sample = Sample("a", "a", "", 1.0, 1, "")
    write_part(cache, sample, numbers((1, 4, 5)), Provenance({"features": "c3d"}))
    with pytest.raises(AqaError, match="exists"):
        import_features(rows, "I3D", cache)
    import_features(rows, "I3D", tmp_path / "g.h5")
    before = (tmp_path / "g.h5").read_bytes()
    with pytest.raises(AqaError, match="exists"):
        import_features(rows, "I3D", tmp_path / "g.h5")
    assert (tmp_path / "g.h5").read_bytes() == before


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[2J"])
def test_a_name_names_something(tmp_path, folder, name):
    with pytest.raises(AqaError, match="does not name"):
        import_features(folder / "labels.csv", name, tmp_path / "f.h5")


def test_no_rows_are_an_error(tmp_path, folder):
    with pytest.raises(AqaError, match="no rows"):
        import_features(table(folder, []), "I3D", tmp_path / "f.h5")


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path, folder):
    np.save(folder / "a.npy", numbers())
    np.save(folder / "b.npy", numbers())
    rows = table(folder, ["a,a,1,train,a.npy", "b,a,1,train,b.npy"])

    def change(done, total, label):
        np.save(folder / "b.npy", numbers(seed=1))

    with pytest.raises(AqaError, match="changed while it was imported"):
        import_features(rows, "I3D", tmp_path / "f.h5", change)
    assert not (tmp_path / "f.h5").exists()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_bytes_are_features_or_an_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    content = bytearray(saved(numbers()))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, 127))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.sampled_from([None, 64, 128, 200]))]
    (folder / "x.npy").write_bytes(content)
    try:
        import_features(table(folder, ["a,a,1,,x.npy"]), "I3D", folder / "f.h5")
    except AqaError:
        assert not (folder / "f.h5").exists()
    else:
        assert verify(folder / "f.h5") == []


def test_shorter_sequences_are_padded_in_front_and_marked(tmp_path, folder):
    x = [numbers((clips, 5), seed=clips) for clips in (2, 4, 1)]
    for name, array in zip("abc", x, strict=True):
        np.save(folder / f"{name}.npy", array[0] if name == "c" else array)
    rows = [f"{name},a,1,train,{name}.npy" for name in "abc"]
    made = import_features(table(folder, rows), "I3D", tmp_path / "f.h5")
    assert made.notes == (
        "clip counts differ (1 to 4): shorter sequences are padded in front, and the "
        "padding is marked",
    )
    assert verify(tmp_path / "f.h5") == []
    with FeatureCache.open(tmp_path / "f.h5") as cache:
        assert cache.samples.clips.tolist() == [2, 4, 1]
        read = cache.read()
    assert read.shape == (3, 1, 4, 5)
    for row, array in zip(read, x, strict=True):
        np.testing.assert_array_equal(row[0, 4 - len(array) :], array)
        assert not row[0, : 4 - len(array)].any()


def test_three_dimensions_are_said_to_be_copies(tmp_path, folder):
    """Ten crops per clip, as some extractors save them, would count as ten clips."""
    np.save(folder / "x.npy", numbers((6, 10, 5)))
    rows = table(folder, ["x,a,1,train,x.npy"])
    made = import_features(rows, "I3D", tmp_path / "f.h5")
    assert made.shape == (6, 10, 5)
    assert made.notes[0].startswith("read as 6 copies x 10 clips x 5 features: average")


def test_vectors_are_one_clip(tmp_path, folder):
    np.save(folder / "x.npy", numbers((5,)))
    made = import_features(
        table(folder, ["x,a,1,train,x.npy"]), "I3D", tmp_path / "f.h5"
    )
    assert made.shape == (1, 1, 5)
    with FeatureCache.open(made.cache) as cache:
        assert cache.samples.clips.tolist() == [0]  # nothing is padded
        np.testing.assert_array_equal(cache.read()[0, 0, 0], numbers((5,)))


def test_further_columns_are_kept_and_a_split_may_be_missing(tmp_path, folder):
    np.save(folder / "x.npy", numbers())
    path = folder / "labels.csv"
    path.write_text(
        "\ufefffile;Surgeon;key;score;action\n"
        "x.npy;B;b;10;knot tying\nx.npy;;a;20;knot tying\n",
        encoding="utf-8",
    )
    made = import_features(path, "kinematics", tmp_path / "f.h5")
    assert made.notes == (
        f"{path}: separated by semicolon",
        f"{path}: further columns: Surgeon",
        "no column `split`: all 2 samples are unassigned, so `fit` and "
        "`compare` need --folds or --leave-one-out",
    )
    with FeatureCache.open(made.cache) as cache:
        assert cache.samples.extra == {"Surgeon": ("", "B")}
        assert cache.samples.split == ("", "")


def test_an_action_named_in_several_ways_is_one(tmp_path, folder):
    """Or averages over actions count one action twice."""
    np.save(folder / "x.npy", numbers())
    names = ["diving", "diving ", "\u00a0diving", "k\u00fcr", "ku\u0308r"]
    rows = [f"{row},{name},1,train,x.npy" for row, name in enumerate(names)]
    with pytest.raises(AqaError, match="21.6 to 102.6"):  # all of AQA-7's diving
        import_features(table(folder, rows), "I3D", tmp_path / "f.h5")
    rows = [f"{row},{name},50,train,x.npy" for row, name in enumerate(names)]
    made = import_features(table(folder, rows), "I3D", tmp_path / "f.h5")
    with FeatureCache.open(made.cache) as cache:
        assert set(cache.samples.action) == {"diving", "k\u00fcr"}
    assert len(made.notes) == 2


def test_a_name_too_long_for_files_is_refused_before_any_work(tmp_path, folder):
    np.save(folder / "x.npy", numbers())
    rows = [f"a,{'x' * 240},1,train,x.npy"]
    with pytest.raises(AqaError, match="line 2: action is 240 bytes long, at most 200"):
        import_features(table(folder, rows), "I3D", tmp_path / "f.h5")


def test_another_programs_padding_is_cut_off(tmp_path, folder):
    x = numbers((5, 4))
    x[2] = 0  # inside: not padding
    for name, before, behind in (("a", 0, 0), ("b", 0, 3), ("c", 2, 1)):
        np.save(folder / f"{name}.npy", np.pad(x, ((before, behind), (0, 0))))
    rows = [f"{name},x,1,,{name}.npy" for name in "abc"]
    made = import_features(table(folder, rows), "I3D", tmp_path / "f.h5")
    assert "2 files padded with clips of zeros (first: b.npy, 3): cut off" in made.notes
    with FeatureCache.open(tmp_path / "f.h5") as cache:
        for row in range(3):
            np.testing.assert_array_equal(cache.read_sound(row), [x])
    np.testing.assert_array_equal(read_features(folder / "c.npy")[0], [x])


def test_time_on_the_last_axis_is_said(tmp_path, folder):
    np.save(folder / "a.npy", numbers((512, 6)))
    made = import_features(table(folder, ["a,x,1,,a.npy"]), "I3D", tmp_path / "f.h5")
    assert any("transpose the arrays" in note for note in made.notes)
