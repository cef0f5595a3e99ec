"""Who the athlete is among many, and what is done about what nobody saw."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqa.extract.poses.layouts import named_layout
from aqa.extract.poses.read import PoseError
from aqa.extract.poses.tracks import drop_uncertain, fill_gaps, follow

FRAMES, JOINTS = 20, 17
COCO = named_layout("coco17").mirrored


def person(centre, size, score=0.9, frames=FRAMES, speed=(0, 0), seed=0):
    """Series (frames, joints, 3) of one person of about `size` pixels."""
    rng = np.random.default_rng(seed)
    shape = rng.uniform(-0.5, 0.5, (JOINTS, 2)) * size
    centres = np.asarray(centre) + np.arange(frames)[:, None] * np.asarray(speed)
    joints = centres[:, None] + shape
    return np.concatenate([joints, np.full((frames, JOINTS, 1), score)], axis=-1)


def crowd(*people, seed=0):
    """Everybody in every frame, in a new order each: (frames, people, joints, 3)."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [
            np.stack(one)[rng.permutation(len(people))]
            for one in zip(*people, strict=True)
        ]
    )


def test_largest_person_is_the_athlete_in_whatever_order():
    athlete, judge = person((50, 50), 60, seed=1), person((200, 50), 30, seed=2)
    np.testing.assert_array_equal(follow(crowd(athlete, judge), 1)[0], [athlete])


def test_surest_of_two_as_large_is_the_athlete():
    athlete = person((50, 50), 60, score=0.9, seed=1)
    poster = person((200, 50), 60, score=0.4, seed=1)
    np.testing.assert_array_equal(follow(crowd(poster, athlete), 1)[0], [athlete])


def test_athlete_is_followed_past_a_larger_passer_by():
    athlete = person((20, 50), 40, speed=(8, 0), seed=1)
    passer = person((300, 60), 80, seed=2)
    passer[2:] = np.nan
    np.testing.assert_array_equal(follow(crowd(athlete, passer), 1)[0], [athlete])


def test_two_who_cross_keep_their_own_series():
    going = person((20, 50), 40, speed=(8, 0), seed=1)
    coming = person((180, 80), 40, speed=(-8, 0), seed=2)
    both, _ = follow(crowd(going, coming), 2)
    found = {tuple(series[:, 0, 0]) for series in both}
    assert found == {tuple(going[:, 0, 0]), tuple(coming[:, 0, 0])}


def test_left_athlete_comes_first():
    left, right = person((50, 50), 30, seed=1), person((150, 50), 60, seed=2)
    np.testing.assert_array_equal(follow(crowd(right, left), 2)[0], [left, right])


def test_a_track_waits_for_its_person():
    athlete = person((50, 50), 60, speed=(3, 0), seed=1)
    hidden = athlete.copy()
    hidden[5:9] = np.nan
    series = follow(hidden[:, None], 1)[0][0]
    np.testing.assert_array_equal(series, hidden)


def test_somebody_far_away_is_somebody_else():
    people = person((50, 50), 60, seed=1)
    people[10:, :, :2] += 500  # 500 pixels in a frame, of a person of 60
    with pytest.raises(PoseError, match="expected 1 athletes, found 0"):
        follow(np.full_like(people, np.nan)[:, None], 1)
    assert np.isfinite(follow(people[:, None], 1)[0]).all(axis=(2, 3)).sum() == 10


def test_too_few_athletes_are_refused():
    with pytest.raises(PoseError, match="expected 2 athletes, found 1"):
        follow(person((50, 50), 60)[:, None], 2)


def test_a_lone_joint_is_a_person_still():
    people = np.full((4, 1, JOINTS, 3), np.nan)
    people[:, 0, 3] = [5.0, 6.0, 0.9]
    np.testing.assert_array_equal(follow(people, 1)[0][0], people[:, 0])


def test_drop_uncertain_takes_joints_below_the_confidence():
    people = np.array([[[[1.0, 2.0, 0.3], [3.0, 4.0, 0.29], [5.0, np.nan, 1.0]]]])
    kept = drop_uncertain(people, 0.3)[0, 0]
    np.testing.assert_array_equal(kept[0], [1.0, 2.0, 0.3])
    assert np.isnan(kept[1:]).all()


def test_gaps_are_filled_in_time_and_held_at_the_ends():
    track = np.full((6, 2, 3), 1.0)
    track[:, 0, 0] = [np.nan, 10, np.nan, np.nan, 16, np.nan]
    track[:, 0, 1] = track[:, 0, 0] * -2
    filled = fill_gaps(track, 0.5, (0, 1))
    np.testing.assert_allclose(filled[:, 0, 0], [10, 10, 12, 14, 16, 16])
    np.testing.assert_allclose(filled[:, 0, 1], [-20, -20, -24, -28, -32, -32])


def test_joint_never_seen_takes_its_counterparts_course():
    track = person((50, 50), 60)
    track[:, 3] = np.nan  # the left ear
    filled = fill_gaps(track, 0.5, COCO)
    np.testing.assert_array_equal(filled[:, 3], track[:, 4, :2])
    track[:, 4] = np.nan
    with pytest.raises(PoseError, match="joint 3 is missing in every frame"):
        fill_gaps(track, 0.5, COCO)


def test_nose_has_no_counterpart():
    track = person((50, 50), 60)
    track[:, 0] = np.nan
    with pytest.raises(PoseError, match="joint 0 is missing in every frame"):
        fill_gaps(track, 0.5, COCO)


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.5))
def test_what_was_seen_stays_and_nothing_leaves_its_range(seed, share):
    rng = np.random.default_rng(seed)
    track = person((50, 50), 60, seed=seed)
    track[rng.random((FRAMES, JOINTS)) < share] = np.nan
    seen = np.isfinite(track[..., 0])
    if not seen.any(axis=0).all():
        return
    filled = fill_gaps(track, 1.0, COCO)
    np.testing.assert_array_equal(filled[seen], track[seen][:, :2])
    low, high = np.nanmin(track, axis=0)[:, :2], np.nanmax(track, axis=0)[:, :2]
    assert (filled >= low - 1e-9).all() and (filled <= high + 1e-9).all()


@given(st.integers(0, 2**32 - 1))
def test_order_of_people_in_a_file_does_not_matter(seed):
    people = [person((60 + 90 * i, 50), 50, speed=(i, 1), seed=i) for i in range(3)]
    people[2][..., 2] = 0.5
    found, _ = follow(crowd(*people, seed=seed), 2)
    np.testing.assert_array_equal(found, people[:2])
