"""What an athlete performs: elements, and the faults planted in them.

Conventions: times in frames of the video, an interval is [start, end); somersaults
and twists in turns; a fault's `amount` is 0 (none) to 1 (as bad as it gets). Plain
data: the judging and the drawing both read it, and so does `truth.json`.
"""

from dataclasses import dataclass, field

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
