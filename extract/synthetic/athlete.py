"""A jointed athlete: named poses, and joint angles to points in space.

Conventions: metres and radians; body frame x forward, y up along the spine, z to the
athlete's right, origin at the centre of mass; an upright athlete with hanging arms has
all angles 0. A pose is a row of `CHANNELS`, a motion (T, channels) has one per frame.
Points follow `POINTS`, COCO's 17 keypoints first.
"""

import numpy as np
from numpy.typing import NDArray

from aqa.extract.synthetic.performance import Element

Array = NDArray[np.float64]

#: Joint angles: hips, shoulders and elbows flex forward, knees backward; `apart` and
#: `spread` move legs and arms sideways, `spine` and `neck` bend forward; `point` is 0
#: for feet at a right angle to the shin and 1 for stretched feet.
CHANNELS = (
    *("hip_l", "hip_r", "knee_l", "knee_r"),
    *("shoulder_l", "shoulder_r", "elbow_l", "elbow_r"),
    *("apart", "spread", "spine", "neck", "point"),
)
CHANNEL = {name: index for index, name in enumerate(CHANNELS)}

COCO = (
    *("nose", "eye_l", "eye_r", "ear_l", "ear_r"),
    *("shoulder_l", "shoulder_r", "elbow_l", "elbow_r", "wrist_l", "wrist_r"),
    *("hip_l", "hip_r", "knee_l", "knee_r", "ankle_l", "ankle_r"),
)
POINTS = (*COCO, "pelvis", "neck", "head", "hand_l", "hand_r", "toe_l", "toe_r")
POINT = {name: index for index, name in enumerate(POINTS)}
FEET = [POINT[name] for name in ("ankle_l", "ankle_r", "toe_l", "toe_r")]

#: COCO's order with left and right exchanged, for mirrored pictures.
MIRRORED = [
    COCO.index(name[:-1] + {"l": "r", "r": "l"}[name[-1]])
    if name[-2:] in ("_l", "_r")
    else index
    for index, name in enumerate(COCO)
]

TORSO, NECK, HEAD = 0.50, 0.18, 0.11
SHOULDER, HIP = 0.19, 0.10
UPPER_ARM, FOREARM, HAND = 0.29, 0.26, 0.12
THIGH, SHIN, FOOT = 0.43, 0.43, 0.17

#: Share of the body's mass at each point.
MASS = {
    **{"head": 0.08, "neck": 0.22, "pelvis": 0.30},
    **{"knee_l": 0.11, "knee_r": 0.11, "ankle_l": 0.05, "ankle_r": 0.05},
    **{"elbow_l": 0.025, "elbow_r": 0.025, "wrist_l": 0.015, "wrist_r": 0.015},
}


def pose(**angles: float) -> Array:
    """Return a row of `CHANNELS`; `hip=1` sets both hips, and so on."""
    row = np.zeros(len(CHANNELS))
    for name, angle in angles.items():
        sides = [name] if name in CHANNEL else [f"{name}_l", f"{name}_r"]
        row[[CHANNEL[side] for side in sides]] = angle
    return row


def _direction(angle: Array, aside: Array | float = 0.0) -> Array:
    """Return unit vectors `angle` forward of straight down and `aside` to the right."""
    flat = np.cos(aside)
    x, y = np.sin(angle) * flat, -np.cos(angle) * flat
    return np.stack([x, y, np.broadcast_to(np.sin(aside), x.shape)], axis=-1)


