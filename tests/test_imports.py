"""Features made elsewhere: taken as numbers or refused, and never from elsewhere."""

import hashlib
import io
import math
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from fakes import MADE, names, numbers, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from aqa.cache.errors import AqaError
from aqa.cache.exchange import import_features, read_features
from aqa.cache.files import probe
from aqa.cache.labels import Label, relabel
from aqa.cache.parts import verify, write_part
from aqa.cache.store import FeatureCache
from aqa.regress.data import load


@pytest.fixture
def folder(tmp_path):
    """A folder of features, and room for files that must not be read beside it."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def cache(tmp_path):
    """Where the new cache is to be."""
    return tmp_path / "f.h5"


def save(folder, **arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def table(folder, *rows, header="key,action,score,split,file"):
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def read(cache):
    with FeatureCache.open(cache) as opened:
        return opened.read(), opened.samples


def test_features_come_in_with_their_labels(cache, folder):
    (folder / "deep").mkdir()
    x = [numbers(4, 5, seed=seed) for seed in range(3)]
    save(folder / "deep", b=x[0])
    save(folder, a=x[1].astype(np.float64), c=np.asfortranarray(x[2])[None])
    rows = ["v/b,diving,81.5,train,deep/b.npy", "v/a,,,,a.npy", "v/c,x,1,test,c.npy"]
    seen = []
    made = import_features(
        table(folder, *rows), "I3D", cache, lambda *step: seen.append(step)
    )
    assert (made.samples, made.shape, made.notes) == (3, (1, 4, 5), ())
    assert verify(cache) == []
    with FeatureCache.open(cache) as opened:
        assert opened.provenance.record == {"features": "I3D", "imported": True}
    found, samples = read(cache)
    np.testing.assert_array_equal(found, np.stack([x[1], x[0], x[2]])[:, None])
    assert samples.key == ("v/a", "v/b", "v/c") and math.isnan(samples.score[0])
    source = folder / "deep" / "b.npy"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    origin = dict(frames=0, source_sha256=digest, source_probe=probe(source))
    assert samples[1] == sample("v/b", score=81.5, **origin)
    assert seen[-1] == (3, 3, str(cache)) and len(seen) == 4
    assert names(cache.parent) == ["f.h5", "in"]


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 4, 5)])
def test_every_float_is_cast_as_numpy_casts_it(cache, folder, kind, shape):
    x = numbers(*shape).astype(kind)
    save(folder, x=x)
    import_features(table(folder, "x,a,1,train,x.npy"), "I3D", cache)
    found, samples = read(cache)
    assert found.shape == (1, *((1, 1) + shape)[-3:])
    np.testing.assert_array_equal(found.reshape(shape), x.astype(np.float32))
    assert samples.clips.tolist() == [0]  # nothing is padded


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
    np.savez(file, x=numbers(4, 5))
    return file.getvalue()


F4 = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}"
REFUSED = {
    "pickle": (pickle.dumps(Bomb()), "not a sound .npy file"),
    "objects": (saved(np.array([[Bomb()]]), allow_pickle=True), "found object"),
    "npz": (zipped(), "not a sound .npy file"),
    "text": (b"1 2 3", "not a sound .npy file"),
    "empty": (b"", "not a sound .npy file"),
    "header only": (saved(numbers(4, 5))[:20], "not a sound .npy file"),
    "code": (npy("__import__('os').mkdir('pwned')"), "not a sound .npy file"),
    "deep header": (npy("(" * 100 + ")" * 100), "not a sound .npy file"),
    "version 9": (npy(F4 % "(1, 1)", b"0000", b"\x09\0"), "not a sound .npy file"),
    "short": (saved(numbers(4, 5))[:-1], "says .* has"),
    "long": (saved(numbers(4, 5)) + b"0", "says .* has"),
    "huge shape": (npy(F4 % "(1048576, 1073741824)", b"0000"), "says .* has"),
    "negative shape": (npy(F4 % "(-1, -1)", b"0000"), "says"),
    "no clips": (saved(numbers(0, 5)), "says"),
    "scalar": (saved(np.float32(5)), "expected .D,., .clips, D"),
    "four dimensions": (saved(numbers(1, 1, 1, 5)), "expected .D,., .clips, D"),
    "integers": (saved(np.ones((4, 5), np.int64)), "int64; expected one"),
    "complex": (saved(np.ones((4, 5), np.complex64)), "found complex64"),
    "structure": (saved(np.zeros((4, 5), [("a", "<f4")])), "expected numbers, found"),
    "nan": (saved(np.full((4, 5), np.nan)), "not finite float32"),
    "too large": (saved(np.full((4, 5), 1e39)), "not finite float32"),
    "other width": (saved(numbers(4, 6)), r"\(1, 4, 6\); files before have"),
    "other offsets": (saved(numbers(2, 4, 5)), r"\(2, 4, 5\); files before have"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_file_is_refused_and_nothing_runs(
    tmp_path, cache, folder, name, monkeypatch
):
    content, message = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    save(folder, good=numbers(4, 5))
    (folder / "bad.npy").write_bytes(content)
    rows = ["good,a,1,train,good.npy", "bad,a,1,train,bad.npy"]
    tracemalloc.start()
    with pytest.raises(AqaError, match=f"line 3: .*{message}"):
        import_features(table(folder, *rows), "I3D", cache)
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
def test_a_file_outside_the_folder_is_not_read(tmp_path, cache, folder, file, message):
    np.save(tmp_path / "secret.npy", numbers(4, 5))
    (folder / "link.npy").symlink_to(tmp_path / "secret.npy")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop.npy").symlink_to(folder / "loop.npy")
    (folder / "inner").mkdir()
    os.mkfifo(folder / "pipe")
    rows = table(folder, f"a,a,1,train,{file.format(tmp_path)}")
    with pytest.raises(AqaError, match=f"line 2: file .*{message}"):
        import_features(rows, "I3D", cache)
    assert not cache.exists()


def test_a_link_inside_and_a_csv_reached_by_a_link_are_fine(tmp_path, cache, folder):
    save(folder, x=numbers(4, 5))
    (folder / "link.npy").symlink_to("x.npy")
    table(folder, "a,a,1,train,link.npy")
    (tmp_path / "data").symlink_to(folder)
    import_features(tmp_path / "data" / "labels.csv", "I3D", cache)


def test_scores_without_an_action_are_no_action_among_others(cache, folder):
    save(folder, x=numbers(4, 5))
    rows = ["a,squat,1,train,x.npy", "b,,2,train,x.npy", "c, ,3,train,x.npy"]
    with pytest.raises(AqaError, match="without an action in line 3, 4, where other"):
        import_features(table(folder, *rows), "I3D", cache)
    rows[0] = "a,,1,train,x.npy"
    import_features(table(folder, *rows), "I3D", cache)
    assert load(cache).action.tolist() == ["all"] * 3
    relabel(cache, {"a": Label("squat", 1.0, "train")})  # as a list may, later
    with pytest.raises(
        AqaError, match=r"2 samples have a score and no .* \(first: b\)"
    ):
        load(cache)
    assert load(cache, ["squat"]).key.tolist() == ["a"]


def test_every_problem_is_listed_before_anything_is_written(cache, folder):
    save(folder, x=numbers(4, 5))
    rows = ["a,a,1,train,x.npy", "a,a,1,train,x.npy", "/b,a,1,train,x.npy"]
    rows += ["c,a,one,train,x.npy", "d,a,1,val,x.npy", "e,a,1,train,y.npy"]
    rows += ["f,gym_vault,1458.5,train,x.npy"]
    with pytest.raises(AqaError) as error:
        import_features(table(folder, *rows), "I3D", cache)
    message = str(error.value)
    assert message.startswith("6 problems:")
    whats = ("twice", "absolute", "'one'", "'val'", "y.npy", "12.3 to 16.87")
    for row, what in zip(message.splitlines()[1:], whats, strict=True):
        assert what in row
    assert [f"line {line}" in message for line in range(3, 9)] == [True] * 6


def test_an_import_makes_a_cache_of_its_own(tmp_path, cache, folder):
    save(folder, x=numbers(4, 5))
    rows = table(folder, "a,a,1,train,x.npy")
    write_part(cache, sample("a"), numbers(1, 4, 5), MADE)
    with pytest.raises(AqaError, match="exists"):
        import_features(rows, "I3D", cache)
    import_features(rows, "I3D", tmp_path / "g.h5")
    before = (tmp_path / "g.h5").read_bytes()
    with pytest.raises(AqaError, match="exists"):
        import_features(rows, "I3D", tmp_path / "g.h5")
    assert (tmp_path / "g.h5").read_bytes() == before


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[2J"])
def test_a_name_names_something(cache, folder, name):
    with pytest.raises(AqaError, match="does not name"):
        import_features(folder / "labels.csv", name, cache)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([f"a,{'x' * 240},1,train,x.npy"], "line 2: action is 240 bytes long"),
        (["a, diving ,1,train,x.npy"], "21.6 to 102.6"),
    ],
)
def test_a_bad_list_is_refused(cache, folder, rows, message):
    save(folder, x=numbers(4, 5))
    with pytest.raises(AqaError, match=message):
        import_features(table(folder, *rows), "I3D", cache)


def test_a_file_that_changes_meanwhile_is_noticed(cache, folder):
    save(folder, a=numbers(4, 5), b=numbers(4, 5))
    rows = table(folder, "a,a,1,train,a.npy", "b,a,1,train,b.npy")

    def change(done, total, label):
        save(folder, b=numbers(4, 5, seed=1))

    with pytest.raises(AqaError, match="changed while it was imported"):
        import_features(rows, "I3D", cache, change)
    assert not cache.exists()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_bytes_are_features_or_an_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    content = bytearray(saved(numbers(4, 5)))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, 127))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.sampled_from([None, 64, 128, 200]))]
    (folder / "x.npy").write_bytes(content)
    try:
        import_features(table(folder, "a,a,1,,x.npy"), "I3D", folder / "f.h5")
    except AqaError:
        assert not (folder / "f.h5").exists()
    else:
        assert verify(folder / "f.h5") == []


def test_shorter_sequences_are_padded_in_front_and_marked(cache, folder):
    x = [numbers(clips, 5, seed=clips) for clips in (2, 4, 1)]
    save(folder, a=x[0], b=x[1], c=x[2][0])
    rows = [f"{name},a,1,train,{name}.npy" for name in "abc"]
    made = import_features(table(folder, *rows), "I3D", cache)
    assert made.notes == (
        "clip counts differ (1 to 4): shorter sequences are padded in front, and the "
        "padding is marked",
    )
    assert verify(cache) == []
    found, samples = read(cache)
    assert samples.clips.tolist() == [2, 4, 1]
    for row, array in zip(found[:, 0], x, strict=True):
        np.testing.assert_array_equal(row, np.pad(array, ((4 - len(array), 0), (0, 0))))


@pytest.mark.parametrize(
    ("shape", "note"),
    [
        # Ten crops per clip, as some extractors save them, would count as ten clips.
        ((6, 10, 5), "read as 6 copies x 10 clips x 5 features: average"),
        ((512, 6), "read as 512 clips or more of 6 features: transpose the arrays"),
    ],
)
def test_shapes_that_may_mean_something_else_are_told(cache, folder, shape, note):
    save(folder, x=numbers(*shape))
    made = import_features(table(folder, "x,a,1,train,x.npy"), "I3D", cache)
    assert made.shape == (1, *shape)[-3:]
    assert made.notes[0].startswith(note)


def test_further_columns_are_kept_and_a_split_may_be_missing(cache, folder):
    save(folder, x=numbers(4, 5))
    rows = ["x.npy;B;b;10;knot tying", "x.npy;;a;20;knot tying"]
    path = table(folder, *rows, header="\ufefffile;Surgeon;key;score;action")
    made = import_features(path, "kinematics", cache)
    assert made.notes == (
        f"{path}: separated by semicolon",
        f"{path}: further columns: Surgeon",
        "no column `split`: all 2 samples are unassigned, so `fit` and "
        "`compare` need --folds or --leave-one-out",
    )
    samples = read(cache)[1]
    assert samples.extra == {"Surgeon": ("", "B")} and samples.split == ("", "")


def test_an_action_named_in_several_ways_is_one(cache, folder):
    """Or averages over actions count one action twice."""
    save(folder, x=numbers(4, 5))
    names = ["diving", "diving ", "\u00a0diving", "k\u00fcr", "ku\u0308r"]
    rows = [f"{row},{name},50,train,x.npy" for row, name in enumerate(names)]
    made = import_features(table(folder, *rows), "I3D", cache)
    assert set(read(cache)[1].action) == {"diving", "k\u00fcr"}
    assert len(made.notes) == 2


def test_another_programs_padding_is_cut_off(cache, folder):
    x = numbers(5, 4)
    x[2] = 0  # inside: not padding
    unlike = np.pad(x, ((2, 1), (0, 0)), constant_values=np.nan)
    save(folder, a=x, b=np.pad(x, ((0, 3), (0, 0))), c=unlike)
    rows = [f"{name},x,1,,{name}.npy" for name in "abc"]
    made = import_features(table(folder, *rows), "I3D", cache)
    assert (
        "2 files padded with clips of zeros or NaN (first: b.npy, 3): cut off"
        in made.notes
    )
    np.testing.assert_array_equal(read(cache)[0], [[x]] * 3)
    np.testing.assert_array_equal(read_features(folder / "c.npy")[0], [x])
