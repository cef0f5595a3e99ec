"""Choreography: from a performance to the points of each athlete over time.

Conventions: metres, radians, one row per frame at `RATE`; x in the direction of travel,
y up. y = 0 is the water, the floor, the bed or the kicker's lip; x = 0 the edge of the
board, the middle of the vault or the lip. Somersault and twist accumulate, one turn is
2 pi. In flight the centre of mass follows a parabola, and angular momentum is constant,
so that a tighter body turns faster.
"""

from collections.abc import Callable, Sequence

import numpy as np

from aqa.extract.synthetic.athlete import (
    ABSORB,
    BENT,
    CHANNEL,
    CROUCH,
    FALLEN,
    FEET,
    GIVE,
    GLIDE,
    POP,
    REACH,
    RIDE,
    RUN,
    SHAPES,
    STANCE,
    STAND,
    STRETCHED,
    Array,
    body_points,
    inertia,
    shape_of,
    turn,
)
from aqa.extract.synthetic.performance import RATE, Element, Performance

GRAVITY = 9.81
TAU = 2 * np.pi

Key = tuple[float, Array]


def smooth(x: Array) -> Array:
    """Ease from 0 to 1 as x goes from 0 to 1 (smoothstep)."""
    x = np.clip(x, 0.0, 1.0)
    result: Array = x * x * (3 - 2 * x)
    return result


def keyed(frames: int, keys: Sequence[Key]) -> Array:
    """Interpolate between keys, (frame, row) in order: -> (frames, row)."""
    times = np.array([time for time, _ in keys])
    rows = np.array([row for _, row in keys])
    now = np.arange(frames, dtype=float)
    after = np.clip(np.searchsorted(times, now, "right"), 1, len(times) - 1)
    gap = np.maximum(times[after] - times[after - 1], 1e-9)
    share = smooth((now - times[after - 1]) / gap)[:, None]
    result: Array = rows[after - 1] + share * (rows[after] - rows[after - 1])
    return result


def bump(frames: int, start: float, end: float) -> Array:
    """Return 1 inside [start, end) and 0 outside, eased over three frames."""
    now = np.arange(frames) + 0.5
    return smooth((now - start) / 3) * smooth((end - now) / 3)


