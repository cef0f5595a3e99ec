"""`aqa score`: what is said of a video, and that no name or version stops it."""

import json
import os
import re
import shutil
from dataclasses import replace

import av
import numpy as np
import pytest
from click.testing import CliRunner

import aqa as package
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import write_cache
from aqa.cli import main
from aqa.extract.config import ExtractConfig
from aqa.extract.network import C3DExtractor
from aqa.regress.config import FitConfig, LstmConfig, Schedule
from aqa.regress.heads.fit import fit
from aqa.regress.heads.model_file import Calibration, load_model, save_model
from aqa.regress.heads.scoring import Score, Scored
from aqa.regress.report.score_page import write_score_page

KNOWN = Calibration(-2.0, 3.5, 0.9, 12, 3)
SCORE = Score(
    "diving",
    45.2,
    KNOWN,
    course=(9.0, 9.0, 7.0, 8.0),
    changes=(9.0, 0.0, -2.0, 1.0),
    lost=(-9.0, -1.0, -2.0, 1.0),
    padding=2,
    seconds=(None, None, (0.0, 0.6), (0.64, 1.2)),
)
HOSTILE = b"<img src=x onerror=alert(1)>\xff\x1b[2J\n#?&.mp4"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of two actions for features of the weights that come with aqa."""
    folder = tmp_path_factory.mktemp("model")
    provenance = C3DExtractor(ExtractConfig(weights="tiny")).provenance
    generator = np.random.default_rng(0)
    samples = [
        Sample(f"{action}/{i:03}", action, "train", 60 + i, 103, "")
        for action in ("diving", "sync_diving_10m")
        for i in range(6)
    ]
    x = generator.random((len(samples), 6, 6, 256), np.float32)
    cache = write_cache(folder / "f.h5", samples, x, provenance)
    config = FitConfig(
        schedule=Schedule(iterations=5),
        lstm=LstmConfig(hidden=4),
        calibration_folds=2,
        labels="incremental",
        device="cpu",
    )
    return fit(cache, config, folder).models[0]


@pytest.fixture
def aqa():
    """Run `aqa score`; asserts the exit code."""

    def run(*arguments, code=0):
        text = [a if isinstance(a, str) else os.fspath(a) for a in arguments]
        result = CliRunner().invoke(main, ["score", *text, "--weights", "tiny"])
        assert result.exit_code == code, result.output
        return result

    return run


def frames(count):
    return np.zeros((count, 8, 8, 3), np.uint8)


def test_an_interval_says_what_it_is_worth():
    words = "90 %, calibrated on 12 training videos held out in 3 folds"
    assert SCORE.interval == pytest.approx((43.2, 48.7))
    assert f"(43.20 to 48.70: {words})" in SCORE.describe()
    record = SCORE.record()
    assert record["interval"] == SCORE.interval
    assert record["interval_of"] == {"level": 0.9, "videos": 12, "folds": 3}
    assert replace(SCORE, calibration=None).record()["interval_of"] is None
    for ends, side in (((0.0, 3.2), "low"), ((-2.3, 0.0), "high")):
        # All held-out residuals, truth minus prediction, have one sign.
        known = replace(SCORE.calibration, low=ends[0], high=ends[1])
        assert known.words() == f"{words}, scored too {side} almost throughout"


def test_padding_is_never_where_most_was_lost():
    assert SCORE.worst_clip == 2  # though the first clip, all black, has less
    assert SCORE.record()["worst_clip"] == 3
    assert "most lost in 3 (0.0 to 0.6 s)" in SCORE.describe()
    assert replace(SCORE, padding=4).worst_clip is None


def test_the_seconds_that_were_scored_are_said():
    assert SCORE.scored == (0.0, 1.2)
    assert "scored from 0.0 to 1.2 s" in SCORE.describe()
    assert SCORE.record()["scored_seconds"] == (0.0, 1.2)
    assert replace(SCORE, seconds=()).scored is None


def test_a_page_stands_whatever_a_video_is_called(tmp_path):
    video = tmp_path / os.fsdecode(HOSTILE)
    page = write_score_page(
        tmp_path / "page.html", [Scored(video, SCORE, frames(4))], {"Model": "m\x1b"}
    ).read_text()
    assert "<img src=x" not in page and "\x1b" not in page
    assert "%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E%FF%1B" in page
    assert "#t=0.00,0.60" in page and "0.6 to 1.2 s" in page
    assert page.count("<span>padding</span>") == 2
    assert "calibrated on 12 training videos held out in 3 folds" in page
    assert "Scored from 0.0 to 1.2 s" in page


def test_scores_of_vile_names_are_printed(aqa, model, shared_data, tmp_path):
    video = tmp_path / os.fsdecode(HOSTILE)
    shutil.copy(shared_data / "videos" / "v_BaseballPitch_g01_c01.avi", video)
    page = tmp_path / "page.html"
    ran = aqa(video, "--model", model, "--action", "diving", "--html", page)
    assert "\\x1b[2J" in ran.stdout and "\x1b" not in ran.output
    assert page.stat().st_size > 1000
    missing = aqa(f"{video}x", "--model", model, "--action", "diving", code=3)
    assert "\x1b" not in missing.output


def test_what_a_video_left_open_is_said(aqa, model, tmp_path):
    path = tmp_path / "x.mkv"  # two films, upright
    with av.open(str(path), "w") as out:
        for _ in range(2):
            stream = out.add_stream("mjpeg", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 128, "yuvj420p"
        for stream in out.streams:
            for _ in range(20):
                grey = np.full((128, 64, 3), 99, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
            out.mux(stream.encode())
    said = aqa(path, "--model", model, "--action", "diving").stderr
    assert f"{path}, width / height 0.50" in said
    assert "2 video streams: took" in said


@pytest.mark.slow
def test_every_real_video_is_scored(aqa, model, shared_data):
    videos = sorted((shared_data / "videos").iterdir())
    ran = aqa(*videos, "--model", model, "--action", "diving", "--json")
    said = json.loads(ran.stdout)
    assert [each["video"] for each in said] == list(map(str, videos))
    for each in said:
        assert np.isfinite(each["score"])
        assert each["interval"][0] < each["interval"][1]
        spans = each["seconds"]
        assert len(spans) == 6
        assert each["padding"] == spans.count(None)
        shown = spans[each["padding"] :]
        assert all(start < end for start, end in shown)
        assert each["scored_seconds"] == [shown[0][0], shown[-1][1]]
        assert each["worst_clip"] > each["padding"]


def test_the_action_is_asked_for_before_anything_is_decoded(aqa, model, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("decoded")

    monkeypatch.setattr(C3DExtractor, "decode", refuse)
    ran = aqa("x.mp4", "--model", model, code=1)
    assert "diving, sync_diving_10m: name one (--action)" in ran.stderr
    ran = aqa("x.mp4", "--model", model, "--action", "luge", code=1)
    assert "luge: the model knows" in ran.stderr


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("decoder", {"pyav": "1.0"}, 3),
        ("precision", "bf16", 3),
        ("weights", {"name": "other", "sha256": "0" * 64}, 4),
        ("preprocessing", {}, 4),
        ("pool5", "other", 4),
    ],
)
def test_models_outlive_versions_and_no_more(aqa, model, tmp_path, name, value, code):
    made = load_model(model)
    record = {**made.provenance.record, name: value}
    other = tmp_path / "other.safetensors"
    save_model(other, replace(made, provenance=Provenance(record)))
    precision = ("--precision", "fp32")
    action = ("--action", "diving")
    ran = aqa("none.mp4", "--model", other, *action, *precision, code=code)
    warned = re.findall(r"warning: the model knows other features: (\w+)", ran.stderr)
    assert set(warned) == ({name} if code == 3 else set())


def test_what_the_system_refuses_is_one_line(aqa, model, shared_data, tmp_path):
    (tmp_path / "file").write_text("")
    video = shared_data / "videos" / "v_BaseballPitch_g01_c01.avi"
    page = tmp_path / "file" / "page.html"
    ran = aqa(video, "--model", model, "--action", "diving", "--html", page, code=1)
    assert ran.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in ran.output


def test_a_model_of_imported_features_scores_arrays(aqa, plant, tmp_path):
    cache = plant(tmp_path / "x.h5", "shared", {"diving": (12, 4)}, kind="i3d")
    report = package.fit(cache, out=tmp_path / "m", iterations=20, mode="single-action")
    opened = package.open_cache(cache)
    np.save(tmp_path / "a.npy", opened.features[3])
    np.save(tmp_path / "b.npy", opened.features[3, :, :, :5])
    run = CliRunner().invoke(
        main,
        ["score", "--model", str(report.models[0]), "--json"]
        + ["--features", str(tmp_path / "a.npy")],
    )
    assert run.exit_code == 0, run.output
    [found] = json.loads(run.stdout)
    model = package.load_model(report.models[0])
    assert found["score"] == pytest.approx(model.predict(opened.features[3:4])[0])
    [(_, error)] = package.score(model, features=[tmp_path / "b.npy"])
    assert "the head takes features" in str(error)


def test_a_model_says_which_files_it_takes(model, tmp_path):
    with pytest.raises(
        package.AqaError, match="c3d features: expected videos, found poses"
    ):
        list(package.score(model, poses=[tmp_path / "a.json"], action="diving"))


def test_the_page_shows_what_is_typical_and_what_is_doubtful(tmp_path):
    known = replace(SCORE.calibration, typical=tuple(x + 1 for x in SCORE.course))
    score = replace(SCORE, calibration=known, warnings=("features unlike any",))
    page = write_score_page(
        tmp_path / "page.html", [Scored(tmp_path / "a.json", score)], {"Model": "m"}
    ).read_text()
    assert page.count("<polyline") == 2 and 'class="typical"' in page
    assert "Warning: features unlike any" in page
    assert "<img" not in page and "what the network sees" not in page
