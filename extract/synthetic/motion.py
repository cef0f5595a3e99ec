"""Movement through time: keyed curves, flights, and where the body is.

Conventions: one row a frame, 25 frames a second; metres, radians; somersault and
twist angles accumulate, one turn is 2 pi. Between two touches of the ground the
centre of mass follows a parabola, and in flight the body turns the faster the
tighter it is: its angular momentum is constant.
"""

from collections.abc import Sequence

import numpy as np

from aqa.extract.synthetic.athlete import (
    CHANNEL,
    FEET,
    Array,
    body_points,
    inertia,
    pose,
    turn,
)
from aqa.extract.synthetic.performance import Element, Fault

RATE = 25
GRAVITY = 9.81

STAND = pose(shoulder=0.15)
REACH = pose(shoulder=3.05)
STRETCHED = pose(shoulder=3.05, point=1)
CROUCH = pose(hip=1.3, knee=1.6, spine=0.4, shoulder=-0.6)
ABSORB = pose(hip=0.9, knee=1.0, spine=0.3, shoulder=1.3, elbow=0.2)
FALLEN = pose(hip=1.5, knee=1.7, spine=0.5, shoulder=0.9, neck=0.2)

SHAPES = {
    "tuck": pose(hip=2.25, knee=2.35, spine=0.7, neck=0.4, shoulder=1.0, elbow=0.3),
    "pike": pose(hip=2.2, spine=0.6, neck=0.2, shoulder=1.9, point=1),
    "layout": pose(shoulder=0.5, elbow=2.0, spread=0.1, point=1),
    "grab": pose(hip=1.7, knee=1.7, spine=0.6, shoulder=0.9, apart=0.15),
}
#: What a shape opens to when it is not held, by how much for a fault of 1.
_LOOSENED = pose(hip=0.5, knee=0.6, shoulder=2.2, spread=0.7, spine=0.1)
_BENT = pose(knee=1.7, hip=0.35)


def smooth(x: Array) -> Array:
    """Ease from 0 to 1 as x goes from 0 to 1."""
    x = np.clip(x, 0.0, 1.0)
    result: Array = x * x * (3 - 2 * x)
    return result


def keyed(frames: int, keys: Sequence[tuple[float, Array | float]]) -> Array:
    """Ease from key to key: (frame, row) pairs in order -> (frames, row)."""
    times = np.array([time for time, _ in keys], float)
    rows = np.array([row for _, row in keys], float)
    now = np.arange(frames, dtype=float)
    after = np.clip(np.searchsorted(times, now, "right"), 1, len(times) - 1)
    gap = np.maximum(times[after] - times[after - 1], 1e-9)
    share = smooth((now - times[after - 1]) / gap)
    share = share.reshape(-1, *[1] * (rows.ndim - 1))
    result: Array = rows[after - 1] + share * (rows[after] - rows[after - 1])
    return result


def bump(frames: int, start: float, end: float) -> Array:
    """1 inside [start, end), 0 outside, eased over two frames within."""
    now = np.arange(frames) + 0.5
    return smooth((now - start) / 3) * smooth((end - now) / 3)


def shape_of(element: Element, loose: float = 0.0) -> Array:
    """The pose that an element is turned in."""
    shape = SHAPES[element.position]
    if element.position == "layout":
        return shape + loose * pose(hip=0.7, spine=0.2)
    return shape + 0.75 * loose * (_LOOSENED - shape)


def flight_poses(
    frames: int, element: Element, loose: float, first: Array, last: Array
) -> Array:
    """Poses of one flight: leave in `first`, turn in the shape, arrive in `last`."""
    shape = shape_of(element, loose)
    opening = 0.78 if element.somersaults > 3 else 0.62 if element.somersaults else 0.7
    keys = [(0.0, first), (0.16, shape), (opening - 0.1, shape), (opening + 0.06, last)]
    if element.twists and element.position in ("tuck", "pike"):
        wrapped = SHAPES["layout"] + loose * pose(hip=0.6)
        keys = [(0.0, first), (0.12, wrapped), (0.42, wrapped), (0.55, shape)]
        keys += [(opening, shape), (opening + 0.12, last)]
    return keyed(
        frames, [(share * frames, row) for share, row in keys] + [(frames, last)]
    )


def somersault_angle(poses: Array, total: float) -> Array:
    """Angle during a flight that turns by `total`: constant angular momentum."""
    speed = 1.0 / inertia(body_points(poses))
    turned = np.cumsum(speed)
    angle: Array = total * turned / turned[-1]
    return angle


def twist_angle(frames: int, element: Element) -> Array:
    """Angle of twist during a flight."""
    early, late = (0.08, 0.5) if element.position in ("tuck", "pike") else (0.08, 0.8)
    if element.position == "grab":
        early, late = 0.0, 1.0
        share = (np.arange(frames) + 1.0) / frames
        return 2 * np.pi * element.twists * share
    share = smooth((np.arange(frames) / frames - early) / (late - early))
    return 2 * np.pi * element.twists * share


def bend_knees(poses: Array, faults: Sequence[Fault]) -> Array:
    """Bend the legs where a fault says so, as far as they are not bent anyway."""
    poses = poses.copy()
    for fault in faults:
        if fault.kind == "bent_knees":
            extra = fault.amount * bump(len(poses), fault.start, fault.end)
            for side in ("l", "r"):
                knee, hip = CHANNEL[f"knee_{side}"], CHANNEL[f"hip_{side}"]
                room = np.clip(1.0 - poses[:, knee] / 1.7, 0.0, 1.0)
                poses[:, knee] += extra * room * _BENT[knee]
                poses[:, hip] += extra * room * _BENT[hip]
    return poses


class Track:
    """One athlete's movement under construction: a row a frame, to be filled in.

    Per frame, `ground` is the height under the feet, or NaN; else `height` is that
    of the centre of mass, or NaN: then it is in free fall between its neighbours.
    """

    def __init__(self, frames: int) -> None:
        """Stand upright at x = 0, in free fall wherever nothing is filled in."""
        self.frames = frames
        self.poses = np.repeat(STAND[None], frames, axis=0)
        self.somersault, self.twist, self.x = np.zeros((3, frames))
        self.ground, self.height = np.full((2, frames), np.nan)

    def points(self) -> Array:
        """The moving body in the world: (T, points, 3)."""
        body = turn(body_points(self.poses), self.somersault, self.twist)
        standing = self.ground - body[:, FEET, 1].min(axis=1)
        y = free_fall(np.where(np.isnan(self.ground), self.height, standing))
        body[..., 0] += self.x[:, None]
        body[..., 1] += y[:, None]
        return body


def free_fall(y: Array) -> Array:
    """Fill runs of NaN by the parabola that joins their neighbours."""
    y = y.copy()
    known = np.flatnonzero(~np.isnan(y))
    for before, after in zip(known[:-1], known[1:], strict=True):
        if after - before > 1:
            share = np.arange(1, after - before) / (after - before)
            seconds = (after - before) / RATE
            y[before + 1 : after] = (
                y[before]
                + share * (y[after] - y[before])
                + 0.5 * GRAVITY * seconds**2 * share * (1 - share)
            )
    return y