def flight_poses(
    frames: int, element: Element, loose: float, first: Array, last: Array
) -> Array:
    """Return the poses of one flight: from `first` to the element's shape to `last`.

    More somersaults open later; twists in a tuck or pike are done stretched, before
    the shape is taken.
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
    """Return the somersault angle during a flight that turns by `total`."""
    turned = np.cumsum(1.0 / inertia(body_points(poses)))
    angle: Array = total * turned / turned[-1]
    return angle


def twist_angle(frames: int, element: Element) -> Array:
    """Return the twist angle during a flight; in big air it lasts until the landing."""
    share = np.arange(1, frames + 1) / frames
    if element.position != "grab":
        end = 0.5 if element.position in ("tuck", "pike") else 0.8
        share = smooth((share - 0.08) / (end - 0.08))
    angle: Array = TAU * element.twists * share
    return angle


def free_fall(y: Array) -> Array:
    """Fill runs of NaN with the free-fall parabola between their neighbours."""
    y = y.copy()
    known = np.flatnonzero(~np.isnan(y))
    for before, after in zip(known[:-1], known[1:], strict=True):
        share = np.arange(1, after - before) / (after - before)
        rise = 0.5 * GRAVITY * ((after - before) / RATE) ** 2
        chord = y[before] + share * (y[after] - y[before])
        y[before + 1 : after] = chord + rise * share * (1 - share)
    return y


_SIDES = (("l", 1.0), ("r", -1.0))


class Routine:
    """One athlete's poses, angles and positions, filled in by the sport's function.

    `ground` (T,) is the height under the feet or NaN; else `height` (T,) is that of the
    centre of mass or NaN; where both are NaN the athlete is in free fall.
    """

    def __init__(self, performance: Performance, athlete: int) -> None:
        """Start upright at x = 0."""
        self.performance, self.athlete = performance, athlete
        self.frames = performance.frames
        self.poses = np.repeat(STAND[None], self.frames, axis=0)
        self.somersault, self.twist, self.x = np.zeros((3, self.frames))
        self.ground, self.height = np.full((2, self.frames), np.nan)

    def amount(self, kind: str, index: int = 0) -> float:
        """Return the amount of this athlete's fault in a flight."""
        return self.performance.amount(kind, self.athlete, index)

    def pose(self, start: int, end: int, keys: list[Key]) -> None:
        """Set the poses in [start, end) from keys in frames of the video."""
        self.poses[start:end] = keyed(end, keys)[start:]

    def travel(self, frames: list[float], places: list[float]) -> None:
        """Move along x, at constant speed between the given frames."""
        self.x = np.interp(np.arange(self.frames), frames, places)

    def stride(self, start: int, end: int, pace: float, swing: float) -> None:
        """Walk or run with a stride of `pace` frames."""
        phase = TAU * np.arange(end - start) / pace
        for side, sign in _SIDES:
            wave, lift = sign * np.sin(phase), np.maximum(sign * np.cos(phase), 0.0)
            for name, value in (
                ("hip", swing * (wave + 0.3)),
                ("knee", 1.5 * swing * (lift + 0.15)),
                ("shoulder", -swing * wave),
            ):
                self.poses[start:end, CHANNEL[f"{name}_{side}"]] = value

    def fly(
        self,
        turned: float,
        first: Array,
        last: Array,
        index: int = 0,
        stance: Array | float = 0.0,
    ) -> None:
        """Set one flight, and hold its final angles to the end of the video.

        The body turns by `turned` plus the planted tilt; `stance` is added to every
        pose.
        """
        element = self.performance.elements[index]
        start = self.performance.take_off(index)
        end = self.performance.touch_down(index)
        loose, tilt = self.amount("loose", index), self.amount("tilt", index)
        poses = flight_poses(end - start, element, loose, first, last) + stance
        angle = somersault_angle(poses, turned + 0.75 * np.copysign(tilt, turned))
        self.poses[start:end] = poses
        self.somersault[start:end] = self.somersault[start - 1] + angle
        self.somersault[end:] = self.somersault[end - 1]
        self.twist[start:end] = self.twist[start - 1] + twist_angle(
            end - start, element
        )
        self.twist[end:] = self.twist[end - 1]

    def land(self, rest: Array, index: int = 0) -> None:
        """Set a landing: still at fault 0, then staggering, from 0.7 on a fall."""
        amount = self.amount("landing", index)
        end = self.performance.touch_down(index)
        now = np.arange(self.frames - end)
        fall = float(smooth(np.array((amount - 0.6) / 0.15)))
        deep = ABSORB * (0.5 + 1.1 * amount)
        final = (1 - fall) * rest + fall * FALLEN
        slow = 6.0 * amount
        keys = [(0.0, (self.poses[end - 1] + deep) / 2), (4.0, deep)]
        keys += [(9.0 + slow, (final + deep) / 2), (14.0 + slow, final)]
        self.poses[end:] = keyed(len(now), keys)

        stagger = amount * (1 - fall) * np.exp(-now / 9.0)
        swing = 1.3 * stagger * np.sin(TAU * now / 10.0)
        for side, sign in _SIDES:
            self.poses[end:, CHANNEL[f"hip_{side}"]] += sign * swing
            self.poses[end:, CHANNEL[f"shoulder_{side}"]] += 1.4 * np.abs(swing)
        upright = TAU * np.round(self.somersault[end - 1] / TAU)
        off = self.somersault[end - 1] - upright
        lean = off * np.exp(-now / 4.0) + 0.7 * stagger * np.sin(TAU * now / 14.0)
        lean += fall * np.copysign(1.35, off + 1e-6) * smooth(now / 12.0)
        self.somersault[end:] = upright + lean
        self.x[end:] += 0.9 * amount * smooth(now / 12.0)

    def points(self) -> Array:
        """Return the points in the world, (T, points, 3)."""
        body = turn(body_points(self._bent()), self.somersault, self.twist)
        standing = self.ground - body[:, FEET, 1].min(axis=1)
        y = free_fall(np.where(np.isnan(self.ground), self.height, standing))
        body[..., 0] += self.x[:, None]
        body[..., 1] += y[:, None]
        return body

    def _bent(self) -> Array:
        """Return the poses with the knees bent by the planted faults."""
        poses = self.poses.copy()
        for fault in self.performance.faults:
            if fault.kind == "bent_knees" and fault.athlete == self.athlete:
                extra = fault.amount * bump(len(poses), fault.start, fault.end)
                bend = poses[:, [CHANNEL["knee_l"], CHANNEL["knee_r"]]].mean(axis=1)
                room = np.clip(1.0 - bend / BENT.max(), 0.0, 1.0)
                poses += (extra * room)[:, None] * BENT
        return poses


PLATFORM, BOARD, TABLE, MAT = 10.0, 3.0, 1.3, 0.15
#: Landing positions of vault and big air along x.
MAT_X, LANDING_X = 2.8, 12.0


def choreograph(performance: Performance) -> list[Array]:
    """Return the points of each athlete, each (T, points, 3) in metres."""
    athletes = []
    for athlete in range(performance.athletes):
        routine = Routine(performance, athlete)
        _SPORTS[performance.action](routine)
        late = performance.lag if athlete else 0.0
        athletes.append(_delayed(routine.points(), late))
    return athletes


def _delayed(points: Array, lag: float) -> Array:
    """Delay points by `lag` frames, interpolating fractions."""
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
    """Turn, facing forwards or backwards, enter head first, sink."""
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
    """Return the height of the big air course (in-run, kicker, slope, flat) at x."""
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
    """Rise from the bed, alternate flights and contacts, stand."""
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
