"""The synthetic data set: layout, bytes, and that the score is what is seen."""

import csv
import hashlib
import json
import shutil
from dataclasses import replace

import av
import numpy as np
import pytest
from action_clips import CLASSES, synthesise_classes
from planting import go_wrong, plant
from scipy.io import loadmat
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict

from aqa.cache.actions import ACTIONS, BY_NAME, EXPERIMENT_ACTIONS
from aqa.cache.errors import AqaError
from aqa.extract.synthetic import synthesise
from aqa.extract.synthetic.athlete import COCO
from aqa.extract.synthetic.dataset import draw_judged, split_of
from aqa.extract.synthetic.film import film
from aqa.extract.synthetic.moves import choreograph
from aqa.extract.synthetic.performance import (
    DEDUCTIONS,
    Element,
    Fault,
    difficulty,
    draw_performance,
    execution,
    judge,
)
from aqa.extract.synthetic.scene import draw_appearance

ALL_ACTIONS = [action.name for action in ACTIONS]
DIVES = ["diving", "sync_diving_3m", "sync_diving_10m"]


def digests(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def frames_of(path):
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == "mpeg4"
        assert (stream.width, stream.height, stream.average_rate) == (320, 240, 25)
        return sum(1 for _ in file.decode(stream))


def performances(action, count, seed=0):
    rng = np.random.default_rng(seed)
    return [draw_judged(action, rng) for _ in range(count)]


def plain(action, seed=0, **fields):
    """A performance of `action` without any fault, and its appearance."""
    rng = np.random.default_rng(seed)
    performance = draw_performance(action, rng)
    fields = {"faults": (), "lag": 0.0, **fields}
    return replace(performance, **fields), draw_appearance(action, rng)


# ---------------------------------------------------------------- the released layout


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    return synthesise(folder, 0.01, 3, workers=1, actions=["gym_vault"], fewest=2)


def test_lists_read_back_as_the_released_ones(small):
    rows = {}
    for split, size in (("train", 2), ("test", 2)):
        table = loadmat(small / "Split_4" / f"split_4_{split}_list.mat")
        rows[split] = table[f"consolidated_{split}_list"]
        assert rows[split].dtype == np.float64
        assert rows[split].shape == (size, 3)
    everything = np.concatenate(list(rows.values()))
    assert sorted(everything[:, 1]) == [1, 2, 3, 4]
    assert set(everything[:, 0]) == {2}
    low, high = BY_NAME["gym_vault"].score_range
    assert np.all((100 * low <= everything[:, 2]) & (everything[:, 2] <= 100 * high))
    np.testing.assert_array_equal(everything, np.round(everything))


def test_truth_and_poses_lie_beside_the_videos(small):
    truth = json.loads((small / "truth.json").read_text())
    assert truth["seed"] == 3
    assert len(truth["videos"]) == 4
    for key, planted in truth["videos"].items():
        frames = json.loads((small / "poses" / f"{key}.json").read_text())
        assert frames_of(small / "Actions" / f"{key}.avi") == planted["frames"]
        assert len(frames) == planted["frames"]
        assert all(len(people) == 1 for people in frames)
        assert len(frames[0][0]["keypoints"]) == 51
        assert planted["split"] in ("train", "test")
        assert set(planted["performance"]["faults"][0]) >= {"kind", "start", "amount"}


def test_same_seed_same_bytes_whoever_makes_them(small, tmp_path):
    steps = []
    again = synthesise(
        tmp_path,
        0.01,
        seed=3,
        workers=2,
        actions=["gym_vault"],
        fewest=2,
        progress=lambda *step: steps.append(step),
    )
    assert digests(again) == digests(small)
    assert [done for done, _, _ in steps] == [0, 1, 2, 3, 4]


def test_a_stopped_rendering_goes_on(small, tmp_path):
    root = tmp_path / "AQA-7"
    shutil.copytree(small, root)
    (root / "truth.json").unlink()
    shutil.rmtree(root / "Split_4")
    (root / "poses" / "gym_vault" / "002.json").unlink()
    (root / "Actions" / "gym_vault" / "003.avi").unlink()
    (root / "poses" / "gym_vault" / "003.json").unlink()
    kept = root / "Actions" / "gym_vault" / "001.avi"
    before = kept.stat().st_mtime_ns
    synthesise(tmp_path, 0.01, 3, workers=1, actions=["gym_vault"], fewest=2)
    assert digests(root) == digests(small)
    assert kept.stat().st_mtime_ns == before


def test_refuses_what_it_cannot_make(small, tmp_path):
    with pytest.raises(AqaError, match="no such action: curling"):
        synthesise(tmp_path, actions=["curling"])
    with pytest.raises(AqaError, match="above 0, found 0"):
        synthesise(tmp_path, scale=0)
    with pytest.raises(AqaError, match="above 0, found inf"):
        synthesise(tmp_path, scale=float("inf"))
    assert not list(tmp_path.iterdir())
    with pytest.raises(AqaError, match="holds another data set.*remove it or"):
        synthesise(small.parent)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(AqaError, match="expected an empty folder"):
        synthesise_classes(tmp_path, 3)
    with pytest.raises(AqaError, match="at least 3"):
        synthesise_classes(tmp_path, 2)
    with pytest.raises(AqaError, match="bent_knees cannot be planted in 'ski_big_air'"):
        plant(tmp_path, "ski_big_air")


def test_counts_are_those_of_the_released_lists_times_the_scale():
    for action in ACTIONS[:6]:
        half = round(0.5 * action.train), round(0.5 * action.test)
        expected = {1.0: (action.train, action.test), 0.5: half, 0.001: (6, 6)}
        for scale, counts in expected.items():
            lists = split_of(action, scale, seed=0)
            assert (lists.count("train"), lists.count("test")) == counts
    assert len(split_of(BY_NAME["trampoline"], 1.0, seed=0)) == 83


# ------------------------------------------------------------------- Table 1, the rules


@pytest.mark.parametrize("action", ALL_ACTIONS)
def test_lengths_and_scores_are_those_of_table_1(action):
    drawn = performances(action, 200)
    table = BY_NAME[action]
    assert drawn[0] != performances(action, 1, seed=1)[0]
    lengths = [performance.frames for performance, _ in drawn]
    assert abs(np.mean(lengths) - table.mean_length) < 0.04 * table.mean_length
    scores = [verdict.score for _, verdict in drawn]
    low, high = table.score_range
    assert low <= min(scores) and max(scores) <= high
    assert max(scores) - min(scores) > 0.6 * (high - low)
    assert len(set(scores)) < len(scores), "judges' grids make ties"
    assert {performance.athletes for performance, _ in drawn} == {table.participants}


@pytest.mark.parametrize("action", ALL_ACTIONS)
def test_what_is_seen_explains_most_of_the_score(action):
    drawn = performances(action, 300)
    seen = []
    for performance, _ in drawn:
        elements, share = performance.elements, 1 / len(performance.elements)
        faults = [
            share * sum(f.amount for f in performance.faults if f.kind == kind)
            for kind in DEDUCTIONS
        ]
        turns = [sum(e.somersaults for e in elements), sum(e.twists for e in elements)]
        styles = [sum(e.position == p for e in elements) for p in ("pike", "layout")]
        aloft = len(elements) * performance.phases.flight
        others = [performance.lag, performance.amplitude, aloft, len(elements)]
        seen.append([*faults, *turns, *styles, *others])
    x, y = np.array(seen), np.array([verdict.score for _, verdict in drawn])
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    found = cross_val_predict(RidgeCV(), x, y, cv=5)
    assert 0.88 < spearmanr(found, y).statistic < 0.995


@pytest.mark.parametrize("action", EXPERIMENT_ACTIONS)
def test_a_worse_fault_costs_and_a_harder_element_pays(action):
    kinds = {f.kind for p, _ in performances(action, 20) for f in p.faults}
    base, _ = plain(action)

    def mean_score(performance):
        return np.mean(
            [judge(performance, np.random.default_rng(s)).score for s in range(40)]
        )

    for kind in kinds:
        faulty = [
            replace(base, faults=(Fault(kind, amount, 40, 56),))
            for amount in (0.0, 0.3, 0.6, 0.9)
        ]
        executions = [execution(performance) for performance in faulty]
        assert executions == sorted(executions, reverse=True)
        scores = [mean_score(performance) for performance in faulty]
        assert np.all(np.diff(scores) < 0), (kind, scores)
    easy = replace(base, elements=(Element(1.5, 1.0, "pike"),))
    turned = replace(base, elements=(Element(2.5, 1.0, "pike"),))
    twisted = replace(base, elements=(Element(1.5, 2.0, "pike"),))
    assert difficulty(turned) > difficulty(easy) < difficulty(twisted)
    assert mean_score(turned) > mean_score(easy) < mean_score(twisted)


@pytest.mark.parametrize("action", ["sync_diving_3m", "sync_diving_10m"])
def test_synchrony_matters_more_than_one_execution(action):
    base, _ = plain(action)
    apart = replace(base, lag=4.0)
    bad = replace(base, faults=(Fault("tilt", 1.0, 0, 1), Fault("splash", 1.0, 0, 1)))
    seeds = range(20)
    scores = [
        np.mean([judge(p, np.random.default_rng(s)).score for s in seeds])
        for p in (apart, bad, base)
    ]
    assert scores == sorted(scores)


# -------------------------------------------------------------------- what can be seen


def joint(keypoints, name, athlete=0):
    return keypoints[:, athlete, COCO.index(name)]


def angle_at(keypoints, a, b, c, athlete=0):
    """Angle at b in the picture, degrees: 180 where the three are in line."""
    a, b, c = (joint(keypoints, name, athlete)[:, :2] for name in (a, b, c))
    u, v = a - b, c - b
    cosine = (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@pytest.mark.parametrize("action", ALL_ACTIONS)
def test_joints_lie_where_the_limbs_are_drawn(action):
    for seed in range(3):
        performance, look = plain(action, seed)
        shot = film(performance, look, 20, 70)
        keypoints = shot.keypoints()
        pictures = list(shot.pictures())
        assert len(pictures) == len(keypoints) == 50
        fields = ("skin", "suit", "legs", "sleeves", "hair", "accent")
        wanted = np.array([getattr(look, name) for name in fields], float)
        wanted = np.concatenate([wanted * light for light in np.linspace(0.7, 1.1, 9)])
        wanted = np.minimum(wanted, 255)
        hits = []
        for picture, people in zip(pictures, keypoints, strict=True):
            for x, y, score in people.reshape(-1, 3):
                if score:
                    pixel = picture[round(y), round(x)].astype(float)
                    hits.append(np.abs(pixel - wanted).max(axis=1).min() < 14)
        assert len(hits) > 300
        assert np.mean(hits) > 0.93


def test_every_athlete_stays_in_the_crop_that_the_network_sees():
    for action in ALL_ACTIONS:
        for seed in range(5):
            performance, look = plain(action, seed)
            keypoints = film(performance, look).keypoints()
            seen = keypoints[keypoints[..., 2] > 0]
            inside = (seen[:, 0] > 54) & (seen[:, 0] < 264)
            inside &= (seen[:, 1] > 15) & (seen[:, 1] < 225)
            assert inside.mean() > 0.97, (action, seed)


def test_more_somersaults_and_twists_are_turned():
    base, _ = plain("diving")
    for turns in (1.5, 3.5):
        dive = replace(base, elements=(Element(turns, 0.0, "tuck"),))
        (points,) = choreograph(dive)
        trunk = (
            points[:, COCO.index("shoulder_l"), :2] - points[:, COCO.index("hip_l"), :2]
        )
        angle = np.unwrap(np.arctan2(trunk[:, 0], trunk[:, 1]))
        turned = abs(angle[dive.touch_down()] - angle[dive.take_off() - 1])
        assert turned / (2 * np.pi) == pytest.approx(turns, abs=0.1)
    for twists in (1.0, 2.0):
        vault = plain("gym_vault", elements=(Element(0.5, twists, "layout"),))[0]
        (points,) = choreograph(vault)
        across = points[:, COCO.index("hip_r"), 2] - points[:, COCO.index("hip_l"), 2]
        flight = across[vault.take_off() : vault.touch_down()]
        assert np.sum(np.diff(np.sign(flight)) != 0) == round(2 * twists)


def test_bodies_fall_freely_and_turn_faster_when_tighter():
    dive = plain("diving", elements=(Element(2.5, 0.0, "tuck"),))[0]
    loose = replace(dive, faults=(Fault("loose", 1.0, 30, 50),))
    spans = []
    for performance in (dive, loose):
        (points,) = choreograph(performance)
        reach = np.ptp(points[:, : len(COCO), :2], axis=1).max(axis=1)
        spans.append(reach[performance.take_off() + 18])
    assert spans[1] > 1.15 * spans[0], "a loose tuck is larger"
    (points,) = choreograph(dive)
    head = points[dive.take_off() : dive.touch_down(), COCO.index("nose"), 1]
    assert head[0] > 10 and head[-1] < 1


@pytest.mark.parametrize("action", DIVES)
def test_a_bigger_splash_is_whiter_water(action):
    white = []
    for amount in (0.0, 0.35, 0.7, 1.0):
        fault = Fault("splash", amount, 0, 1)
        performance, look = plain(action, faults=(fault, replace(fault, athlete=1)))
        end = performance.touch_down()
        shot = film(performance, look, end, end + 20)
        pictures = np.stack(list(shot.pictures()))
        white.append((pictures.min(axis=-1) > 235).sum())
    assert np.all(np.diff(white) > 500), white


@pytest.mark.parametrize("action", ["gym_vault", "ski_big_air", "snowboard_big_air"])
def test_a_fall_is_low_and_a_good_landing_upright(action):
    heights = []
    for amount in (0.0, 0.5, 1.0):
        performance, _ = plain(action, faults=(Fault("landing", amount, 0, 1),))
        (points,) = choreograph(performance)
        after = points[performance.touch_down() + 3 :]
        feet = after[:, COCO.index("ankle_l"), 1]
        heights.append((after[:, COCO.index("nose"), 1] - feet).mean())
    assert heights == sorted(heights, reverse=True)
    assert heights[0] > 2 * heights[2]


def test_the_second_athlete_is_late_by_the_lag():
    performance, _ = plain("sync_diving_10m", lag=3.0)
    first, second = choreograph(performance)
    np.testing.assert_allclose(second[3:], first[:-3], atol=1e-9)


# ------------------------------------------------------------- planted errors, classes


def test_a_planted_error_is_inside_its_clip_only(tmp_path):
    manifest = plant(tmp_path, "diving", videos=2, seed=1, workers=1)
    rows = list(csv.DictReader(manifest.read_text().splitlines()))
    truth = json.loads((tmp_path / "truth.json").read_text())["videos"]
    assert [row["video"] for row in rows] == sorted(truth)
    for row in rows:
        planted = truth[row["video"]]
        frames = frames_of(tmp_path / row["video"])
        assert planted["frames"] == frames and float(row["score"]) == planted["score"]
        start, end = planted["clip_frames"]
        shift = 103 - frames
        assert 16 * planted["clip"] <= start + shift < end + shift
        assert end + shift <= 16 * (planted["clip"] + 1)
        bent = [f for f in planted["performance"]["faults"] if f["amount"] == 1.0]
        assert [(f["kind"], f["start"], f["end"]) for f in bent] == [
            ("bent_knees", start, end)
        ]


def test_a_planted_splash_lies_mostly_in_its_clip_and_not_always_in_the_same(tmp_path):
    plant(tmp_path, "diving", videos=6, seed=1, workers=1, error="splash")
    truth = json.loads((tmp_path / "truth.json").read_text())["videos"]
    for planted in truth.values():
        start, end = planted["clip_frames"]
        assert start == planted["touch_down"] and end == start + 16
        shift = 103 - planted["frames"]  # of frame 0 of the video in the fitted one
        clips = np.arange(start + shift, end + shift) // 16
        seen = np.bincount(clips, minlength=6)[:6].tolist()
        assert seen[planted["clip"]] == max(seen) >= 8
        bad = [f for f in planted["performance"]["faults"] if f["amount"] > 0.15]
        assert [(f["kind"], f["amount"]) for f in bad] == [("splash", 1.0)]
    assert len({planted["clip"] for planted in truth.values()}) > 1


def test_planted_knees_are_bent_in_the_clip_and_straight_around_it():
    dive, look = plain("diving", elements=(Element(2.5, 0.0, "pike"),))
    start, end = dive.take_off() + 16, dive.take_off() + 32
    straight = film(dive, look).keypoints()
    bent = film(go_wrong(dive, "bent_knees", start, end), look).keypoints()
    knees = [angle_at(k, "hip_l", "knee_l", "ankle_l") for k in (straight, bent)]
    middle = slice(start + 4, end - 4)
    assert knees[0][middle].min() > 170 and knees[1][middle].max() < 120
    np.testing.assert_array_equal(straight[:start, ..., 2], bent[:start, ..., 2])
    np.testing.assert_allclose(knees[0][: start - 1], knees[1][: start - 1], atol=4)


def test_classes_come_in_ucf101s_layout(tmp_path, monkeypatch):
    chosen = {name: CLASSES[name] for name in ("EntryBigSplash", "PairApart")}
    monkeypatch.setattr("action_clips.CLASSES", chosen)
    root = synthesise_classes(tmp_path / "classes", 3, seed=2, workers=1)
    lines = {path.name: path.read_text().splitlines() for path in root.glob("*.txt")}
    assert lines["classInd.txt"] == ["1 EntryBigSplash", "2 PairApart"]
    assert lines["testlist01.txt"] == [
        f"{name}/v_{name}_g01_c0{clip}.avi" for name in chosen for clip in (1, 2)
    ]
    assert lines["trainlist01.txt"] == [
        f"{name}/v_{name}_g02_c01.avi {label}" for label, name in enumerate(chosen, 1)
    ]
    videos = sorted(root.glob("*/*.avi"))
    assert len(videos) == 6
    assert all(16 <= frames_of(video) <= 24 for video in videos)
    again = synthesise_classes(tmp_path / "again", 3, seed=2, workers=1)
    assert digests(again) == digests(root)
