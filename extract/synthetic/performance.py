"""What an athlete performs, which faults are planted in it, and how judges score it.

Conventions: times in frames at `RATE` frames per second, intervals [start, end);
somersaults and twists in turns; a fault's `amount` from 0 (none) to 1 (worst). Scores
are in the units of AQA-7's judges, difficulty in those of the sport, execution on a
scale of 10. Everything is plain data: rendering, judging and `truth.json` read it.

Sampling: one latent skill per athlete moves all faults together, so that no single
fault explains the score; phase lengths are drawn around the means of the paper's Table
1. Judging: diving multiplies difficulty and execution, vault and trampoline add them,
big air gives one overall impression. Each judge has an error of their own and marks on
the sport's grid, hence ties.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TypeVar

import numpy as np

#: Frames per second of all rendered videos.
RATE = 25


@dataclass(frozen=True)
class Element:
    """One flight: its rotations and body position."""

    somersaults: float
    twists: float
    #: "tuck", "pike", "layout" or "grab".
    position: str
    backward: bool = False


@dataclass(frozen=True)
class Fault:
    """One fault: kind, severity, frames, athlete and element."""

    kind: str
    amount: float
    start: int
    end: int
    athlete: int = 0
    element: int = 0


@dataclass(frozen=True)
class Phases:
    """Lengths in frames: approach, each flight, after the last one."""

    approach: int
    flight: int
    after: int
    #: On the trampoline bed between two flights.
    contact: int = 0


@dataclass(frozen=True)
class Performance:
    """Everything in one video that determines its score."""

    action: str
    elements: tuple[Element, ...]
    phases: Phases
    faults: tuple[Fault, ...] = ()
    athletes: int = 1
    #: Height of a big air jump, 0 to 1.
    amplitude: float = 0.5
    #: Frames by which the second athlete is late.
    lag: float = 0.0

    def take_off(self, element: int = 0) -> int:
        """Return the first frame of a flight."""
        phases = self.phases
        return phases.approach + element * (phases.flight + phases.contact)

    def touch_down(self, element: int = 0) -> int:
        """Return the frame at which a flight ends in the water or on the ground."""
        return self.take_off(element) + self.phases.flight

    @property
    def frames(self) -> int:
        """Number of frames of the video."""
        return self.touch_down(len(self.elements) - 1) + self.phases.after

    def amount(self, kind: str, athlete: int = 0, element: int = 0) -> float:
        """Return the summed amount of one kind of fault in one flight."""
        return sum(
            fault.amount
            for fault in self.faults
            if (fault.kind, fault.athlete, fault.element) == (kind, athlete, element)
        )


K = TypeVar("K")

#: Share of the skill in each fault's variance: the correlation between two faults.
SHARED = 0.6


@dataclass(frozen=True)
class Repertoire:
    """Distribution of one sport's elements, faults and phase lengths."""

    somersaults: Mapping[float, float]
    twists: Mapping[float, float]
    positions: Mapping[str, float]
    #: Mean amount per kind of fault.
    faults: Mapping[str, float]
    #: Mean and half-width of each phase in frames.
    approach: tuple[int, int]
    flight: tuple[int, int]
    after: tuple[int, int]
    contact: int = 0
    elements: int = 1
    athletes: int = 1
    #: Shares of performances that end early, of easy compulsory dives, and of
    #: elements turned backwards.
    interrupted: float = 0.0
    compulsory: float = 0.0
    backward: float = 0.0
    #: Whether the height of the jump varies.
    amplitude: bool = False


_DIVE = {"bent_knees": 0.26, "loose": 0.30, "tilt": 0.27, "splash": 0.30}
_JUMP = {"loose": 0.33, "landing": 0.36}

