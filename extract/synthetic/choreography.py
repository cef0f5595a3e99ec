"""How each sport's performance moves: approach, flight, and what comes after.

Conventions: as in `routine`; x runs in the direction of travel, y = 0 is the water,
the floor, the bed or the kicker's lip, x = 0 the edge of the board, the vault's
middle or the lip. A performance becomes points (T, points, 3) per athlete.
"""

from collections.abc import Callable

import numpy as np

from aqa.extract.synthetic.athlete import Array
from aqa.extract.synthetic.motion import TAU
from aqa.extract.synthetic.performance import Performance
from aqa.extract.synthetic.routine import Routine
from aqa.extract.synthetic.shapes import (
    CROUCH,
    GIVE,
    GLIDE,
    POP,
    REACH,
    RIDE,
    RUN,
    STANCE,
    STAND,
    STRETCHED,
)

PLATFORM, BOARD, TABLE, MAT = 10.0, 3.0, 1.3, 0.15
#: Where a vaulter and a rider land, along x.
MAT_X, LANDING_X = 2.8, 12.0


def choreograph(performance: Performance) -> list[Array]:
    """Points of every athlete: each (T, points, 3), metres."""
    athletes = []
    for athlete in range(performance.athletes):
        routine = Routine(performance, athlete)
        _SPORTS[performance.action](routine)
        late = performance.lag if athlete else 0.0
        athletes.append(_delayed(routine.points(), late))
    return athletes


def _delayed(points: Array, lag: float) -> Array:
    """Start `lag` frames late, fractions of a frame included."""
    when = np.maximum(np.arange(len(points)) - lag, 0.0)
    before = np.floor(when).astype(int)
    after = np.minimum(before + 1, len(points) - 1)
    share = (when - before)[:, None, None]
    delayed: Array = points[before] * (1 - share) + points[after] * share
    return delayed


def _platform(routine: Routine) -> None:
    """Stand at the edge, reach, crouch, jump."""
    start, end = routine.performance.take_off(), routine.performance.touch_down()
    routine.ground[:start] = PLATFORM
    routine.travel([0, start, end], [-0.15, 0.0, 1.5])
    keys = [(0.0, STAND), (start - 22.0, STAND), (start - 14.0, REACH)]
    keys += [(start - 5.0, CROUCH), (start - 1.0, STRETCHED)]
    routine.pose(0, start, keys)
    _dive(routine)


def _springboard(routine: Routine) -> None:
    """Walk along the board, hop on to its end, jump."""
    start, end = routine.performance.take_off(), routine.performance.touch_down()
    walk, hop, tip = start - 52, start - 16, start - 8
    routine.ground[:start] = BOARD
    routine.ground[hop:tip] = np.nan
    routine.travel([walk, hop, tip, start, end], [-3.2, -0.8, -0.1, 0.0, 1.5])
    routine.stride(walk, hop, pace=16, swing=0.45)
    keys = [(hop + 1.0, STAND), (hop + 5.0, REACH), (start - 5.0, CROUCH)]
    routine.pose(hop, start, [*keys, (start - 1.0, STRETCHED)])
    _dive(routine)


def _dive(routine: Routine) -> None:
    """Turn, forwards or with the back to the water, enter head first, sink."""
    element, end = routine.performance.elements[0], routine.performance.touch_down()
    routine.twist += np.pi * element.backward
    routine.fly(TAU * element.somersaults, STRETCHED, STRETCHED)
    routine.poses[end:] = STRETCHED
    routine.height[end:] = 1.05 - 0.2 * np.arange(routine.frames - end)


