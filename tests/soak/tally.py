"""What the attacks of a job came to, and the form that every job has.

Conventions: a job is a function `run(attack: Attack)` that goes on until
`attack.over`, in a process of its own, and counts each attempt in one row of the
table. Of `tried` attempts, `held` met what was promised: nothing lost, the damage
named, the file refused. `harmless` ones changed nothing that can be read. `missed`
are damaged inputs taken for sound, which RELIABILITY.md states with their rate.
`lost` breaks a promise: each is a sentence, and its evidence is kept.
"""

import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Row:
    """One row of the table."""

    tried: int = 0
    held: int = 0
    harmless: int = 0
    missed: int = 0
    lost: list[str] = field(default_factory=list)

    def add(self, other: "Row") -> None:
        """Take another turn's counts in."""
        self.tried += other.tried
        self.held += other.held
        self.harmless += other.harmless
        self.missed += other.missed
        self.lost += other.lost


@dataclass
class Attack:
    """One turn of a job: its chance, its time, its room, its counts."""

    rng: random.Random
    ends: float
    #: Empty, and the turn's own.
    folder: Path
    #: Kept until the soak is over: what a job needs in every turn.
    shared: Path
    rows: dict[str, Row] = field(default_factory=lambda: defaultdict(Row))

    @property
    def over(self) -> bool:
        """Whether the turn's time is up; not before something was attempted."""
        attempted = any(row.tried for row in self.rows.values())
        return attempted and time.monotonic() > self.ends

    def lose(self, row: str, what: str, evidence: bytes | None = None) -> None:
        """Count a broken promise and keep what broke it."""
        if evidence is not None:
            name = f"{row}-{self.rng.getrandbits(48):012x}".replace(" ", "-")
            (self.shared / "findings").mkdir(exist_ok=True)
            (self.shared / "findings" / name).write_bytes(evidence)
            what += f" (kept: {name})"
        self.rows[row].lost.append(what)


Job = Callable[[Attack], None]
