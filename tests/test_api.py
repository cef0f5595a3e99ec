"""The Python API does what the commands do."""

import numpy as np
import pytest
from fakes import FakeExtractor, encode, features_of, noise, numbered
from safetensors.numpy import load_file

import aqa
from aqa.api import strips_of
from aqa.cache.exchange import import_features
from aqa.extract import FEATURES

COUNTS = {"diving": (12, 6), "gym_vault": (10, 5)}


@pytest.fixture(scope="module")
def cache(plant, tmp_path_factory):
    return plant(tmp_path_factory.mktemp("api") / "features.h5", "shared", COUNTS)


def extractor(features, videos, settings):
    """What the module of a kind of features provides."""
    assert features == "made" and settings == {"weights": "mine"} and len(videos) == 1
    return FakeExtractor()


def test_a_kind_of_features_is_one_module_and_one_line(tmp_path, monkeypatch):
    encode(tmp_path / "videos" / "a.avi", noise(3), "mpeg4")
    monkeypatch.setitem(FEATURES, "made", __name__)
    options = {"cache": tmp_path / "f.h5", "features": "made", "weights": "mine"}
    assert aqa.extract(tmp_path / "videos", **options).done == 1
    found = aqa.open_cache(tmp_path / "f.h5").features
    np.testing.assert_array_equal(found, [features_of("a.avi")])
    with pytest.raises(aqa.AqaError, match="expected c3d, pose-dct, .* found 'flow'"):
        aqa.extract(tmp_path / "videos", features="flow")


def test_settings_of_other_features_are_refused(tmp_path):
    encode(tmp_path / "videos" / "a.avi", noise(3), "mpeg4")
    with pytest.raises(aqa.AqaError, match="without effect here: athletes, poses"):
        aqa.extract(
            tmp_path / "videos", weights="random", athletes=2, poses=tmp_path / "p"
        )


def test_every_public_name_is_there():
    for name in aqa.__all__:
        assert callable(getattr(aqa, name))
    with pytest.raises(AttributeError, match="nothing"):
        _ = aqa.nothing


def test_a_cache_as_arrays(cache):
    opened = aqa.open_cache(str(cache))
    assert opened.features.shape == (33, 2, 3, 16)
    assert list(opened.labels["key"]) == sorted(opened.labels["key"])
    assert (opened.labels["split"] == "train").sum() == 22
    assert opened.provenance["arch"] == "planted"


def test_fit_gives_what_the_command_writes(cache, tmp_path, aqa):
    aqa("fit", "--cache", cache, "--iterations", 20, "--out", tmp_path / "command")
    import aqa as package

    report = package.fit(str(cache), out=str(tmp_path / "api"), iterations=20)
    [path] = report.models
    ours, theirs = load_file(path), load_file(tmp_path / "command" / path.name)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_model_predicts_in_judges_units(cache, tmp_path):
    report = aqa.fit(cache, out=tmp_path, iterations=400, hidden=16, mode="all-action")
    model = aqa.load_model(report.models[0])
    opened = aqa.open_cache(cache)
    diving = opened.labels["action"] == "diving"
    scores = opened.labels["score"][diving]
    predicted = model.predict(opened.features[diving], "diving")
    assert np.corrcoef(scores, predicted)[0, 1] > 0.8
    assert abs(predicted.mean() - scores.mean()) < 2 * scores.std()
    actions = opened.labels["action"]
    together = model.predict(opened.features, actions)
    np.testing.assert_allclose(together[diving], predicted, rtol=1e-5)
    with pytest.raises(aqa.AqaError, match=r"diving, gym_vault\); found none"):
        model.predict(opened.features)
    with pytest.raises(aqa.AqaError, match="found figure"):
        model.predict(opened.features, "figure")


def test_one_path_alone_counts_as_a_list_of_one(tmp_path):
    rng, rows = np.random.default_rng(0), ["key,action,score,split,file"]
    for number in range(9):
        np.save(tmp_path / f"{number}.npy", rng.normal(size=(4, 5)).astype("f4"))
        rows.append(f"{number},squat,{number},train,{number}.npy")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    made = import_features(tmp_path / "list.csv", "i3d", tmp_path / "i3d.h5").cache
    [path] = aqa.fit(made, out=tmp_path / "models", iterations=5, hidden=2).models
    [alone] = aqa.score(path, features=str(tmp_path / "3.npy"))
    [listed] = aqa.score(path, features=[tmp_path / "3.npy"])
    assert alone[1].score == listed[1].score
    with pytest.raises(aqa.AqaError, match="start and end: seconds of a video"):
        list(aqa.score(path, features=tmp_path / "3.npy", start=1.0))


