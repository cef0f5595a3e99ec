"""How each sport's performance moves: approach, flight, and what comes after.

Conventions: as in `motion`; x runs in the direction of travel, y = 0 is the water,
the floor, the bed or the kicker's lip, x = 0 the edge of the board, the vault's
middle or the lip. A performance becomes points (T, points, 3) per athlete.
"""

from collections.abc import Callable

import numpy as np

from aqa.extract.synthetic import motion as m
from aqa.extract.synthetic.athlete import CHANNEL, Array, pose
from aqa.extract.synthetic.performance import Fault, Performance

TAU = 2 * np.pi
PLATFORM, BOARD, TABLE, MAT = 10.0, 3.0, 1.3, 0.15
#: Where a vaulter and a rider land, along x.
MAT_X, LANDING_X = 2.8, 12.0

_RUN = pose(spine=0.2, elbow=1.5, point=0.4)
_GLIDE = pose(hip=1.0, knee=1.1, spine=0.5, shoulder=0.6, elbow=0.4)
_POP = pose(hip=0.2, knee=0.2, shoulder=1.0, spread=0.4)
_RIDE = pose(hip=0.6, knee=0.7, spine=0.3, shoulder=0.5, spread=0.7)
_STANCE = pose(apart=0.38)


def choreograph(performance: Performance) -> list[Array]:
    """Points of every athlete: each (T, points, 3), metres."""
    return [
        _late(_ROUTINES[performance.action](performance, athlete), performance, athlete)
        for athlete in range(performance.athletes)
    ]


def _late(points: Array, performance: Performance, athlete: int) -> Array:
    """Delay the second athlete, fractions of a frame included."""
    if athlete == 0 or not performance.lag:
        return points
    when = np.maximum(np.arange(len(points)) - performance.lag, 0.0)
    low = np.floor(when).astype(int)
    share = (when - low)[:, None, None]
    high = np.minimum(low + 1, len(points) - 1)
    delayed: Array = points[low] * (1 - share) + points[high] * share
    return delayed


def _own_faults(performance: Performance, athlete: int) -> list[Fault]:
    return [fault for fault in performance.faults if fault.athlete == athlete]


def fly(
    track: m.Track,
    performance: Performance,
    athlete: int,
    index: int,
    *,
    turned: float,
    first: Array,
    last: Array,
    extra: Array | float = 0.0,
) -> None:
    """Fill one flight of a track, and carry its angles on to the end.

    The body turns by `turned` and what the planted tilt adds; `extra` is added to
    every pose of the flight (a snowboarder's stance).
    """
    element = performance.elements[index]
    start, end = performance.take_off(index), performance.touch_down(index)
    loose = performance.amount("loose", athlete, index)
    poses = m.flight_poses(end - start, element, loose, first, last) + extra
    tilt = 0.75 * np.copysign(performance.amount("tilt", athlete, index), turned)
    track.poses[start:end] = poses
    angle = m.somersault_angle(poses, turned + tilt)
    track.somersault[start:end] = track.somersault[start - 1] + angle
    track.somersault[end:] = track.somersault[end - 1]
    track.twist[start:end] = track.twist[start - 1] + m.twist_angle(
        end - start, element
    )
    track.twist[end:] = track.twist[end - 1]


def _dive(performance: Performance, athlete: int) -> Array:
    """Stand, jump off, turn, enter head first, sink."""
    track = m.Track(performance.frames)
    element, now = performance.elements[0], np.arange(performance.frames)
    start, end = performance.take_off(), performance.touch_down()
    track.twist += np.pi * element.backward
    track.ground[:start] = PLATFORM
    track.x[:] = np.interp(now, [0, start, end], [-0.15, 0.0, 1.5])
    keys = [(0.0, m.STAND), (start - 22.0, m.STAND), (start - 14.0, m.REACH)]
    if performance.action == "sync_diving_3m":
        _hurdle(track, start)
        keys = [(0.0, m.STAND), (start - 15.0, m.STAND), (start - 11.0, m.REACH)]
    keys += [(start - 5.0, m.CROUCH), (start - 1.0, m.STRETCHED)]
    walking = track.poses[:start].copy()
    track.poses[:start] = m.keyed(start, keys)
    if performance.action == "sync_diving_3m":
        track.poses[: start - 16] = walking[: start - 16]
    fly(
        track,
        performance,
        athlete,
        0,
        turned=TAU * element.somersaults,
        first=m.STRETCHED,
        last=m.STRETCHED,
    )
    track.poses[end:] = m.STRETCHED
    track.height[end:] = 1.05 - 0.2 * np.arange(performance.frames - end)
    track.poses = m.bend_knees(track.poses, _own_faults(performance, athlete))
    return track.points()


