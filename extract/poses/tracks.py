"""From everybody in every frame to whole series of the athletes' joints.

Conventions: people are float64 (frames, people, joints, 3): x and y in pixels, and
a score; NaN where there is nobody. `follow` keeps that layout, a person's place
becoming an athlete; `fill_gaps` gives (frames, joints, 2) without a hole.

An athlete is who is followed longest, largest and surest: people are linked from
frame to frame by the distance of their centres, and a track weighs the sum over its
frames of bounding box times mean score.

Poses of a video, whatever tool found them: joints in one order, without holes.

Conventions: joints are float64 (athletes, frames, joints, 2), x and y in pixels of
the video, y downwards. Frames are all of the video's: nothing is padded or cut.

The order is COCO's 17: nose, eyes, ears, shoulders, elbows, wrists, hips, knees,
ankles, each left before right. The head, from which the features measure, is the
nose: joint 0 of COCO, and of OpenPose's 18 and 25 too.

| joints in the file | taken as | brought to COCO's order by |
|---|---|---|
| 17 | COCO | nothing |
| 18 | OpenPose COCO | leaving out the neck |
| 25 | OpenPose BODY_25 | leaving out neck, mid-hip and feet |

Another layout stays as it is when `PoseConfig.joints` and `head` describe it.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from aqa.cache.actions import BY_NAME
from aqa.extract.config import PoseConfig
from aqa.extract.poses.read import People, PoseError, digest, find_poses, read_people

#: A person moves at most this many of its own diagonals from frame to frame.
REACH = 1.0
#: Frames for which a track waits for its person to be seen again.
PATIENCE = 30


@dataclass
class Track:
    """One person's places: frame -> index among the people of that frame."""

    centre: npt.NDArray[np.float64]
    size: float
    last: int
    places: dict[int, int] = field(default_factory=dict)
    weight: float = 0.0


def trust(people: People, confidence: float) -> People:
    """Take away the joints that the score does not vouch for."""
    seen = np.isfinite(people).all(axis=-1) & (people[..., 2] >= confidence)
    return np.where(seen[..., None], people, np.nan)


def follow(people: People, athletes: int) -> People:
    """Find the athletes: (frames, people, joints, 3) -> (athletes, frames, joints, 3).

    Two athletes come in the order of their mean x, left first, so that it does not
    depend on the order in a file. Raises `PoseError` when there are too few.
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
        sizes = np.maximum(np.hypot(*(high - low).T), 1.0)  # a lone joint: a pixel
        weights = np.prod(high - low, axis=1) * np.nanmean(
            everybody[present, :, 2], axis=1
        )
        waiting = [track for track in tracks if frame - track.last <= PATIENCE]
        owner = _match(waiting, frame, centres, sizes)
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
    """Give people to tracks so that all together move least: person -> track."""
    if not tracks:
        return {}
    before = np.array([track.centre for track in tracks])
    size = np.array([track.size for track in tracks])
    waited = np.array([frame - track.last for track in tracks])
    moved = np.linalg.norm(before[:, None] - centres, axis=-1)  # (tracks, people)
    moved /= np.maximum(size[:, None], sizes)
    # A track that waited reaches further, but is no nearer for it. What is out of
    # reach costs the same wherever it is, and is not taken.
    out = moved > REACH * waited[:, None]
    pairs = linear_sum_assignment(np.where(out, 2 * REACH * PATIENCE, moved))
    return {
        int(person): tracks[track]
        for track, person in zip(*pairs, strict=True)
        if not out[track, person]
    }


@dataclass(frozen=True)
class Filled:
    """An athlete without holes: joints (frames, joints, 2), and what was missing.

    `missing` counts joints of single frames, `empty` frames that had none at all.
    """

    joints: npt.NDArray[np.float64]
    missing: int
    empty: int


def fill_gaps(track: npt.NDArray[np.float64], share: float) -> Filled:
    """Interpolate what is missing of one athlete (frames, joints, 3).

    Joints are interpolated in time, and held before the first and after the last
    frame that shows them. A joint of COCO's 17 that is never seen takes the course
    of its counterpart on the body's other side. Raises `PoseError` when more than
    `share` of the joints is missing, or one cannot be placed.
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
    # COCO lists left before right, from 1 on; 0 is the nose.
    other = joint + 1 if joint % 2 else joint - 1
    if seen.shape[1] != 17 or joint == 0 or not seen[:, other].any():
        raise PoseError(f"joint {joint} is in no frame")
    return other


#: Where OpenPose's layouts keep COCO's joints, by their number of joints.
OPENPOSE = {
    18: (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10),
    25: (0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11),
}


@dataclass(frozen=True)
class Poses:
    """The athletes of one video: joints (athletes, frames, joints, 2).

    `repairs` says in words what was missing and interpolated, or nothing.
    """

    joints: npt.NDArray[np.float64]
    repairs: str
    source_sha256: str


def read_poses(folder: Path, key: str, action: str, config: PoseConfig) -> Poses:
    """Poses of the video `key` under `folder`; raises `PoseError` naming the file.

    Of an action that AQA-7 knows to have one athlete only one is followed, even when
    `config` asks for two.
    """
    path = find_poses(folder, key)
    known = BY_NAME.get(action)
    athletes = min(config.athletes, known.participants) if known else config.athletes
    people = trust(_in_order(read_people(path), config, path), config.confidence)
    try:
        tracks = follow(people, athletes)
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


def _in_order(people: People, config: PoseConfig, path: Path) -> People:
    found = people.shape[2]
    if found == config.joints:
        return people
    if config.joints == 17 and found in OPENPOSE:
        return people[:, :, OPENPOSE[found]]
    expected = "17, 18 or 25" if config.joints == 17 else str(config.joints)
    raise PoseError(f"{path}: expected {expected} joints, found {found}")
