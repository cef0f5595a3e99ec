"""A fitted model: a head with all that is needed to use it, and its file.

Conventions: a head predicts scaled labels, which the model's label scale converts to
judges' units; everything else here is in judges' units.

One .safetensors file per model, nothing in it can be code. Its metadata have one entry
`aqa-model`, a JSON object: `version`, `head` (its kind, see `registry`; the kind's
facts stand under its name), `actions`, `label_scale`, `provenance` of the features,
`settings` of the training, `results` on the test list, and by action `calibration`,
`frames`, `ranges` and `plausibility`. Arrays are those of the head and, after
`features.`, those of the plausibility. The same model gives the same bytes. Version 1,
which had `deviations` in place of the label scale, is read.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from aqa.cache.errors import AqaError, brief
from aqa.cache.files import replacing
from aqa.cache.provenance import Provenance, require_same
from aqa.cache.samples import label_problem
from aqa.regress.data import Floats, LabelScale
from aqa.regress.heads.plausibility import Plausibility
from aqa.regress.heads.registry import Head, kind_of

#: The share of new videos that an interval is meant to contain, where enough training
#: videos allow it.
LEVEL = 0.9


@dataclass(frozen=True)
class Calibration:
    """Errors of a model on one action, from held-out predictions of training videos.

    A score plus `low` and `high` is an interval that contains the judges' score with
    probability `level`; `videos` were held out by `folds` further heads. `typical` is
    the mean score after each clip, empty for a head without. Raises `AqaError` for
    values that no residuals give.
    """

    low: float
    high: float
    level: float
    videos: int
    folds: int
    typical: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        bounds = np.array([self.low, self.high, *self.typical], np.float64)
        if not (np.isfinite(bounds).all() and self.low <= self.high):
            raise AqaError(
                f"calibration bounds {self.low} to {self.high} are no interval"
            )
        if not (0 < self.level < 1 and self.videos > 0 and self.folds > 1):
            raise AqaError("calibration without level, videos or folds")

    def words(self) -> str:
        """Return what the interval means and how that is known."""
        return (
            f"{100 * self.level:.0f} %, calibrated on {self.videos} training videos "
            f"held out in {self.folds} folds"
        )

    def basis(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {"level": self.level, "videos": self.videos, "folds": self.folds}


def residual_bounds(
    residuals: Floats, level: float = LEVEL
) -> tuple[float, float, float]:
    """Return (low, high, level): bounds of a further residual, and their probability.

    residuals: (n,), truth minus prediction of held-out videos. The bounds are order
    statistics: a further residual falls into each of the n + 1 gaps with the same
    probability, so with `cut` gaps left out at either end the probability is
    1 - 2 cut / (n + 1). The level is `level` or the least above it that n allows; few
    residuals allow less: then the bounds are their range, and the level returned says
    so. Bounds include 0: a score lies within its own interval.
    """
    ordered = np.sort(residuals)
    places = len(ordered) + 1
    # Round first: 0.05 * 20 must be one gap, not 0.9999.
    cut = max(1, math.floor(round(places * (1 - level) / 2, 9)))
    low, high = float(ordered[cut - 1]), float(ordered[-cut])
    return min(low, 0.0), max(high, 0.0), 1 - 2 * cut / places


#: Parts of a provenance that may differ between training and use.
PASSING = ("decoder", "precision")


@dataclass(frozen=True, eq=False)
class Model:
    """A head with its actions, units, and the features it was made with.

    By action: `calibration`, for those that were calibrated; `frames`, the shortest
    and the longest training video before padding; `ranges`, the lowest and the highest
    training score. `settings` and `results` are JSON objects for people to read.
    Raises `AqaError` for parts that do not fit together.
    """

    head: Head
    actions: tuple[str, ...]
    label_scale: LabelScale
    provenance: Provenance
    settings: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    frames: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    plausibility: Plausibility | None = None

    def __post_init__(self) -> None:
        """Check names and numbers."""
        known = set(self.actions)
        if not known or len(known) < len(self.actions):
            raise AqaError("a model has at least one action, and each once")
        for action in self.actions:
            if problem := label_problem(action, "", math.nan):
                raise AqaError(problem)
        if set(self.label_scale.scale) != known:
            raise AqaError("a model has a label scale for each of its actions")
        if not {*self.calibration, *self.frames, *self.ranges} <= known:
            raise AqaError("a model is calibrated for its own actions only")
        if self.plausibility and not set(self.plausibility.thresholds) <= known:
            raise AqaError("a model has the features of its own actions only")
        for action, (shortest, longest) in self.frames.items():
            if not 0 < shortest <= longest:
                raise AqaError(f"{action}: no video has {shortest} to {longest} frames")
        for action, (lowest, highest) in self.ranges.items():
            if not lowest <= highest:
                raise AqaError(f"{action}: no scores lie in {lowest} to {highest}")

    @property
    def localises(self) -> bool:
        """Whether its course is a score so far: trained with labels "incremental"."""
        return self.settings.get("labels") == "incremental"

    def require(self, provenance: Provenance, where: str = "model") -> list[str]:
        """Raise `ProvenanceMismatch` unless it was made with such features.

        Another decoder or precision changes features by rounding only, and a model
        outlives library versions: these differences are returned, in words.
        """
        require_same(_lasting(self.provenance), _lasting(provenance), where)
        return self.provenance.differences(provenance)

    def predict(
        self,
        x: NDArray[np.float32],
        action: str | NDArray[Any] | None = None,
        clips: NDArray[np.int32] | None = None,
    ) -> Floats:
        """Return scores (n,) in judges' units for features x (n, clips, D).

        x may be (n, copies, clips, D) as a cache has it: copy 0 is scored, as in
        testing. `action` is one action or the action of each sample (n,), and may be
        left out for a model of one action. Raises `AqaError` for an unknown action.
        """
        x = x[:, 0] if x.ndim == 4 else x
        if action is None and len(self.actions) == 1:
            action = self.actions[0]
        unknown = set(np.unique([] if action is None else action)) - {*self.actions}
        if action is None or unknown:
            raise AqaError(
                f"expected an action of the model ({', '.join(self.actions)}); found "
                f"{', '.join(sorted(unknown)) or 'none'}"
            )
        return self.label_scale.to_units(self.head.predict(x, clips), action)

    def record(self) -> dict[str, Any]:
        """Return everything but the arrays, as JSON values."""
        plausibility = self.plausibility.record() if self.plausibility else []
        return {
            "head": self.head.kind,
            "actions": list(self.actions),
            "label_scale": asdict(self.label_scale),
            "provenance": dict(self.provenance.record),
            "settings": dict(self.settings),
            "results": dict(self.results),
            "calibration": {name: asdict(c) for name, c in self.calibration.items()},
            "frames": {name: list(ends) for name, ends in self.frames.items()},
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "plausibility": plausibility,
            self.head.kind: self.head.facts(),
        }


def _lasting(provenance: Provenance) -> Provenance:
    """Return what determines the features, except for rounding."""
    record = provenance.record
    return Provenance({k: v for k, v in record.items() if k not in PASSING})


ENTRY = "aqa-model"
VERSION = 2
#: Bytes of header that are read; ours have a few thousand.
MOST_HEADER = 1 << 20
#: Prefix of the arrays of the plausibility.
FEATURES = "features."

Tensors = dict[str, NDArray[Any]]
Header = dict[str, Any]
Kind = TypeVar("Kind")


def save_model(path: Path, model: Model) -> None:
    """Write a model; a file at `path` is replaced whole or not at all."""
    header: Header = {"version": VERSION, **model.record()}
    tensors = model.head.arrays()
    if model.plausibility:
        arrays = model.plausibility.arrays()
        tensors |= {FEATURES + name: array for name, array in arrays.items()}
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    with replacing(path) as descriptor, open(descriptor, "wb", closefd=False) as file:
        file.write(save(tensors, {ENTRY: text}))


def load_model(path: Path) -> Model:
    """Read a model; raises `AqaError` that says what is wrong with the file."""
    try:
        header, tensors = _read(path)
        return _model(header, tensors)
    except OSError as error:
        raise AqaError(f"{path}: {error.strerror or error}") from error
    except (
        SafetensorError,
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
    ) as error:
        raise AqaError(
            f"{path}: not a model of this aqa: {brief(error, 300)}"
        ) from error


def _model(header: Header, tensors: Tensors) -> Model:
    named = {
        name.removeprefix(FEATURES): tensors.pop(name)
        for name in list(tensors)
        if name.startswith(FEATURES)
    }
    kind = _get(header, "head", str)
    head = kind_of(kind).read_head(tensors, header.get(kind) or {})
    plausibility = None
    if named:
        plausibility = Plausibility.read(named, _get(header, "plausibility", list))
    if header["version"] == 1:
        scale = _get(header, "deviations", dict)
        label_scale = LabelScale("std", dict.fromkeys(scale, 0.0), scale)
        ranges = {}
    else:
        label_scale = LabelScale(**_get(header, "label_scale", dict))
        ranges = _get(header, "ranges", dict)
    return Model(
        head=head,
        actions=tuple(_get(header, "actions", list)),
        label_scale=label_scale,
        provenance=Provenance(_get(header, "provenance", dict)),
        settings=_get(header, "settings", dict),
        results=_get(header, "results", dict),
        calibration={
            name: Calibration(**{**fields, "typical": tuple(fields["typical"])})
            for name, fields in _get(header, "calibration", dict).items()
        },
        frames={
            name: (int(shortest), int(longest))
            for name, (shortest, longest) in _get(header, "frames", dict).items()
        },
        ranges={
            name: (float(low), float(high)) for name, (low, high) in ranges.items()
        },
        plausibility=plausibility,
    )


def _read(path: Path) -> tuple[Header, Tensors]:
    """Return the header and the arrays, neither checked yet."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise AqaError(f"a header of {length} bytes; at most {MOST_HEADER} are read")
    with safe_open(path, "np") as arrays:
        text = (arrays.metadata() or {}).get(ENTRY)
        if text is None:
            raise AqaError(f"no {ENTRY} in its metadata; `aqa fit` writes models")
        try:
            header = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise AqaError(f"its header is not JSON ({brief(error)})") from error
        if not isinstance(header, dict):
            raise AqaError("its header is not a JSON object")
        if header.get("version") not in (1, VERSION):
            raise AqaError(
                f"version {header.get('version')!r}; versions 1 to {VERSION} are read"
            )
        return header, {name: arrays.get_tensor(name) for name in arrays.keys()}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(text: str) -> float:
    """Parse a number, which may be too large for a float."""
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _get(record: Header, name: str, kind: type[Kind]) -> Kind:
    value = record.get(name)
    if not isinstance(value, kind):
        raise AqaError(f"{name}: expected {kind.__name__}, found {str(value)[:60]!r}")
    return value