def _hurdle(track: m.Track, start: int) -> None:
    """Walk along the springboard and hop on to its end."""
    walk, hop, tip = start - 52, start - 16, start - 8
    track.ground[:start] = BOARD
    track.ground[hop:tip] = np.nan
    track.x[:start] = np.interp(
        np.arange(start), [0, walk, hop, tip, start], [-3.2, -3.2, -0.8, -0.1, 0.0]
    )
    _step(track, walk, hop, pace=16, swing=0.45)


def _step(track: m.Track, start: int, end: int, pace: float, swing: float) -> None:
    """Step with alternate legs and arms, one stride in `pace` frames."""
    phase = TAU * np.arange(end - start) / pace
    for side, sign in (("l", 1.0), ("r", -1.0)):
        wave = sign * np.sin(phase)
        lift = np.maximum(sign * np.cos(phase), 0.0)
        for name, value in (
            ("hip", swing * (wave + 0.3)),
            ("knee", 1.5 * swing * (lift + 0.15)),
            ("shoulder", -swing * wave),
        ):
            track.poses[start:end, CHANNEL[f"{name}_{side}"]] = value


def _vault(performance: Performance, athlete: int) -> Array:
    """Run, spring from the board, push off the table, turn, land."""
    track = m.Track(performance.frames)
    element = performance.elements[0]
    start, end = performance.take_off(), performance.touch_down()
    board, table = start - 9, start - 3
    track.poses[: board - 4] = _RUN
    _step(track, 0, board - 4, pace=9, swing=0.95)
    keys = [(board - 4.0, track.poses[board - 5]), (board, m.CROUCH)]
    keys += [(board + 2.0, m.REACH), (start, m.STRETCHED)]
    track.poses[board - 4 : start] = m.keyed(start, keys)[board - 4 :]
    track.ground[: board - 4] = 0.0
    track.ground[board : board + 2] = 0.2
    track.height[table:start] = TABLE + 1.0
    stops = [0, board - 4, board, table, start, end]
    places = [-3.0 - 0.24 * (board - 4), -3.0, -1.7, -0.5, 0.1, MAT_X]
    track.x[:] = np.interp(np.arange(track.frames), stops, places)
    angles = [0.15, 0.1, -0.1, 2.3, 3.2]
    track.somersault[:start] = np.interp(np.arange(start), stops[:5], angles)
    fly(
        track,
        performance,
        athlete,
        0,
        turned=TAU * (element.somersaults + 0.5) - 3.2,
        first=m.STRETCHED,
        last=m.REACH,
    )
    track.poses = m.bend_knees(track.poses, _own_faults(performance, athlete))
    track.ground[end:] = MAT
    _land(track, end, performance.amount("landing"), m.REACH)
    return track.points()


def _land(track: m.Track, end: int, amount: float, rest: Array) -> None:
    """Absorb a landing: still for 0, a hop and a stagger, a fall from 0.7 on."""
    frames = track.frames - end
    now = np.arange(frames)
    deep = m.ABSORB * (0.5 + 1.1 * amount)
    deep[CHANNEL["point"]] = 0.0
    fall = float(m.smooth(np.array((amount - 0.6) / 0.15)))
    final = (1 - fall) * rest + fall * m.FALLEN
    keys = [(0.0, track.poses[end - 1] * 0.5 + deep * 0.5), (4.0, deep)]
    keys += [(9.0 + 6.0 * amount, (final + deep) / 2), (14.0 + 6.0 * amount, final)]
    track.poses[end:] = m.keyed(frames, keys)
    stagger = amount * (1 - fall) * np.exp(-now / 9.0)
    for side, sign in (("l", 1.0), ("r", -1.0)):
        swing = 1.3 * stagger * np.sin(TAU * now / 10.0)
        track.poses[end:, CHANNEL[f"hip_{side}"]] += sign * swing
        track.poses[end:, CHANNEL[f"shoulder_{side}"]] += 1.4 * np.abs(swing)
    upright = TAU * np.round(track.somersault[end - 1] / TAU)
    off = track.somersault[end - 1] - upright
    lean = np.exp(-now / 4.0) * off + 0.7 * stagger * np.sin(TAU * now / 14.0)
    lean = lean + fall * 1.35 * m.smooth(now / 12.0) * np.copysign(1.0, off + 1e-9)
    track.somersault[end:] = upright + lean
    track.x[end:] += 0.9 * amount * m.smooth(now / 12.0)


