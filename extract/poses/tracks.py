"""From all people of all frames to complete series of the athletes' joints.

Conventions: people are (frames, people, joints, axes + 1) as in `PoseFile`. `follow`
puts athletes first; `Poses.joints` is (athletes, frames, joints, axes) without missing
values. Frames are all of the file's: nothing is padded or cut.

The athlete is the person who is tracked longest, largest and with the highest scores:
people are linked from frame to frame by the distance of their centres, and a track's
weight is the sum over its frames of bounding box area (x and y) times mean score.
Identities that a file states are not used: tools disagree about them, and OpenPose's
order of people is arbitrary in every frame.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from aqa.cache.actions import BY_NAME
from aqa.extract.config import PoseConfig
from aqa.extract.poses.conventions import PoseFile, read_pose_file
from aqa.extract.poses.read import PoseError, naming

Numbers = npt.NDArray[np.float64]

#: Largest step from one frame to the next, in diagonals of the person's box.
MAX_STEP = 1.0
#: Frames after which a track without a match ends.
MAX_GAP = 30
#: A track with this share of the athlete's weight is worth a note.
RIVAL = 0.5


@dataclass(frozen=True)
class Poses:
    """The athletes of one video: joints (athletes, frames, joints, axes).

    `notes` say what was decided: frames, people, joints missing and interpolated.
    """

    joints: Numbers
    file: PoseFile
    notes: str


def read_poses(path: Path, action: str, config: PoseConfig) -> Poses:
    """Return the athletes' poses in a file.

    For an AQA-7 action with one participant only one athlete is followed, even if
    `config.athletes` is 2. Raises `PoseError` naming the file.
    """
    file = read_pose_file(path, config)
    known = BY_NAME.get(action)
    athletes = min(config.athletes, known.participants) if known else config.athletes
    with naming(path):
        people = drop_uncertain(file.people, config.confidence)
        tracks, followed = follow(people, athletes)
        mirrored = file.layout.mirrored
        joints = [fill_gaps(track, config.missing, mirrored) for track in tracks]
    notes = [*file.notes, *([followed] if followed else [])]
    missing = np.isnan(tracks[..., 0])  # (athletes, frames, joints)
    if missing.any():
        empty = missing.all(axis=2)
        notes.append(
            f"interpolated {missing.sum()} of {missing.size} joints, in "
            f"{empty.sum()} of {empty.size} frames all"
        )
    return Poses(np.stack(joints), file, "; ".join(notes))


def drop_uncertain(people: Numbers, confidence: float) -> Numbers:
    """Set joints with a score below `confidence` to NaN."""
    seen = np.isfinite(people).all(axis=-1) & (people[..., -1] >= confidence)
    return np.where(seen[..., None], people, np.nan)


@dataclass
class Track:
    """One person over time; `places` maps a frame to the index of its person."""

    centre: Numbers
    size: float
    last: int
    places: dict[int, int] = field(default_factory=dict)
    weight: float = 0.0


def follow(people: Numbers, athletes: int) -> tuple[Numbers, str]:
    """Select the athletes, (athletes, frames, joints, axes + 1), and note rivals.

    Two athletes are ordered by mean x, left first, so that the order in the file does
    not matter. Raises `PoseError` when there are too few.
    """
    tracks = sorted(_link(people), key=lambda track: -track.weight)
    chosen, others = tracks[:athletes], tracks[athletes:]
    if len(chosen) < athletes:
        raise PoseError(f"expected {athletes} athletes, found {len(chosen)}")
    series = np.full((athletes, len(people), *people.shape[2:]), np.nan)
    for one, track in zip(series, chosen, strict=True):
        frames, places = list(track.places), list(track.places.values())
        one[frames] = people[frames, places]
    rivals = sum(other.weight >= RIVAL * chosen[-1].weight for other in others)
    note = (
        f"followed {athletes} of {athletes + rivals} similar people" if rivals else ""
    )
    order = np.argsort(np.nanmean(series[..., 0], axis=(1, 2)), kind="stable")
    return series[order], note


def _link(people: Numbers) -> list[Track]:
    tracks: list[Track] = []
    low = np.fmin.reduce(people[..., :-1], axis=2)  # (frames, people, axes)
    high = np.fmax.reduce(people[..., :-1], axis=2)
    diagonals = np.linalg.norm(high - low, axis=-1)
    # A person of a single joint has no size: a hundredth of the usual one.
    usual = np.median(diagonals[diagonals > 0]) if (diagonals > 0).any() else 100
    for frame, everybody in enumerate(people):
        present = np.flatnonzero(np.isfinite(low[frame, :, 0]))
        centres = (low[frame, present] + high[frame, present]) / 2
        sizes = np.maximum(diagonals[frame, present], usual / 100)
        areas = np.prod((high - low)[frame, present, :2], axis=1)
        open_tracks = [t for t in tracks if frame - t.last <= MAX_GAP]
        owner = _match(open_tracks, frame, centres, sizes)
        for i, place in enumerate(present):
            if i not in owner:
                owner[i] = Track(centres[i], sizes[i], frame)
                tracks.append(owner[i])
            track = owner[i]
            track.centre, track.size, track.last = centres[i], sizes[i], frame
            track.places[frame] = int(place)
            track.weight += areas[i] * np.nanmean(everybody[place, :, -1])
    return tracks


def _match(
    tracks: list[Track], frame: int, centres: Numbers, sizes: Numbers
) -> dict[int, Track]:
    """Assign people to tracks with the least total motion: person -> track."""
    if not tracks or not len(centres):
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


def fill_gaps(track: Numbers, share: float, mirrored: tuple[int, ...]) -> Numbers:
    """Interpolate missing joints: (frames, joints, axes + 1) -> (frames, joints, axes).

    Joints are interpolated linearly in time, and held constant before the first and
    after the last frame that has them. A joint that is missing in all frames takes the
    positions of its counterpart on the other side of the body, `mirrored`. Raises
    `PoseError` when more than `share` of the joints is missing, or a joint and its
    counterpart are missing in all frames.
    """
    seen = np.isfinite(track[..., 0])  # (frames, joints)
    if (missing := (~seen).mean()) > share:
        raise PoseError(
            f"expected at most {share:.0%} of the joints missing, found {missing:.0%}, "
            f"and {(~seen.any(axis=1)).sum()} of {len(seen)} frames empty"
        )
    times = np.arange(len(track))
    joints = np.empty((*seen.shape, track.shape[-1] - 1))
    for joint, other in enumerate(mirrored):
        source = joint if seen[:, joint].any() else other
        known = seen[:, source]
        if not known.any():
            raise PoseError(f"joint {joint} is missing in every frame")
        for axis in range(joints.shape[-1]):
            values = track[known, source, axis]
            joints[:, joint, axis] = np.interp(times, times[known], values)
    return joints