# fmt: off
REPERTOIRES = {
    "diving": Repertoire(
        {1.5: 1, 2.5: 4, 3.5: 4, 4.5: 1.5}, {0: 7, 1: 1, 2: 1},
        {"tuck": 4, "pike": 5}, _DIVE,
        (24, 6), (45, 2), (28, 2), backward=0.4),
    "gym_vault": Repertoire(
        {0.5: 4, 1.5: 4}, {0: 2, 0.5: 1, 1: 3, 1.5: 1, 2: 2},
        {"tuck": 3, "pike": 2, "layout": 4},
        {"bent_knees": 0.28, "loose": 0.3, "tilt": 0.27, "landing": 0.32},
        (38, 5), (28, 2), (21, 2)),
    "ski_big_air": Repertoire(
        {0: 2, 1: 3, 2: 3, 3: 1}, {1: 2, 1.5: 2, 2: 3, 2.5: 2, 3: 2, 3.5: 1},
        {"grab": 1}, _JUMP, (45, 6), (50, 2), (37, 2), amplitude=True),
    "snowboard_big_air": Repertoire(
        {0: 3, 1: 3, 2: 3, 3: 1}, {1: 2, 1.5: 2, 2: 3, 2.5: 3, 3: 2, 3.5: 2},
        {"grab": 1}, _JUMP, (40, 6), (46, 2), (36, 2), amplitude=True),
    "sync_diving_3m": Repertoire(
        {1.5: 2, 2.5: 4, 3.5: 3}, {0: 8, 1: 1, 2: 1},
        {"tuck": 4, "pike": 6}, _DIVE,
        (86, 8), (40, 2), (30, 2), athletes=2, compulsory=0.3, backward=0.4),
    "sync_diving_10m": Repertoire(
        {1.5: 1, 2.5: 4, 3.5: 4, 4.5: 1}, {0: 8, 1: 1, 2: 1},
        {"tuck": 4, "pike": 6}, _DIVE,
        (31, 5), (45, 2), (29, 2), athletes=2, compulsory=0.3, backward=0.4),
    "trampoline": Repertoire(
        {1: 3, 2: 6, 3: 1}, {0: 2, 0.5: 4, 1: 2, 1.5: 3},
        {"tuck": 4, "pike": 4, "layout": 2},
        {"bent_knees": 0.3, "loose": 0.35, "tilt": 0.3, "landing": 0.3},
        (34, 6), (53, 4), (46, 5), contact=6, elements=10, interrupted=0.12,
        backward=0.5),
}
# fmt: on


def draw_performance(action: str, rng: np.random.Generator) -> Performance:
    """Sample one performance of an action."""
    repertoire = REPERTOIRES[action]
    approach, flight, after = (
        mean + int(rng.integers(-spread, spread + 1))
        for mean, spread in (repertoire.approach, repertoire.flight, repertoire.after)
    )
    phases = Phases(approach, flight, after, repertoire.contact)
    count = repertoire.elements
    skill = float(rng.normal())
    if rng.random() < repertoire.interrupted:
        count = int(rng.integers(1, count))
        skill -= 1.0
    elements = tuple(_choose_element(repertoire, skill, rng) for _ in range(count))
    if rng.random() < repertoire.compulsory:
        elements = (Element(1.5, 0.0, "pike", elements[0].backward),)
    bare = Performance(action, elements, phases, athletes=repertoire.athletes)
    faults: list[Fault] = []
    for athlete in range(repertoire.athletes):
        own = skill if athlete == 0 else 0.7 * skill + 0.7 * float(rng.normal())
        for index in range(count):
            faults += _draw_faults(bare, repertoire.faults, own, athlete, index, rng)
    level = float(np.clip(0.5 + 0.2 * skill + 0.2 * rng.normal(), 0.0, 1.0))
    lag = 6.0 * _amount(0.28, skill, rng) if repertoire.athletes == 2 else 0.0
    if repertoire.amplitude:
        phases = replace(phases, flight=flight + round(8 * (level - 0.5)))
        bare = replace(bare, phases=phases, amplitude=round(level, 3))
    return replace(bare, faults=tuple(faults), lag=round(lag, 2))


def _pick(weights: Mapping[K, float], rng: np.random.Generator) -> K:
    keys = list(weights)
    share = np.array([weights[key] for key in keys], float)
    return keys[int(rng.choice(len(keys), p=share / share.sum()))]


def _choose_element(
    repertoire: Repertoire, skill: float, rng: np.random.Generator
) -> Element:
    """Sample two elements and return the harder one with a chance that skill raises."""
    two = sorted(
        (_draw_element(repertoire, rng) for _ in range(2)),
        key=lambda element: element.somersaults + 0.6 * element.twists,
    )
    return two[rng.random() < NormalDist().cdf(0.8 * skill)]


def _draw_element(repertoire: Repertoire, rng: np.random.Generator) -> Element:
    somersaults = _pick(repertoire.somersaults, rng)
    twists = _pick(repertoire.twists, rng)
    position = _pick(repertoire.positions, rng)
    if position == "layout" and somersaults > 2:
        position = "pike"
    return Element(
        somersaults, twists, position, bool(rng.random() < repertoire.backward)
    )


def _amount(mean: float, skill: float, rng: np.random.Generator) -> float:
    """Sample the amount of a fault with the given population mean."""
    level = NormalDist().inv_cdf(mean) - SHARED**0.5 * skill
    level += (1 - SHARED) ** 0.5 * float(rng.normal())
    return NormalDist().cdf(level)