def snow(x: Array) -> Array:
    """Height of the big air course: in-run, kicker, knuckle, landing slope, flat."""
    stops = [-16.0, -4.5, -2.8, -1.4, 0.0, 0.01, 8.0, 16.0, 24.0, 60.0]
    heights = [3.2, -1.2, -1.3, -0.9, 0.0, -1.8, -2.0, -5.4, -7.0, -7.0]
    result: Array = np.interp(x, stops, heights)
    return result


def _big_air(performance: Performance, athlete: int) -> Array:
    """Glide down, take off from the kicker, spin and flip, land, ride out."""
    track = m.Track(performance.frames)
    board = performance.action == "snowboard_big_air"
    stance = _STANCE if board else 0.0 * _STANCE
    element = performance.elements[0]
    start, end = performance.take_off(), performance.touch_down()
    now = np.arange(track.frames)
    stops = [0, start, end, end + 15, track.frames]
    places = [-0.24 * start, 0.0, LANDING_X, LANDING_X + 3.4, LANDING_X + 6.0]
    track.x[:] = np.interp(now, stops, places)
    track.ground[:start], track.ground[end:] = (
        snow(track.x)[:start],
        snow(track.x)[end:],
    )
    slope = np.arctan2(snow(track.x + 0.5) - snow(track.x - 0.5), 1.0)
    track.somersault[:start] = -0.6 * slope[:start]
    track.somersault[start - 4 : start] = track.somersault[start - 5]
    track.twist[:] = -np.pi / 2 if board else 0.0
    keys = [(0.0, _GLIDE), (start - 8.0, _GLIDE), (start - 1.0, _POP)]
    track.poses[:start] = m.keyed(start, keys) + stance
    fly(
        track,
        performance,
        athlete,
        0,
        turned=TAU * element.somersaults - track.somersault[start - 1],
        first=_POP,
        last=_RIDE,
        extra=stance,
    )
    _land(track, end, performance.amount("landing"), _RIDE + stance)
    track.somersault[end:] += 0.35
    return track.points()


def _trampoline(performance: Performance, athlete: int) -> Array:
    """Rise from the bed, ten flights and as many touches of the bed, stand."""
    track = m.Track(performance.frames)
    ready = performance.take_off()
    track.ground[:ready] = 0.0
    keys = [(0.0, m.STAND), (ready - 16.0, m.STAND), (ready - 7.0, m.CROUCH)]
    track.poses[:ready] = m.keyed(ready, [*keys, (ready - 1.0, m.STRETCHED)])
    for index, element in enumerate(performance.elements):
        end = performance.touch_down(index)
        facing = (
            1.0 if np.cos(track.twist[performance.take_off(index) - 1]) > 0 else -1.0
        )
        turned = (
            TAU * element.somersaults * facing * (-1.0 if element.backward else 1.0)
        )
        fly(
            track,
            performance,
            athlete,
            index,
            turned=turned,
            first=m.STRETCHED,
            last=m.REACH,
        )
        track.somersault[end:] = TAU * np.round(track.somersault[end - 1] / TAU)
        if index + 1 < len(performance.elements):
            after = performance.take_off(index + 1)
            push = np.sin(np.pi * (np.arange(after - end) + 0.5) / (after - end))
            track.ground[end:after] = -0.45 * push
            track.poses[end:after] = m.REACH + push[:, None] * pose(hip=0.3, knee=0.4)
    track.poses = m.bend_knees(track.poses, _own_faults(performance, athlete))
    last = len(performance.elements) - 1
    end = performance.touch_down(last)
    track.ground[end:] = -0.3 * np.exp(-np.arange(track.frames - end) / 5.0)
    _land(track, end, performance.amount("landing", athlete, last), m.STAND)
    return track.points()


_ROUTINES: dict[str, Callable[[Performance, int], Array]] = {
    "diving": _dive,
    "gym_vault": _vault,
    "ski_big_air": _big_air,
    "snowboard_big_air": _big_air,
    "sync_diving_3m": _dive,
    "sync_diving_10m": _dive,
    "trampoline": _trampoline,
}
