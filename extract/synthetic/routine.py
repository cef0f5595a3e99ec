"""One athlete's routine under construction, and what all sports build it from.

Conventions: as in `motion`; arrays have a row a frame. `ground` is the height under
the feet, or NaN; else `height` is that of the centre of mass, or NaN: then the
athlete is in free fall. Somersault and twist accumulate, one turn is 2 pi.
"""

import numpy as np

from aqa.extract.synthetic.athlete import CHANNEL, FEET, Array, body_points, turn
from aqa.extract.synthetic.motion import (
    TAU,
    Key,
    bump,
    flight_poses,
    free_fall,
    keyed,
    smooth,
    somersault_angle,
    twist_angle,
)
from aqa.extract.synthetic.performance import Performance
from aqa.extract.synthetic.shapes import ABSORB, BENT, FALLEN, STAND

_SIDES = (("l", 1.0), ("r", -1.0))


class Routine:
    """Poses, angles and places of one athlete, to be filled in by a sport."""

    def __init__(self, performance: Performance, athlete: int) -> None:
        """Stand upright at x = 0, in free fall wherever nothing is filled in."""
        self.performance, self.athlete = performance, athlete
        self.frames = performance.frames
        self.poses = np.repeat(STAND[None], self.frames, axis=0)
        self.somersault, self.twist, self.x = np.zeros((3, self.frames))
        self.ground, self.height = np.full((2, self.frames), np.nan)

    def amount(self, kind: str, index: int = 0) -> float:
        """How much of a fault this athlete has in a flight."""
        return self.performance.amount(kind, self.athlete, index)

    def pose(self, start: int, end: int, keys: list[Key]) -> None:
        """Ease through poses, keyed by frame of the video, in [start, end)."""
        self.poses[start:end] = keyed(end, keys)[start:]

    def travel(self, frames: list[float], places: list[float]) -> None:
        """Move along x at constant speed between the frames given."""
        self.x = np.interp(np.arange(self.frames), frames, places)

    def stride(self, start: int, end: int, pace: float, swing: float) -> None:
        """Step with alternate legs and arms, one stride in `pace` frames."""
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
        """Fill one flight, and carry its angles on to the end.

        The body turns by `turned` and what the planted tilt adds; `stance` is added
        to every pose.
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
        """Absorb a landing and rest: still for 0, staggering, from 0.7 on a fall."""
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
        """The moving body in the world: (T, points, 3)."""
        body = turn(body_points(self._bent()), self.somersault, self.twist)
        standing = self.ground - body[:, FEET, 1].min(axis=1)
        y = free_fall(np.where(np.isnan(self.ground), self.height, standing))
        body[..., 0] += self.x[:, None]
        body[..., 1] += y[:, None]
        return body

    def _bent(self) -> Array:
        """The poses with knees bent by the faults, as far as they are not anyway."""
        poses = self.poses.copy()
        for fault in self.performance.faults:
            if fault.kind == "bent_knees" and fault.athlete == self.athlete:
                extra = fault.amount * bump(len(poses), fault.start, fault.end)
                bend = poses[:, [CHANNEL["knee_l"], CHANNEL["knee_r"]]].mean(axis=1)
                room = np.clip(1.0 - bend / BENT.max(), 0.0, 1.0)
                poses += (extra * room)[:, None] * BENT
        return poses
