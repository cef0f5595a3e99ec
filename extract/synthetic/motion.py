"""Movement through time: keyed curves, turning and falling.

Conventions: one row a frame, 25 frames a second; metres, radians. In flight the
centre of mass follows a parabola, and the body turns the faster the tighter it is:
its angular momentum is constant.
"""

from collections.abc import Sequence

import numpy as np

from aqa.extract.synthetic.athlete import Array, body_points, inertia
from aqa.extract.synthetic.performance import Element
from aqa.extract.synthetic.shapes import SHAPES, shape_of

RATE = 25
GRAVITY = 9.81
TAU = 2 * np.pi

Key = tuple[float, Array]


def smooth(x: Array) -> Array:
    """Ease from 0 to 1 as x goes from 0 to 1."""
    x = np.clip(x, 0.0, 1.0)
    result: Array = x * x * (3 - 2 * x)
    return result


def keyed(frames: int, keys: Sequence[Key]) -> Array:
    """Ease from key to key: (frame, row) pairs in order -> (frames, row)."""
    times = np.array([time for time, _ in keys])
    rows = np.array([row for _, row in keys])
    now = np.arange(frames, dtype=float)
    after = np.clip(np.searchsorted(times, now, "right"), 1, len(times) - 1)
    gap = np.maximum(times[after] - times[after - 1], 1e-9)
    share = smooth((now - times[after - 1]) / gap)[:, None]
    result: Array = rows[after - 1] + share * (rows[after] - rows[after - 1])
    return result


def bump(frames: int, start: float, end: float) -> Array:
    """1 inside [start, end), 0 outside, eased over three frames at each end."""
    now = np.arange(frames) + 0.5
    return smooth((now - start) / 3) * smooth((end - now) / 3)


def flight_poses(
    frames: int, element: Element, loose: float, first: Array, last: Array
) -> Array:
    """Poses of one flight: leave in `first`, turn in the shape, arrive in `last`.

    The more somersaults, the later the body opens; a twist in a tuck or pike is
    done stretched, before the shape is taken.
    """
    shape = shape_of(element, loose)
    opening = 0.78 if element.somersaults > 3 else 0.62 if element.somersaults else 0.7
    if element.twists and element.position in ("tuck", "pike"):
        wrapped = SHAPES["layout"]
        keys = [(0.0, first), (0.12, wrapped), (0.42, wrapped), (0.55, shape)]
        keys += [(opening, shape), (opening + 0.12, last)]
    else:
        keys = [(0.0, first), (0.16, shape), (opening - 0.1, shape)]
        keys += [(opening + 0.06, last)]
    keys.append((1.0, last))
    return keyed(frames, [(share * frames, row) for share, row in keys])


def somersault_angle(poses: Array, total: float) -> Array:
    """Angle during a flight in which the body turns by `total`."""
    turned = np.cumsum(1.0 / inertia(body_points(poses)))
    angle: Array = total * turned / turned[-1]
    return angle


def twist_angle(frames: int, element: Element) -> Array:
    """Angle of twist during a flight: in big air from lip to landing."""
    share = np.arange(1, frames + 1) / frames
    if element.position != "grab":
        end = 0.5 if element.position in ("tuck", "pike") else 0.8
        share = smooth((share - 0.08) / (end - 0.08))
    angle: Array = TAU * element.twists * share
    return angle


def free_fall(y: Array) -> Array:
    """Fill runs of NaN by the parabola that joins their neighbours."""
    y = y.copy()
    known = np.flatnonzero(~np.isnan(y))
    for before, after in zip(known[:-1], known[1:], strict=True):
        share = np.arange(1, after - before) / (after - before)
        rise = 0.5 * GRAVITY * ((after - before) / RATE) ** 2
        chord = y[before] + share * (y[after] - y[before])
        y[before + 1 : after] = chord + rise * share * (1 - share)
    return y
