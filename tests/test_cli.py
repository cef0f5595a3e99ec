"""The command line: what is printed where, and the exit code it ends with."""

import json
import os
import subprocess
import sys

import pytest
from fakes import encode, noise

from aqa.cache.store import FeatureCache


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """A manifest of three short videos, the last of them cut in half."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, name in enumerate(("a", "b", "broken")):
        encode(folder / f"{name}.avi", noise(12, seed=seed), "mpeg4")
    whole = (folder / "broken.avi").read_bytes()
    (folder / "broken.avi").write_bytes(whole[: len(whole) // 2])
    rows = ["video,action,score,split"]
    rows += [f"{name}.avi,diving,50,train" for name in ("a", "b", "broken")]
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    return folder / "list.csv"


@pytest.fixture
def tiny():
    return ["--weights", "random", "--arch", "c3d-tiny", "--workers", 1]


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE",) * 2])
def test_threads_that_wait_give_their_processor_away(aqa, monkeypatch, given, expected):
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    aqa("cache", "info", "--cache", "nowhere", code=1)
    assert os.environ["OMP_WAIT_POLICY"] == expected


def test_neither_help_nor_import_loads_anything_heavy():
    script = (
        "import sys, aqa, aqa.cli\n"
        "unwanted = {'torch', 'numpy', 'rich', 'av', 'h5py', 'sklearn'}\n"
        "heavy = unwanted & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_extract_names_what_failed_and_verify_tells_a_flipped_byte(
    aqa, videos, tiny, tmp_path
):
    cache = tmp_path / "f.h5"
    ran = aqa("extract", "--videos", videos, "--cache", cache, "--json", *tiny, code=3)
    said = json.loads(ran.stdout)
    assert (said["done"], said["merged"]) == (2, True)
    assert [failure["key"] for failure in said["failures"]] == ["broken.avi"]
    assert "failed: broken.avi" in ran.stderr
    again = aqa("extract", "--videos", videos, "--cache", cache, *tiny, code=3)
    assert "0 extracted, 2 there before, 1 failed" in again.stdout
    other = ["--weights", "random:1", "--arch", "c3d-tiny"]
    ran = aqa("extract", "--videos", videos, "--cache", cache, *other, code=4)
    assert "random:0" in ran.stderr and "random:1" in ran.stderr
    assert ran.stdout == ""
    allowed = tmp_path / "g.h5"
    took = [*tiny, "--allow-damaged"]
    aqa("extract", "--videos", videos, "--cache", allowed, *took)
    assert "3 samples" in aqa("cache", "info", "--cache", allowed).stdout
    assert "sound" in aqa("cache", "verify", "--cache", cache).stdout
    content = bytearray(cache.read_bytes())
    with FeatureCache.open(cache) as opened:
        place = content.find(opened.read([1]).tobytes()[:64])
    content[place + 7] ^= 0xFF
    cache.write_bytes(content)
    ran = aqa("cache", "verify", "--cache", cache, "--json", code=1)
    assert not json.loads(ran.stdout)["sound"]


def test_a_dry_run_says_what_would_be_done(aqa, videos, tiny, tmp_path):
    cache = tmp_path / "f.h5"
    ran = aqa(
        "extract", "--videos", videos, "--cache", cache, "--dry-run", "--json", *tiny
    )
    found = json.loads(ran.stdout)
    assert found["todo"] == ["a.avi", "b.avi", "broken.avi"]
    assert (found["finished"], found["changed"]) == (0, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["extract"], 2, "--videos"),
        (["extract", "--videos", "nowhere"], 1, "nowhere"),
        (["extract", "--videos", "nowhere", "--shard", "3/2"], 2, "i/N"),
        (["fit", "--cache", "nowhere.h5"], 1, "nowhere.h5"),
        (["compare", "something"], 2, "single-vs-all"),
        (["cache", "info", "--cache", "nowhere.h5"], 1, "nowhere.h5"),
        (["weights", "inspect", "nowhere.pth"], 1, "nowhere.pth"),
        (["model", "info", "nowhere.safetensors"], 1, "nowhere.safetensors"),
    ],
)
def test_bad_input_ends_in_one_line(
    aqa, tmp_path, monkeypatch, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    ran = aqa(*arguments, code=code)
    assert message in ran.stderr and "Traceback" not in ran.output
    assert ran.stdout == ""


def test_without_weights_extract_says_what_to_pass(aqa, videos, tmp_path):
    cache = tmp_path / "f.h5"
    ran = aqa("extract", "--videos", videos, "--cache", cache, code=1)
    assert "tiny" in ran.stderr and "aqa pretrain" in ran.stderr


def test_from_features_to_model_to_score(aqa, videos, tiny, tmp_path):
    cache, models = tmp_path / "f.h5", tmp_path / "models"
    aqa("extract", "--videos", videos, "--cache", cache, "--allow-damaged", *tiny)
    labels = tmp_path / "labels.csv"
    rows = ["key,action,score,split", "a.avi,diving,40,train", "b.avi,diving,60,train"]
    labels.write_text("\n".join([*rows, "broken.avi,diving,50,train"]) + "\n")
    assert (
        "2 samples relabelled"
        in aqa("cache", "relabel", labels, "--cache", cache).stdout
    )
    fitted = aqa("fit", "--cache", cache, "--out", models, "--iterations", 5, "--json")
    (model,) = json.loads(fitted.stdout)["models"]
    known = json.loads(aqa("model", "info", model).stdout)
    assert known["actions"] == ["diving"]
    assert known["rates"] == {"diving": pytest.approx(25)}
    video = videos.parent / "a.avi"
    network = tiny[:4]
    page = tmp_path / "page.html"
    ran = aqa("score", video, "--model", model, "--json", "--html", page, *network)
    (said,) = json.loads(ran.stdout)
    assert len(said["course"]) == 6 and said["course"][-1] == said["score"]
    assert said["score"] == pytest.approx(sum(said["changes"]))
    assert "a.avi" in page.read_text() and "<script" not in page.read_text()
    other = ["--weights", "random:1", "--arch", "c3d-tiny"]
    aqa("score", video, "--model", model, *other, code=4)
    broken = videos.parent / "broken.avi"
    mixed = aqa("score", broken, video, "--model", model, *network, code=3)
    assert "broken.avi" in mixed.stderr and "a.avi: diving" in mixed.stdout


@pytest.mark.slow
def test_compare_prints_what_it_writes_and_fit_takes_the_same_products(
    aqa, plant, tmp_path
):
    counts = {"diving": (12, 6), "gym_vault": (12, 6)}
    cache, out = plant(tmp_path / "f.h5", "shared", counts), tmp_path / "out"
    asked = ["--cache", cache, "--out", out, "--iterations", 2, "--products", "bf16"]
    (model,) = json.loads(aqa("fit", *asked, "--json").stdout)["models"]
    settings = json.loads(aqa("model", "info", model).stdout)["settings"]
    assert settings["lstm"]["products"] == "bf16"
    ran = aqa("compare", "all", *asked, "--json")
    said = json.loads(ran.stdout)
    assert said == json.loads((out / "report.json").read_text())
    assert said["experiment"] == "all"
    for report in said["reports"]:
        assert report["settings"]["lstm"]["products"] == "bf16"
    assert "<img" not in (out / "report.html").read_text()


def test_compare_shows_frames_of_the_videos_that_it_is_given(aqa, plant, tmp_path):
    cache = plant(tmp_path / "f.h5", "shared", {"diving": (9, 3)}, kind="made")
    for number in range(10, 13):
        encode(tmp_path / "v" / f"{number}.avi", noise(20, seed=number))
    rows = [f"v/{n}.avi,diving/0{n},diving,50,test" for n in range(10, 13)]
    listed = tmp_path / "list.csv"
    listed.write_text("\n".join(["video,key,action,score,split", *rows]))
    asked = ["--cache", cache, "--out", tmp_path / "out", "--iterations", 2]
    aqa("compare", "single-vs-all", *asked, "--videos", listed)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<img") == 2
    ran = aqa("compare", "single-vs-all", *asked, "--videos", tmp_path / "no", code=1)
    assert "no: expected" in ran.stderr


def test_what_the_system_refuses_is_one_line(aqa, monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device", "a\x1b[2J.h5")

    monkeypatch.setattr("aqa.regress.heads.fit.fit", refuse)
    ran = aqa("fit", code=1)
    assert ran.stderr == "Error: a\\x1b[2J.h5: No space left on device\n"
