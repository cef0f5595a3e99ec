"""Water and snow thrown up where an athlete comes down.

Conventions: places in metres as in `choreography`, sizes grow with the planted
amount, 0 to 1; a clean entry still leaves a ripple.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aqa.extract.synthetic.athlete import POINT, Array
from aqa.extract.synthetic.drawing import Colour, Image, capsule, drops
from aqa.extract.synthetic.motion import GRAVITY, RATE
from aqa.extract.synthetic.performance import Performance

FOAM: Colour = (244, 250, 252)


@dataclass(frozen=True)
class Spray:
    """What is thrown up at `frame`, from `x` along the course and `y` high."""

    wet: bool
    frame: int
    x: float
    y: float
    amount: float

    @property
    def life(self) -> float:
        """Frames for which it is seen."""
        return (10 if self.wet else 6) + (20 if self.wet else 14) * self.amount


def sprays(performance: Performance, athletes: Sequence[Array]) -> list[Spray]:
    """List what a performance throws up: one splash or cloud an athlete, or none."""
    wet = "diving" in performance.action
    if not wet and "big_air" not in performance.action:
        return []
    thrown = []
    for athlete, points in enumerate(athletes):
        frame = performance.touch_down() + round(athlete * performance.lag)
        where = points[min(frame, len(points) - 1)]
        x = float(where[POINT["hand_r"] if wet else POINT["ankle_r"], 0])
        y = 0.0 if wet else float(where[:, 1].min())
        amount = performance.amount("splash" if wet else "landing", athlete)
        thrown.append(Spray(wet, frame, x, y, amount))
    return thrown


def draw_spray(
    image: Image,
    spray: Spray,
    place: tuple[float, float],
    scale: float,
    frame: int,
    seed: int,
) -> None:
    """Draw it as it is in one frame; `place` is where it starts, in pixels."""
    age = frame - spray.frame
    if not 0 <= age < spray.life:
        return
    x, y = place
    rise = 0.15 + (1.7 if spray.wet else 0.9) * spray.amount  # metres
    if spray.wet:
        share = (age + 1) / spray.life
        wide = (0.1 + 0.5 * spray.amount) * scale
        top = y - 0.8 * rise * scale * 4 * share * (1 - share)
        capsule(image, (x, y), (x, top), (0.5 * wide, 0.35 * wide), FOAM, 0.85)
        ring = (0.3 + share) * wide
        capsule(image, (x - ring, y), (x + ring, y), (3.0, 3.0), FOAM, 0.9)
    rng = np.random.default_rng(seed)
    count = int(12 + 150 * spray.amount)
    up = np.sqrt(2 * GRAVITY * rise) * rng.uniform(0.25, 1.05, count)
    aside = rng.normal(0 if spray.wet else 0.9, 0.25 + 0.9 * spray.amount, count)
    seconds = (age + 0.5) / RATE
    px = x + scale * aside * seconds
    py = y - scale * (up * seconds - 0.5 * GRAVITY * seconds**2)
    aloft = py < y
    large = aloft & (np.arange(count) % 3 == 0)
    drops(image, px[aloft], py[aloft], 1, FOAM)
    drops(image, px[large], py[large], 2, FOAM)
