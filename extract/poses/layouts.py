"""Joint layouts: which joints a pose has, in which order, and what is measured from.

Conventions: a layout is a tuple of joint names, `left_` and `right_` from the athlete's
point of view. Layouts that contain COCO's 17 joints are reduced to those, in COCO's
order; the others keep their own joints. Positions of joints are found by name, so that
a layout is stated once.

Names and orders are those of the tools' documentation: COCO, OpenPose (COCO and
BODY_25), Kinect for Windows SDK 1 and 2 (NTU RGB+D uses 2), MediaPipe Pose, SMPL,
Human3.6M (VideoPose3D, MotionBERT, MMPose), Halpe and COCO-WholeBody. Of the last two
only the first 17 joints are used and named.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace


def _both(names: str) -> list[str]:
    """Replace each name with a `*` by its left and its right joint."""
    sides = ("left", "right")
    return [n.replace("*", side) for n in names.split() for side in sides]


def _side(side: str, names: str) -> list[str]:
    return [f"{side}_{name}" for name in names.split()]


COCO = (
    "nose",
    *_both("*_eye *_ear *_shoulder *_elbow *_wrist *_hip *_knee *_ankle"),
)
_ARM, _LEG = "shoulder elbow wrist", "hip knee ankle"
_KINECT_LIMBS = [
    *_side("left", f"{_ARM} hand"),
    *_side("right", f"{_ARM} hand"),
    *_side("left", f"{_LEG} foot"),
    *_side("right", f"{_LEG} foot"),
]
_OPENPOSE_ARMS = ["nose", "neck", *_side("right", _ARM), *_side("left", _ARM)]
_OPENPOSE_FACE = ["right_eye", "left_eye", "right_ear", "left_ear"]

LAYOUTS: dict[str, tuple[str, ...]] = {
    "coco17": COCO,
    "openpose18": (
        *_OPENPOSE_ARMS,
        *_side("right", _LEG),
        *_side("left", _LEG),
        *_OPENPOSE_FACE,
    ),
    "body25": (
        *_OPENPOSE_ARMS,
        "mid_hip",
        *_side("right", _LEG),
        *_side("left", _LEG),
        *_OPENPOSE_FACE,
        *_side("left", "big_toe small_toe heel"),
        *_side("right", "big_toe small_toe heel"),
    ),
    "kinect25": (
        *("pelvis", "spine", "neck", "head"),
        *_KINECT_LIMBS,
        "spine_shoulder",
        *_side("left", "hand_tip thumb"),
        *_side("right", "hand_tip thumb"),
    ),
    "kinect20": ("pelvis", "spine", "shoulder_center", "head", *_KINECT_LIMBS),
    "mediapipe33": (
        "nose",
        *_side("left", "eye_inner eye eye_outer"),
        *_side("right", "eye_inner eye eye_outer"),
        *_both("*_ear *_mouth *_shoulder *_elbow *_wrist *_pinky *_index *_thumb"),
        *_both("*_hip *_knee *_ankle *_heel *_foot_index"),
    ),
    "smpl24": (
        *("pelvis", "left_hip", "right_hip", "spine1"),
        *("left_knee", "right_knee", "spine2", "left_ankle", "right_ankle", "spine3"),
        *("left_foot", "right_foot", "neck", "left_collar", "right_collar", "head"),
        *_both("*_shoulder *_elbow *_wrist *_hand"),
    ),
    "h36m17": (
        "pelvis",
        *_side("right", _LEG),
        *_side("left", _LEG),
        *("spine", "thorax", "neck", "head"),
        *_side("left", _ARM),
        *_side("right", _ARM),
    ),
    "halpe26": (*COCO, *(f"halpe_{n}" for n in range(17, 26))),
    "halpe136": (*COCO, *(f"halpe_{n}" for n in range(17, 136))),
    "wholebody133": (*COCO, *(f"wholebody_{n}" for n in range(17, 133))),
}

#: Layouts that a number of joints alone stands for, in two dimensions.
_UNAMBIGUOUS = {
    17: "coco17",
    18: "openpose18",
    26: "halpe26",
    33: "mediapipe33",
    133: "wholebody133",
    136: "halpe136",
}


@dataclass(frozen=True)
class Layout:
    """Joints of a pose as the features use them.

    `name` is of the file's `joints` joints, `kept` of those that `take` selects.
    `head`, `centre` and `mirrored` are positions among the selected: pose-dct and
    pose-apen measure from the head, pose-clips from the mean of the `centre` joints.
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
    return _of_names(name, LAYOUTS[name])


def custom_layout(joints: int, root: int) -> Layout:
    """Return a layout of `joints` unnamed joints, all measured from joint `root`."""
    own = tuple(range(joints))
    name = f"{joints} joints, root {root}"
    return Layout(name, name, joints, own, root, (root,), own)


def layout_of_names(names: Sequence[str]) -> Layout | None:
    """Return the layout of joints that a file names, or None if it is not known.

    Names in any spelling that differs in case, separators, or `l` for `left` do.
    """
    plain = [_plain(name) for name in names]
    for name, known in LAYOUTS.items():
        if plain == [_plain(joint) for joint in known]:
            return _of_names(name, known)
    wanted = [_plain(joint) for joint in COCO]
    if set(wanted) <= set(plain) and len(set(plain)) == len(plain):
        take = tuple(plain.index(joint) for joint in wanted)
        coco = named_layout("coco17")
        return replace(coco, name="joints by name", joints=len(names), take=take)
    return None


def layout_of_count(joints: int, axes: int, tool: str) -> Layout | None:
    """Return the layout that a number of joints stands for, or None if ambiguous.

    25 joints are BODY_25 in OpenPose's files and Kinect's in NTU's; elsewhere they are
    ambiguous. In three dimensions 17 may be COCO's or Human3.6M's.
    """
    stated = {"openpose": "body25", "kinect": "kinect25"}
    if joints == 25 and tool in stated:
        return named_layout(stated[tool])
    name = _UNAMBIGUOUS.get(joints) if (joints, axes) != (17, 3) else None
    return named_layout(name) if name else None


def candidates(joints: int) -> list[str]:
    """Return the names of the layouts with this number of joints."""
    return [name for name, names in LAYOUTS.items() if len(names) == joints]


def _of_names(name: str, names: tuple[str, ...]) -> Layout:
    if set(COCO) <= set(names):
        kept, joints = "coco17", COCO
    else:
        kept, joints = name, names
    position = {joint: place for place, joint in enumerate(joints)}
    hips = ["pelvis"] if "pelvis" in position else ["left_hip", "right_hip"]
    swap = {"left": "right", "right": "left"}
    mirrored = (
        re.sub("^(left|right)(?=_)", lambda side: swap[side[0]], joint)
        for joint in joints
    )
    return Layout(
        name,
        kept,
        len(names),
        tuple(names.index(joint) for joint in joints),
        position["nose" if "nose" in position else "head"],
        tuple(position[joint] for joint in hips),
        tuple(position[joint] for joint in mirrored),
    )


def _plain(name: str) -> str:
    """Spell a joint name in one way: `LShoulder`, `l_shoulder`, `left-shoulder`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=^[LR])(?=[A-Z][a-z])", "_", name).lower()
    parts = [part for part in re.split(r"[^a-z0-9]+", words) if part]
    sides = {"l": "left", "r": "right"}
    parts = [sides.get(part, part) for part in parts]
    side = [part for part in parts if part in ("left", "right")]
    return "".join(side + [part for part in parts if part not in ("left", "right")])
