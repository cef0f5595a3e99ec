"""A fitted model: a head, and all one must know to use it.

Conventions: a head predicts scaled labels; times its action's deviation they are in
judges' units. Everything here can be written to a file and read back (`model_file`).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance, require_same
from aqa.cache.samples import label_problem
from aqa.regress.calibration import Calibration
from aqa.regress.lstm import LstmHead
from aqa.regress.svr import SvrHead

#: What of a provenance may differ between training and use.
PASSING = ("decoder", "precision")


@dataclass(frozen=True, eq=False)
class Model:
    """A head with the actions it knows, and the features it was made with.

    `deviations` and `calibration` are by action, the latter for those that were
    calibrated; `frames` is the shortest and the longest training video, before
    padding. `settings` and `results` are JSON objects for people to read.
    """

    head: LstmHead | SvrHead
    actions: tuple[str, ...]
    deviations: Mapping[str, float]
    provenance: Provenance
    settings: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    frames: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check names and units; `AqaError` says what is wrong."""
        if not self.actions or len(set(self.actions)) < len(self.actions):
            raise AqaError("a model knows at least one action, and each once")
        for action in self.actions:
            if problem := label_problem(action, "", math.nan):
                raise AqaError(problem)
        if set(self.deviations) != set(self.actions):
            raise AqaError("a model has one deviation for each of its actions")
        for action, deviation in self.deviations.items():
            if not (math.isfinite(deviation) and deviation > 0):
                raise AqaError(f"{action}: a deviation is above 0, not {deviation}")
        if not {*self.calibration, *self.frames} <= set(self.actions):
            raise AqaError("a model is calibrated for its own actions only")
        for action, (shortest, longest) in self.frames.items():
            if not 0 < shortest <= longest:
                raise AqaError(f"{action}: no video has {shortest} to {longest} frames")

    @property
    def kind(self) -> str:
        """The head's name: "lstm" or "svr"."""
        return "lstm" if isinstance(self.head, LstmHead) else "svr"

    def require(self, provenance: Provenance, where: str = "model") -> list[str]:
        """Raise `ProvenanceMismatch` unless it was made with such features.

        Another decoder or precision moves features by roundings, and a model outlives
        a library's version: such differences are returned, in words.
        """
        require_same(_lasting(self.provenance), _lasting(provenance), where)
        return self.provenance.differences(provenance)

    def record(self) -> dict[str, Any]:
        """Everything but the head's numbers, as JSON values."""
        return {
            "head": self.kind,
            "actions": list(self.actions),
            "deviations": dict(self.deviations),
            "provenance": dict(self.provenance.record),
            "settings": dict(self.settings),
            "results": dict(self.results),
            "calibration": {name: asdict(c) for name, c in self.calibration.items()},
            "frames": {name: list(ends) for name, ends in self.frames.items()},
        }


def _lasting(provenance: Provenance) -> Provenance:
    """What decides the features, beyond roundings."""
    record = provenance.record
    return Provenance({k: v for k, v in record.items() if k not in PASSING})
