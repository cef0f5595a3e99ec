"""From all people of all frames to complete series of the athletes' joints.

Conventions: people are float64 (frames, people, joints, 3): x and y in pixels of the
video, y downwards, and a score; missing values are NaN. `follow` returns the same
layout with athletes first; `Poses.joints` is (athletes, frames, joints, 2) without
missing values. Frames are all of the video's: nothing is padded or cut.

The athlete is the person who is tracked longest, largest and with the highest scores:
people are linked from frame to frame by the distance of their centres, and a track's
weight is the sum over its frames of bounding box area times mean score.

Joints are brought to COCO's order of 17: nose, eyes, ears, shoulders, elbows, wrists,
hips, knees, ankles, each left before right. 17 joints are taken as COCO, 18 as
OpenPose COCO (without its neck), 25 as OpenPose BODY_25 (without neck, mid-hip and
feet). Another layout stays as it is if `PoseConfig.joints` and `head` describe it.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from aqa.cache.actions import BY_NAME
from aqa.extract.config import PoseConfig
from aqa.extract.poses.read import People, PoseError, digest, find_poses, read_people

#: Largest step from one frame to the next, in diagonals of the person's box.
MAX_STEP = 1.0
#: Frames after which a track without a match ends.
MAX_GAP = 30
#: Positions of COCO's joints in OpenPose's layouts, by their number of joints.
OPENPOSE = {
    18: (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10),
    25: (0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11),
}


@dataclass(frozen=True)
class Poses:
    """The athletes of one video: joints (athletes, frames, joints, 2).

    `repairs` describes what was missing and interpolated; empty if nothing was.
    """

    joints: npt.NDArray[np.float64]
    repairs: str
    source_sha256: str


def read_poses(folder: Path, key: str, action: str, config: PoseConfig) -> Poses:
    """Return the poses of the video `key` under `folder`.

    For an AQA-7 action with one participant only one athlete is followed, even if
    `config.athletes` is 2. Raises `PoseError` naming the file.
    """
    path = find_poses(folder, key)
    known = BY_NAME.get(action)
    athletes = min(config.athletes, known.participants) if known else config.athletes
    people = _coco_order(read_people(path), config, path)
    try:
        tracks = follow(drop_uncertain(people, config.confidence), athletes)
        filled = [fill_gaps(track, config.missing) for track in tracks]
    except PoseError as error:
        raise PoseError(f"{path}: {error}") from error
    joints = np.stack([one.joints for one in filled])
    missing = sum(one.missing for one in filled)
    repairs = (
        f"interpolated {missing} of {joints[..., 0].size} joints, in "
        f"{sum(one.empty for one in filled)} of {joints[..., 0, 0].size} frames all"
    )
    return Poses(joints, repairs if missing else "", digest(path))


def _coco_order(people: People, config: PoseConfig, path: Path) -> People:
    found = people.shape[2]
    if found == config.joints:
        return people
    if config.joints == 17 and found in OPENPOSE:
        return people[:, :, OPENPOSE[found]]
    expected = "17, 18 or 25" if config.joints == 17 else str(config.joints)
    raise PoseError(f"{path}: expected {expected} joints, found {found}")


def drop_uncertain(people: People, confidence: float) -> People:
    """Set joints with a score below `confidence` to NaN."""
    seen = np.isfinite(people).all(axis=-1) & (people[..., 2] >= confidence)
    return np.where(seen[..., None], people, np.nan)


@dataclass
class Track:
    """One person over time; `places` maps a frame to the index of its person."""

    centre: npt.NDArray[np.float64]
    size: float
    last: int
    places: dict[int, int] = field(default_factory=dict)
    weight: float = 0.0


def follow(people: People, athletes: int) -> People:
    """Select the athletes: (frames, people, joints, 3) -> (athletes, frames, ...).

    Two athletes are ordered by mean x, left first, so that the order in the file does
    not matter. Raises `PoseError` when there are too few.
    """
    tracks = sorted(_link(people), key=lambda track: -track.weight)[:athletes]
    if len(tracks) < athletes:
        raise PoseError(f"expected {athletes} athletes, found {len(tracks)}")
    series = np.full((len(tracks), len(people), *people.shape[2:]), np.nan)
    for one, track in zip(series, tracks, strict=True):
        frames, places = list(track.places), list(track.places.values())
        one[frames] = people[frames, places]
    return series[np.argsort(np.nanmean(series[..., 0], axis=(1, 2)), kind="stable")]


def _link(people: People) -> list[Track]:
    tracks: list[Track] = []
    for frame, everybody in enumerate(people):
        present = np.flatnonzero(np.isfinite(everybody).any(axis=(1, 2)))
        if not len(present):
            continue
        low = np.nanmin(everybody[present, :, :2], axis=1)
        high = np.nanmax(everybody[present, :, :2], axis=1)
        centres = (low + high) / 2
        sizes = np.maximum(np.hypot(*(high - low).T), 1.0)  # a single joint: 1 pixel
        scores = np.nanmean(everybody[present, :, 2], axis=1)
        weights = np.prod(high - low, axis=1) * scores
        open_tracks = [track for track in tracks if frame - track.last <= MAX_GAP]
        owner = _match(open_tracks, frame, centres, sizes)
        for i, place in enumerate(present):
            track = owner.get(i)
            if track is None:
                track = Track(centres[i], sizes[i], frame)
                tracks.append(track)
            track.centre, track.size, track.last = centres[i], sizes[i], frame
            track.places[frame] = int(place)
            track.weight += weights[i]
    return tracks


def _match(
    tracks: list[Track],
    frame: int,
    centres: npt.NDArray[np.float64],
    sizes: npt.NDArray[np.float64],
) -> dict[int, Track]:
    """Assign people to tracks with the least total motion: person -> track."""
    if not tracks:
        return {}
    before = np.array([track.centre for track in tracks])
    size = np.array([track.size for track in tracks])
    elapsed = np.array([frame - track.last for track in tracks])
    moved = np.linalg.norm(before[:, None] - centres, axis=-1)  # (tracks, people)
    moved /= np.maximum(size[:, None], sizes)
    # The allowed distance grows with the gap, the cost does not. All pairs beyond it
    # cost the same and are dropped.
    out = moved > MAX_STEP * elapsed[:, None]
    pairs = linear_sum_assignment(np.where(out, 2 * MAX_STEP * MAX_GAP, moved))
    return {
        int(person): tracks[track]
        for track, person in zip(*pairs, strict=True)
        if not out[track, person]
    }


@dataclass(frozen=True)
class Filled:
    """One athlete without missing values: joints (frames, joints, 2).

    `missing` counts interpolated joints, `empty` frames in which all were missing.
    """

    joints: npt.NDArray[np.float64]
    missing: int
    empty: int


def fill_gaps(track: npt.NDArray[np.float64], share: float) -> Filled:
    """Interpolate the missing joints of one athlete (frames, joints, 3).

    Joints are interpolated linearly in time, and held constant before the first and
    after the last frame that has them. Of COCO's 17, a joint that is missing in all
    frames takes the positions of its counterpart on the other side of the body. Raises
    `PoseError` when more than `share` of the joints is missing, or a joint and its
    counterpart are missing in all frames.
    """
    seen = np.isfinite(track[..., 0])  # (frames, joints)
    missing, empty = int((~seen).sum()), int((~seen.any(axis=1)).sum())
    if missing > share * seen.size:
        raise PoseError(
            f"expected at most {share:.0%} of the joints missing, found "
            f"{missing / seen.size:.0%}, and {empty} of {len(seen)} frames empty"
        )
    times = np.arange(len(track))
    joints = np.empty((*seen.shape, 2))
    for joint in range(seen.shape[1]):
        source = joint if seen[:, joint].any() else _counterpart(joint, seen)
        known = seen[:, source]
        for axis in range(2):
            values = track[known, source, axis]
            joints[:, joint, axis] = np.interp(times, times[known], values)
    return Filled(joints, missing, empty)


def _counterpart(joint: int, seen: npt.NDArray[np.bool_]) -> int:
    # COCO lists left before right from joint 1 on; joint 0 is the nose.
    other = joint + 1 if joint % 2 else joint - 1
    if seen.shape[1] != 17 or joint == 0 or not seen[:, other].any():
        raise PoseError(f"joint {joint} is in no frame")
    return other