@pytest.mark.parametrize("head", ["svr", "lstm"])
def test_rows_of_unequal_clip_counts_predict_as_their_files_do(tmp_path, head):
    """The features of `open_cache` as they are, and `aqa.score` of each file alone."""
    rng, rows = np.random.default_rng(0), ["key,action,score,split,file,frames"]
    for number in range(24):
        quality, clips = rng.normal(), 1 + number % 4
        x = quality + rng.normal(size=(clips, 5)) / 4 + 3
        np.save(tmp_path / f"{number:02}.npy", x.astype("f4"))
        rows.append(f"{number:02},squat,{9 * quality},train,{number:02}.npy,{clips}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    made = import_features(tmp_path / "list.csv", "i3d", tmp_path / "i3d.h5").cache
    options = {"iterations": 60, "hidden": 4} if head == "lstm" else {}
    [path] = aqa.fit(made, out=tmp_path / "models", head=head, **options).models
    cache, model = aqa.open_cache(made), aqa.load_model(path)
    files = sorted(tmp_path.glob("*.npy"))
    alone = [found.score.score for _, found in aqa.score(path, features=files)]
    np.testing.assert_allclose(model.predict(cache.features), alone, rtol=1e-4)
    zeros = np.nan_to_num(cache.features)
    made = model.predict(zeros, clips=cache.clips)
    np.testing.assert_allclose(made, alone, rtol=1e-4)
    assert cache.clips.tolist() == [1, 2, 3, 4] * 6
    with pytest.raises(aqa.AqaError, match="18 of 24 samples begin or end with clips"):
        model.predict(zeros)


def test_an_output_that_cannot_be_made_is_said_before_training(cache, tmp_path):
    (tmp_path / "file").touch()
    trained = []
    with pytest.raises(aqa.AqaError, match="file: cannot be made"):
        aqa.fit(cache, out=tmp_path / "file", progress=lambda *at: trained.append(at))
    assert not trained


@pytest.mark.slow
def test_compare_writes_a_report(cache, tmp_path):
    [result] = aqa.compare("single-vs-all", cache, out=tmp_path, iterations=20)
    assert (tmp_path / "report.html").is_file()
    assert {row.name for row in result.report.rows} >= {"all-action LSTM"}


def test_unknown_settings_are_refused(cache, tmp_path):
    videos = encode(tmp_path / "videos" / "a.avi", noise(3)).parent
    with pytest.raises(aqa.AqaError, match="'hiden'; did you mean hidden"):
        aqa.fit(cache, out=tmp_path, hiden=3)
    with pytest.raises(aqa.AqaError, match="without effect here: colour"):
        aqa.extract(videos, weights="random", colour="red", cache=tmp_path / "x.h5")
    with pytest.raises(aqa.AqaError, match="actions: expected a list of names"):
        aqa.extract(videos, weights="random", actions="a", cache=tmp_path / "x.h5")
    for shard in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(aqa.AqaError, match="shard: expected .* with 0 <= i < N"):
            aqa.extract(videos, weights="random", shard=shard, cache=tmp_path / "x.h5")


def test_the_package_extract_is_callable(tmp_path):
    for number in range(2):
        encode(tmp_path / "videos" / f"{number}.avi", noise(20, seed=number))
    done = aqa.extract(
        str(tmp_path / "videos"), weights="tiny", cache=str(tmp_path / "features.h5")
    )
    assert (done.done, done.failures) == (2, ())
    assert aqa.open_cache(done.cache).features.shape == (2, 6, 6, 256)


def test_strips_are_evenly_spaced_whole_pictures(plant, tmp_path):
    cache = plant(tmp_path / "features.h5", "shared", {"diving": (3, 2)}, kind="made")
    encode(tmp_path / "1.avi", numbered(103))
    encode(tmp_path / "2.avi", numbered(7, height=40, width=160))
    (tmp_path / "3.avi").write_bytes(b"no video")
    rows = [f"{number}.avi,diving/00{number},diving,50,test" for number in (1, 2, 3)]
    (tmp_path / "list.csv").write_text(
        "\n".join(["video,key,action,score,split", *rows])
    )
    strips = strips_of(tmp_path / "list.csv", cache)
    found = strips([*(f"diving/00{number}" for number in (1, 2, 3)), "diving/009"])
    assert list(found) == ["diving/001", "diving/002"]
    assert found["diving/001"].shape == (6, 120, 160, 3)
    assert found["diving/002"].shape == (6, 120, 240, 3)  # 4:1 is narrowed to 2:1
    grey = found["diving/001"].mean((1, 2, 3))
    np.testing.assert_allclose(grey, [0, 20, 41, 61, 82, 102], atol=1)
    with pytest.raises(aqa.AqaError, match="such as diving/001; found others"):
        encode(tmp_path / "others" / "x.avi", numbered(3))
        strips_of(tmp_path / "others", cache)