def _vault(routine: Routine) -> None:
    """Run, spring from the board, push off the table, turn, land."""
    start, end = routine.performance.take_off(), routine.performance.touch_down()
    leap, board, table = start - 13, start - 9, start - 3
    routine.poses[:leap] = RUN
    routine.stride(0, leap, pace=9, swing=0.95)
    keys = [(leap, routine.poses[leap - 1]), (board, CROUCH), (board + 2.0, REACH)]
    routine.pose(leap, start, [*keys, (start, STRETCHED)])
    routine.ground[:leap], routine.ground[board : board + 2] = 0.0, 0.2
    routine.height[table:start] = TABLE + 1.0
    stops: list[float] = [0, leap, board, table, start, end]
    routine.travel(stops, [-3.0 - 0.24 * leap, -3.0, -1.7, -0.5, 0.1, MAT_X])
    upside_down = 3.2
    angles = [0.15, 0.1, -0.1, 2.3, upside_down]
    routine.somersault[:start] = np.interp(np.arange(start), stops[:5], angles)
    turns = routine.performance.elements[0].somersaults + 0.5
    routine.fly(TAU * turns - upside_down, STRETCHED, REACH)
    routine.ground[end:] = MAT
    routine.land(REACH)


def snow(x: Array) -> Array:
    """Height of the big air course: in-run, kicker, knuckle, landing slope, flat."""
    stops = [-16.0, -4.5, -2.8, -1.4, 0.0, 0.01, 8.0, 16.0, 24.0, 60.0]
    heights = [3.2, -1.2, -1.3, -0.9, 0.0, -1.8, -2.0, -5.4, -7.0, -7.0]
    result: Array = np.interp(x, stops, heights)
    return result


def _big_air(routine: Routine) -> None:
    """Glide down, take off from the kicker, spin and flip, land, ride out."""
    start, end = routine.performance.take_off(), routine.performance.touch_down()
    sideways = routine.performance.action == "snowboard_big_air"
    stance = STANCE * sideways
    routine.twist -= np.pi / 2 * sideways
    stops: list[float] = [0, start, end, end + 15, routine.frames]
    lands = LANDING_X
    routine.travel(stops, [-0.24 * start, 0.0, lands, lands + 3.4, lands + 6.0])
    routine.ground[:] = snow(routine.x)
    routine.ground[start:end] = np.nan
    slope = np.arctan2(snow(routine.x + 0.5) - snow(routine.x - 0.5), 1.0)
    routine.somersault[:start] = -0.6 * slope[:start]
    routine.somersault[start - 4 : start] = routine.somersault[start - 5]
    routine.pose(0, start, [(0.0, GLIDE), (start - 8.0, GLIDE), (start - 1.0, POP)])
    routine.poses[:start] += stance
    turned = TAU * routine.performance.elements[0].somersaults
    turned -= routine.somersault[start - 1]
    routine.fly(turned, POP, RIDE, stance=stance)
    routine.land(RIDE + stance)
    routine.somersault[end:] += 0.35  # upright on the slope


def _trampoline(routine: Routine) -> None:
    """Rise from the bed, flights and touches of the bed in turn, stand."""
    performance = routine.performance
    ready, last = performance.take_off(), len(performance.elements) - 1
    routine.ground[:ready] = 0.0
    keys = [(0.0, STAND), (ready - 16.0, STAND), (ready - 7.0, CROUCH)]
    routine.pose(0, ready, [*keys, (ready - 1.0, STRETCHED)])
    for index, element in enumerate(performance.elements):
        start, end = performance.take_off(index), performance.touch_down(index)
        ahead = np.cos(routine.twist[start - 1]) > 0
        turned = TAU * element.somersaults * (1 if ahead != element.backward else -1)
        routine.fly(turned, STRETCHED, REACH, index)
        routine.somersault[end:] = TAU * np.round(routine.somersault[end - 1] / TAU)
        if index < last:
            touch = performance.take_off(index + 1) - end
            push = np.sin(np.pi * (np.arange(touch) + 0.5) / touch)[:, None]
            routine.ground[end : end + touch] = -0.45 * push[:, 0]
            routine.poses[end : end + touch] = REACH + push * GIVE
    end = performance.touch_down(last)
    routine.ground[end:] = -0.3 * np.exp(-np.arange(routine.frames - end) / 5.0)
    routine.land(STAND, last)


_SPORTS: dict[str, Callable[[Routine], None]] = {
    "diving": _platform,
    "gym_vault": _vault,
    "ski_big_air": _big_air,
    "snowboard_big_air": _big_air,
    "sync_diving_3m": _springboard,
    "sync_diving_10m": _platform,
    "trampoline": _trampoline,
}
