"""What an athlete performs: elements, and the faults planted in them.

Conventions: times in frames of the video, an interval is [start, end); somersaults
and twists in turns; a fault's `amount` is 0 (none) to 1 (as bad as it gets). Plain
data: the judging and the drawing both read it, and so does `truth.json`.

What each sport's athletes attempt, and how well they manage.

Conventions: one latent skill per athlete moves all faults together, as in life, so
that no single fault explains the score; the rest of each fault is its own. Lengths
are drawn around Table 1's means.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TypeVar

import numpy as np

#: Every kind of fault and where it shows.
FAULTS = {
    "bent_knees": "legs bent while they should be straight",
    "loose": "tuck, pike or grab not tight",
    "tilt": "body off the vertical at the entry or landing",
    "splash": "water thrown up at the entry",
    "landing": "stumble, deep crouch or fall at the landing",
}


@dataclass(frozen=True)
class Element:
    """One flight: what is turned in it, and in which position."""

    somersaults: float
    twists: float
    #: "tuck", "pike", "layout" or "grab".
    position: str
    backward: bool = False


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, when, and to whom."""

    kind: str
    amount: float
    start: int
    end: int
    athlete: int = 0
    element: int = 0


@dataclass(frozen=True)
class Phases:
    """Lengths in frames: before the take-off, each flight, between, and after."""

    approach: int
    flight: int
    after: int
    #: Time on the bed between two flights, or on the vaulting table before its one.
    contact: int = 0


@dataclass(frozen=True)
class Performance:
    """Everything that is seen of quality in one video."""

    action: str
    elements: tuple[Element, ...]
    phases: Phases
    faults: tuple[Fault, ...] = ()
    athletes: int = 1
    #: 0 to 1: how high a big air jump goes.
    amplitude: float = 0.5
    #: Frames by which the second athlete is late.
    lag: float = 0.0
    #: What else is planted, for the record.
    notes: dict[str, float] = field(default_factory=dict)

    def take_off(self, element: int = 0) -> int:
        """Frame at which a flight begins."""
        phases = self.phases
        return phases.approach + element * (phases.flight + phases.contact)

    def touch_down(self, element: int = 0) -> int:
        """Frame at which a flight ends: hands in the water, feet on the ground."""
        return self.take_off(element) + self.phases.flight

    @property
    def frames(self) -> int:
        """Length of the video."""
        return self.touch_down(len(self.elements) - 1) + self.phases.after

    def amount(self, kind: str, athlete: int = 0, element: int = 0) -> float:
        """How much of one fault there is in one flight, summed."""
        return sum(
            fault.amount
            for fault in self.faults
            if (fault.kind, fault.athlete, fault.element) == (kind, athlete, element)
        )


K = TypeVar("K")

#: Share of the skill in a fault's variance; the faults of one performance then
#: correlate with this value.
SHARED = 0.6


@dataclass(frozen=True)
class Repertoire:
    """One sport's choice of elements, faults and lengths."""

    somersaults: Mapping[float, float]
    twists: Mapping[float, float]
    positions: Mapping[str, float]
    #: Fault -> mean of its amount in the population.
    faults: Mapping[str, float]
    #: Mean and half-width of each phase, in frames.
    approach: tuple[int, int]
    flight: tuple[int, int]
    after: tuple[int, int]
    contact: int = 0
    elements: int = 1
    athletes: int = 1
    #: Shares of performances that end early, of easy compulsory ones, and of
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
        {"tuck": 4, "pike": 5, "layout": 0}, _DIVE,
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
        {"tuck": 4, "pike": 6, "layout": 0}, _DIVE,
        (86, 8), (40, 2), (30, 2), athletes=2, compulsory=0.3, backward=0.4),
    "sync_diving_10m": Repertoire(
        {1.5: 1, 2.5: 4, 3.5: 4, 4.5: 1}, {0: 8, 1: 1, 2: 1},
        {"tuck": 4, "pike": 6, "layout": 0}, _DIVE,
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
    """Draw what one video shows."""
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
        phases = Phases(
            phases.approach, phases.flight + round(8 * (level - 0.5)), phases.after
        )
        bare = Performance(action, elements, phases)
    return Performance(
        action,
        elements,
        phases,
        tuple(faults),
        repertoire.athletes,
        round(level, 3) if repertoire.amplitude else 0.5,
        round(lag, 2),
    )


def _pick(weights: Mapping[K, float], rng: np.random.Generator) -> K:
    keys = list(weights)
    share = np.array([weights[key] for key in keys], float)
    return keys[int(rng.choice(len(keys), p=share / share.sum()))]


def _choose_element(
    repertoire: Repertoire, skill: float, rng: np.random.Generator
) -> Element:
    """The more turned of two elements, for the skilled; the other for the rest."""
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
    """A fault of the population's mean, less for the skilled."""
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
            # A tuck's knees are bent anyway: there it shows before the landing only.
            first = start + int(rng.integers(2, flight - 15))
            tucked = bare.elements[index].position == "tuck"
            span = (end - 16, end) if tucked else (first, first + 16)
        elif kind == "loose":
            span = (start + flight // 6, end - flight // 4)
        elif kind == "tilt":
            amount = max(0.0, 1.25 * amount - 0.25)
            span = (end - flight // 4, end)
        elif index < len(bare.elements) - 1:
            continue  # a trampolinist lands once
        else:
            span = (end, end + 16)
        if amount > 0.05:
            faults.append(Fault(kind, round(amount, 3), *span, athlete, index))
    return faults