def _draw_faults(
    bare: Performance,
    means: Mapping[str, float],
    skill: float,
    athlete: int,
    index: int,
    rng: np.random.Generator,
) -> list[Fault]:
    start, end = bare.take_off(index), bare.touch_down(index)
    flight = end - start
    faults = []
    for kind, mean in means.items():
        amount = _amount(mean, skill, rng)
        if kind == "bent_knees":
            # In a tuck the knees are bent anyway: visible only before the entry.
            first = start + int(rng.integers(2, flight - 15))
            tucked = bare.elements[index].position == "tuck"
            span = (end - 16, end) if tucked else (first, first + 16)
        elif kind == "loose":
            span = (start + flight // 6, end - flight // 4)
        elif kind == "tilt":
            amount = max(0.0, 1.25 * amount - 0.25)
            span = (end - flight // 4, end)
        elif index < len(bare.elements) - 1:
            continue  # a trampoline routine has one landing
        else:
            span = (end, end + 16)
        if amount > 0.05:
            faults.append(Fault(kind, round(amount, 3), *span, athlete, index))
    return faults


#: Every kind of fault, with its deduction from ten points at amount 1.
DEDUCTIONS = {
    "bent_knees": 2.4,  # while the legs should be straight
    "loose": 1.0,  # tuck, pike or grab not tight
    "tilt": 1.2,  # off the vertical at the entry or landing
    "splash": 2.6,  # water thrown up at the entry
    "landing": 3.2,  # stumble, deep crouch or fall
}
#: Standard deviation of each judge's error and of the panel's common one, of ten.
JUDGE_ERROR, PANEL_ERROR = 0.5, 0.4

_POSITION = {"tuck": 0.0, "pike": 0.2, "layout": 0.4, "grab": 0.0}


@dataclass(frozen=True)
class Verdict:
    """A score and its components."""

    score: float
    difficulty: float
    #: True execution of each athlete, before the judges' errors.
    execution: tuple[float, ...]
    marks: tuple[float, ...]


def difficulty(performance: Performance) -> float:
    """Return the difficulty of all elements."""
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
    """Return ten minus the deductions, averaged over the elements."""
    lost = sum(
        DEDUCTIONS[fault.kind] * fault.amount
        for fault in performance.faults
        if fault.athlete == athlete
    )
    return max(0.0, 10.0 - lost / len(performance.elements))


def judge(performance: Performance, rng: np.random.Generator) -> Verdict:
    """Score a performance by the rule of its sport."""
    hard = difficulty(performance)
    done = tuple(execution(performance, a) for a in range(performance.athletes))
    bias = float(rng.normal(0, PANEL_ERROR))
    marks: list[float] = []

    def panel(truth: float, judges: int, grid: float, low: float = 0.0) -> list[float]:
        """Return sorted marks from `low` to ten for a true value on a scale of ten."""
        seen = truth + bias + rng.normal(0, JUDGE_ERROR, judges)
        exact = low + (10.0 - low) / 10.0 * np.clip(seen, 0.0, 10.0)
        given = sorted((np.round(exact / grid) * grid).round(1).tolist())
        marks.extend(given)
        return given

    if performance.action == "diving":
        score = hard * sum(panel(done[0], 7, 0.5)[2:5])
    elif performance.athletes == 2:
        each = sum(sum(panel(truth, 2, 0.5)) / 2 for truth in done)
        synchrony = sum(panel(10.0 - performance.lag, 3, 0.5))
        score = 0.6 * hard * (each + synchrony)
    elif performance.action == "gym_vault":
        score = hard + sum(panel(done[0], 5, 0.1, low=6.5)[1:4]) / 3
    elif performance.action == "trampoline":
        jumps = len(performance.elements)
        shown = 0.1 * jumps * sum(panel(done[0], 5, 0.1, low=4.0)[1:4])
        aloft = jumps * performance.phases.flight / RATE
        score = hard + 0.8 * shown + 0.85 * aloft
    else:
        score = round(sum(panel(impression(performance, hard), 5, 0.2)))
    return Verdict(round(score, 2), hard, done, tuple(marks))


def impression(performance: Performance, hard: float) -> float:
    """Return big air's overall impression of ten; a fall costs most of it."""
    loose, landing = performance.amount("loose"), performance.amount("landing")
    flight = 0.5 * min(hard / 8.0, 1.0) + 0.3 * performance.amplitude + 0.2
    clean = 1.0 - 0.25 * loose - 0.25 * landing
    fall = float(np.clip((landing - 0.5) / 0.2, 0.0, 1.0))
    return 10.0 * flight * clean * (1.0 - 0.65 * fall)