def body_points(poses: Array) -> Array:
    """Return points in the body frame: (T, channels) -> (T, points, 3)."""
    angle = {name: poses[:, index] for name, index in CHANNEL.items()}
    points = np.zeros((len(poses), len(POINTS), 3))
    right = np.array([0.0, 0.0, 1.0])
    at: dict[str, Array] = {"pelvis": np.zeros((len(poses), 3))}

    up = np.pi - angle["spine"]
    at["neck"] = TORSO * _direction(up)
    look = up - angle["neck"]
    at["head"] = at["neck"] + NECK * _direction(look)
    face = _direction(look - np.pi / 2)
    at["nose"] = at["head"] + HEAD * face
    for side, sign in (("l", -1.0), ("r", 1.0)):
        at[f"eye_{side}"] = at["nose"] + 0.04 * (sign * right - _direction(look) - face)
        at[f"ear_{side}"] = at["head"] + 0.09 * sign * right
        aside = sign * angle["spread"]
        arm = angle[f"shoulder_{side}"] - angle["spine"]
        lower = arm + angle[f"elbow_{side}"]
        at[f"shoulder_{side}"] = 0.94 * at["neck"] + sign * SHOULDER * right
        upper = UPPER_ARM * _direction(arm, aside)
        at[f"elbow_{side}"] = at[f"shoulder_{side}"] + upper
        at[f"wrist_{side}"] = at[f"elbow_{side}"] + FOREARM * _direction(lower, aside)
        at[f"hand_{side}"] = at[f"wrist_{side}"] + HAND * _direction(lower, aside)
        aside = sign * angle["apart"]
        leg = angle[f"hip_{side}"]
        lower = leg - angle[f"knee_{side}"]
        toe = lower + (1 - angle["point"]) * np.pi / 2
        at[f"hip_{side}"] = np.broadcast_to(sign * HIP * right, (len(poses), 3))
        at[f"knee_{side}"] = at[f"hip_{side}"] + THIGH * _direction(leg, aside)
        at[f"ankle_{side}"] = at[f"knee_{side}"] + SHIN * _direction(lower, aside)
        at[f"toe_{side}"] = at[f"ankle_{side}"] + FOOT * _direction(toe, aside)

    for name, index in POINT.items():
        points[:, index] = at[name]
    heavy = [POINT[name] for name in MASS]
    centre = np.tensordot(points[:, heavy], np.array(list(MASS.values())), (1, 0))
    return points - centre[:, None, :]


def inertia(points: Array) -> Array:
    """Return the moment of inertia about z, unit mass: (T, points, 3) -> (T,)."""
    heavy = [POINT[name] for name in MASS]
    squares = (points[:, heavy, :2] ** 2).sum(axis=2)
    moment: Array = squares @ np.array(list(MASS.values()))
    return moment + 0.02


def turn(points: Array, somersault: Array, twist: Array) -> Array:
    """Rotate about the spine by `twist` (T,), then head forward by `somersault` (T,).

    The result is centred, with x right, y up and z towards the viewer; with both
    angles 0 the athlete faces right.
    """
    c, s = np.cos(twist)[:, None], np.sin(twist)[:, None]
    x = points[..., 0] * c + points[..., 2] * s
    z = points[..., 2] * c - points[..., 0] * s
    c, s = np.cos(somersault)[:, None], np.sin(somersault)[:, None]
    y = points[..., 1]
    return np.stack([x * c + y * s, y * c - x * s, z], axis=-1)


STAND = pose(shoulder=0.15)
REACH = pose(shoulder=3.05)
STRETCHED = pose(shoulder=3.05, point=1)
CROUCH = pose(hip=1.3, knee=1.6, spine=0.4, shoulder=-0.6)
ABSORB = pose(hip=0.9, knee=1.0, spine=0.3, shoulder=1.3, elbow=0.2)
FALLEN = pose(hip=1.5, knee=1.7, spine=0.5, shoulder=0.9, neck=0.2)
RUN = pose(spine=0.2, elbow=1.5, point=0.4)
GLIDE = pose(hip=1.0, knee=1.1, spine=0.5, shoulder=0.6, elbow=0.4)
POP = pose(hip=0.2, knee=0.2, shoulder=1.0, spread=0.4)
RIDE = pose(hip=0.6, knee=0.7, spine=0.3, shoulder=0.5, spread=0.7)
#: Added to every pose of a snowboarder.
STANCE = pose(apart=0.38)
#: Added on the trampoline bed, and for the fault `bent_knees` of amount 1.
GIVE = pose(hip=0.3, knee=0.4)
BENT = pose(hip=0.35, knee=1.7)

SHAPES = {
    "tuck": pose(hip=2.25, knee=2.35, spine=0.7, neck=0.4, shoulder=1.0, elbow=0.3),
    "pike": pose(hip=2.2, spine=0.6, neck=0.2, shoulder=1.9, point=1),
    "layout": pose(shoulder=0.5, elbow=2.0, spread=0.1, point=1),
    "grab": pose(hip=1.7, knee=1.7, spine=0.6, shoulder=0.9, apart=0.15),
}
#: What a loose tuck, pike or grab opens to, and a loose layout closes to.
_OPENED = pose(hip=0.5, knee=0.6, shoulder=2.2, spread=0.7, spine=0.1)
_SAGGED = pose(hip=0.7, spine=0.2)


def shape_of(element: Element, loose: float) -> Array:
    """Return the pose of an element in flight; `loose` from 0 to 1."""
    shape = SHAPES[element.position]
    if element.position == "layout":
        return shape + loose * _SAGGED
    return shape + 0.75 * loose * (_OPENED - shape)
