"""Joint layouts: the joints of a pose in order, and what features measure from.

Conventions: `l_` and `r_` are the athlete's left and right. Layouts that contain COCO's
17 joints are reduced to those, in COCO's order; others keep their own. Orders are those
of the tools' documentation: OpenPose (COCO and BODY_25), Kinect for Windows SDK 1 and 2
(NTU RGB+D uses 2), MediaPipe Pose, SMPL, Human3.6M (MMPose, VideoPose3D, MotionBERT),
Halpe and COCO-WholeBody. Of the last two only the 17 joints that are COCO's have names.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

COCO = (
    "nose l_eye r_eye l_ear r_ear l_shoulder r_shoulder l_elbow r_elbow "
    "l_wrist r_wrist l_hip r_hip l_knee r_knee l_ankle r_ankle"
).split()
_OPENPOSE = "nose neck r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist"
_KINECT_LIMBS = (
    "l_shoulder l_elbow l_wrist l_hand r_shoulder r_elbow r_wrist r_hand "
    "l_hip l_knee l_ankle l_foot r_hip r_knee r_ankle r_foot"
)
LAYOUTS: dict[str, list[str]] = {
    "coco17": COCO,
    "openpose18": (
        f"{_OPENPOSE} r_hip r_knee r_ankle l_hip l_knee l_ankle r_eye l_eye r_ear l_ear"
    ).split(),
    "body25": (
        f"{_OPENPOSE} mid_hip r_hip r_knee r_ankle l_hip l_knee l_ankle "
        "r_eye l_eye r_ear l_ear l_big_toe l_small_toe l_heel "
        "r_big_toe r_small_toe r_heel"
    ).split(),
    "kinect25": (
        f"pelvis spine neck head {_KINECT_LIMBS} spine_shoulder "
        "l_hand_tip l_thumb r_hand_tip r_thumb"
    ).split(),
    "kinect20": f"pelvis spine shoulder_center head {_KINECT_LIMBS}".split(),
    "mediapipe33": (
        "nose l_eye_inner l_eye l_eye_outer r_eye_inner r_eye r_eye_outer l_ear r_ear "
        "l_mouth r_mouth l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist "
        "l_pinky r_pinky l_index r_index l_thumb r_thumb l_hip r_hip l_knee r_knee "
        "l_ankle r_ankle l_heel r_heel l_foot_index r_foot_index"
    ).split(),
    "smpl24": (
        "pelvis l_hip r_hip spine1 l_knee r_knee spine2 l_ankle r_ankle spine3 "
        "l_foot r_foot neck l_collar r_collar head l_shoulder r_shoulder "
        "l_elbow r_elbow l_wrist r_wrist l_hand r_hand"
    ).split(),
    "h36m17": (
        "pelvis r_hip r_knee r_ankle l_hip l_knee l_ankle spine thorax neck head "
        "l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist"
    ).split(),
    "halpe26": [*COCO, *map(str, range(17, 26))],
    "halpe136": [*COCO, *map(str, range(17, 136))],
    "wholebody133": [*COCO, *map(str, range(17, 133))],
}
#: Layouts that their number of joints stands for, in two dimensions.
UNAMBIGUOUS = {
    len(LAYOUTS[name]): name
    for name in "coco17 openpose18 halpe26 mediapipe33 wholebody133 halpe136".split()
}


@dataclass(frozen=True)
class Layout:
    """Joints of a pose as the features use them.

    `name` is of the file's `joints` joints, `kept` of those that `take` selects.
    `head`, `centre` and `mirrored` are positions among the selected: pose-dct and
    pose-apen measure from the head, pose-clips from the mean of the `centre` joints;
    `mirrored` gives each joint its counterpart on the other side, or itself.
    """

    name: str
    kept: str
    joints: int
    take: tuple[int, ...]
    head: int
    centre: tuple[int, ...]
    mirrored: tuple[int, ...]


def named_layout(name: str) -> Layout:
    """Return a layout of `LAYOUTS`."""
    names = LAYOUTS[name]
    is_coco = set(COCO) <= set(names)
    kept = COCO if is_coco else names
    swapped = [
        re.sub("^[lr](?=_)", lambda side: "r" if side[0] == "l" else "l", joint)
        for joint in kept
    ]
    return Layout(
        name=name,
        kept="coco17" if is_coco else name,
        joints=len(names),
        take=tuple(names.index(joint) for joint in kept),
        head=kept.index("nose" if is_coco else "head"),
        centre=tuple(map(kept.index, ["l_hip", "r_hip"] if is_coco else ["pelvis"])),
        mirrored=tuple(map(kept.index, swapped)),
    )


def custom_layout(joints: int, root: int) -> Layout:
    """Return a layout of `joints` unnamed joints, all measured from joint `root`."""
    name, own = f"{joints} joints, root {root}", tuple(range(joints))
    return Layout(name, name, joints, own, root, (root,), own)


def layout_of_names(names: Sequence[str]) -> Layout | None:
    """Return the layout of joints with such names; None without COCO's."""
    plain = [_plain(name) for name in names]
    wanted = [_plain(name) for name in COCO]
    if not set(wanted) <= set(plain):
        return None
    take = tuple(map(plain.index, wanted))
    name = "coco17" if plain == wanted else "joints by name"
    return replace(named_layout("coco17"), name=name, joints=len(names), take=take)


def _plain(name: str) -> str:
    """Spell `LShoulder`, `left-shoulder` and `l_shoulder` in one way."""
    letters = re.sub("[^a-z]", "", name.lower())
    return re.sub("^(left|right)", lambda side: side[0][0], letters)
