"""The score of a performance: each sport's rule, and its judges.

Conventions: judges' units; difficulty in the sport's own units; execution on a
scale of 10. Diving multiplies difficulty and execution, vault and trampoline add
them, big air judges one overall impression. Each judge sees the execution with an
error of his own and marks on the sport's grid, hence ties.
"""

from dataclasses import dataclass

import numpy as np

from aqa.extract.synthetic.moves import RATE
from aqa.extract.synthetic.performance import Element, Performance

#: Points of ten lost to a fault of amount 1.
DEDUCTIONS = {
    "bent_knees": 2.4,
    "loose": 1.0,
    "tilt": 1.2,
    "splash": 2.6,
    "landing": 3.2,
}
#: A judge's own error, and the one that a panel shares, in points of ten.
JUDGE_ERROR, PANEL_ERROR = 0.5, 0.4

_POSITION = {"tuck": 0.0, "pike": 0.2, "layout": 0.4, "grab": 0.0}


@dataclass(frozen=True)
class Verdict:
    """A score and what it was made of."""

    score: float
    difficulty: float
    #: True execution of each athlete, before any judge looked.
    execution: tuple[float, ...]
    marks: tuple[float, ...]


def difficulty(performance: Performance) -> float:
    """Difficulty of all elements: more turns, stretched positions, more points."""
    return round(sum(_element(performance.action, e) for e in performance.elements), 1)


def _element(action: str, element: Element) -> float:
    turns, twists = element.somersaults, element.twists
    position = _POSITION[element.position]
    if action == "gym_vault":
        return 4.0 + 0.9 * turns + 0.45 * twists + 0.5 * position
    if action in ("ski_big_air", "snowboard_big_air"):
        return 1.0 + 1.5 * turns + 1.2 * twists
    if action == "trampoline":
        return 0.1 + 0.45 * turns + 0.25 * twists + 0.5 * position
    return 1.4 + 0.55 * turns + 0.35 * twists + position + 0.1 * element.backward


def execution(performance: Performance, athlete: int = 0) -> float:
    """Ten less the deductions, averaged over the elements."""
    lost = sum(
        DEDUCTIONS[fault.kind] * fault.amount
        for fault in performance.faults
        if fault.athlete == athlete
    )
    return max(0.0, 10.0 - lost / len(performance.elements))


def synchrony(performance: Performance) -> float:
    """Ten less what two athletes differ by in time."""
    return max(0.0, 10.0 - 1.0 * performance.lag)


class Panel:
    """Judges who look at one performance, each with his own error."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Seat the judges, and draw what they all misjudge together."""
        self._rng = rng
        self._bias = float(rng.normal(0, PANEL_ERROR))
        self.marks: list[float] = []

    def judge(
        self, truth: float, judges: int, grid: float, low: float = 0.0
    ) -> list[float]:
        """Mark a truth on the scale of ten: sorted marks from `low` to ten."""
        seen = truth + self._bias + self._rng.normal(0, JUDGE_ERROR, judges)
        marks = low + (10.0 - low) / 10.0 * np.clip(seen, 0.0, 10.0)
        given = sorted((np.round(marks / grid) * grid).round(1).tolist())
        self.marks += given
        return given


def judge(performance: Performance, rng: np.random.Generator) -> Verdict:
    """Score a performance by its sport's rule."""
    hard = difficulty(performance)
    done = tuple(execution(performance, a) for a in range(performance.athletes))
    panel = Panel(rng)
    if performance.action == "diving":
        score = hard * sum(panel.judge(done[0], 7, 0.5)[2:5])
    elif performance.athletes == 2:
        each = sum(sum(panel.judge(truth, 2, 0.5)) / 2 for truth in done)
        score = 0.6 * hard * (each + sum(panel.judge(synchrony(performance), 3, 0.5)))
    elif performance.action == "gym_vault":
        score = hard + sum(panel.judge(done[0], 5, 0.1, low=6.5)[1:4]) / 3
    elif performance.action == "trampoline":
        jumps = len(performance.elements)
        shown = 0.1 * jumps * sum(panel.judge(done[0], 5, 0.1, low=4.0)[1:4])
        aloft = jumps * performance.phases.flight / RATE
        score = hard + 0.8 * shown + 0.85 * aloft
    else:
        marks = panel.judge(impression(performance, hard), 5, 0.2)
        score = round(5 * sum(marks) / len(marks))
    return Verdict(round(score, 2), hard, done, tuple(panel.marks))


def impression(performance: Performance, hard: float) -> float:
    """Big air's one mark of ten: a fall spoils what difficulty and height earned."""
    loose, landing = performance.amount("loose"), performance.amount("landing")
    flight = 0.5 * min(hard / 8.0, 1.0) + 0.3 * performance.amplitude + 0.2
    clean = 1.0 - 0.25 * loose - 0.25 * landing
    fall = float(np.clip((landing - 0.5) / 0.2, 0.0, 1.0))
    return 10.0 * flight * clean * (1.0 - 0.65 * fall)
