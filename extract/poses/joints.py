"""Poses of a video, whatever tool found them: joints in one order, without holes.

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

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aqa.cache.actions import BY_NAME
from aqa.extract.config import PoseConfig
from aqa.extract.poses.files import People, digest, find_poses, read_people
from aqa.extract.poses.keypoints import PoseError
from aqa.extract.poses.tracks import fill_gaps, follow, trust

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
