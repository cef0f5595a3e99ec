"""A fitted model: a head with all that is needed to use it, and its file.

Conventions: a head predicts scaled labels, which the model's label scale converts to
judges' units; everything else here is in judges' units.

One .safetensors file per model, nothing in it can be code. Its metadata have one entry
`aqa-model`, a JSON object: `version`, `head` (its kind, see `base`; the kind's
facts stand under its name), `actions`, `label_scale`, `provenance` of the features,
`settings` of the training, `results` on the test list, and by action `calibration`,
`frames`, `ranges` and `plausibility`. Arrays are those of the head and, after
`features.`, those of the plausibility. The same model gives the same bytes.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open

from aqa.cache.errors import AqaError, brief
from aqa.cache.provenance import Provenance, require_same
from aqa.cache.samples import label_problem
from aqa.regress.data import Floats, LabelScale, split_padding
from aqa.regress.heads.base import Head, kind_of
from aqa.regress.heads.plausibility import Plausibility
from aqa.regress.heads.tasks import write_safetensors

#: The share of new videos that an interval is meant to contain, where enough training
#: videos allow it.
LEVEL = 0.9


@dataclass(frozen=True)
class Calibration:
    """Errors of a model on one action, from held-out predictions of training videos.

    A score plus `low` and `high` is an interval that contains the judges' score with
    probability `level`; `videos` were held out by `folds` further heads. `typical` is
    the mean score after each clip, empty for a head without.
    """

    low: float
    high: float
    level: float
    videos: int
    folds: int
    typical: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check what a file holds; raises `AqaError`."""
        finite = np.isfinite([self.low, self.high, *self.typical]).all()
        if not (finite and self.low <= self.high and 0 < self.level < 1):
            raise AqaError(f"calibration: not the interval of any residuals: {self}")

    def words(self) -> str:
        """Return what the interval means and how that is known."""
        side = "low" if self.low == 0 else "high" if self.high == 0 else ""
        return (
            f"{100 * self.level:.0f} %, calibrated on {self.videos} training videos "
            f"held out in {self.folds} folds"
            + (f", scored too {side} almost throughout" if side else "")
        )


def residual_bounds(
    residuals: Floats, level: float = LEVEL
) -> tuple[float, float, float]:
    """Return (low, high, level): bounds of a further residual, and their probability.

    residuals: (n,), truth minus prediction of held-out videos. The bounds are order
    statistics: a further residual falls into each of the n + 1 gaps with the same
    probability, so with `cut` gaps left out at either end the probability is
    1 - 2 cut / (n + 1), the least above `level` that n allows. Few residuals allow
    less: then the bounds are their range, and the level returned says so. Bounds
    include 0: a score lies within its own interval.
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

    By action: `calibration`, for those that were calibrated; `frames`, the shortest and
    the longest training video before padding; `rates`, their median frames per second;
    `ranges`, the lowest and the highest training score. `settings` and `results` are
    JSON objects for people to read. Raises `AqaError` for parts that do not fit
    together.
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
    rates: Mapping[str, float] = field(default_factory=dict)
    plausibility: Plausibility | None = None

    def __post_init__(self) -> None:
        """Check what a file holds."""
        for action in self.actions:
            if problem := label_problem(action, "", math.nan):
                raise AqaError(problem)
        known = set(self.actions)
        if not known or set(self.label_scale.scale) != known:
            raise AqaError("a model has at least one action, a label scale for each")
        typical = self.plausibility.thresholds if self.plausibility else {}
        by_action = {*self.calibration, *self.frames, *self.ranges, *self.rates}
        if not by_action | {*typical} <= known:
            raise AqaError("a model is calibrated for its own actions only")
        for action, (low, high) in [*self.frames.items(), *self.ranges.items()]:
            if not low <= high:
                raise AqaError(f"{action}: nothing lies from {low} to {high}")
        for action, rate in self.rates.items():
            if not rate > 0:
                raise AqaError(f"{action}: {rate} frames per second")

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
        clips: ArrayLike | None = None,
    ) -> Floats:
        """Return scores (n,) in judges' units for features x (n, clips, D).

        x may be (n, copies, clips, D) as a cache has it: copy 0 is scored, as in
        testing. `action` is one action or the action of each sample (n,), and may be
        left out for a model of one action. Rows of fewer clips than others begin with
        clips of NaN, as `aqa.open_cache` has them, or `clips` (n,) counts the real
        ones at the end of each. Raises `AqaError` for an unknown action, and for
        clips of zeros at the ends of imported features, which are no real ones.
        """
        x = _as_features(x)
        x = x[:, None] if x.ndim == 3 else x
        if x.ndim != 4 or 0 in x.shape[1:]:
            raise AqaError(
                "features: expected (n, clips, D) or (n, copies, clips, D), found "
                f"{x.shape}"
            )
        if clips is None and self.provenance.record.get("imported"):
            # An import cuts clips of zeros at the ends off: (n, clips)
            zeros = np.asarray(~x.any(axis=(1, 3)))
            padded = zeros[:, [0, -1]].any(1) & ~zeros.all(1)
            if padded.any():
                raise AqaError(
                    f"features: {padded.sum()} of {len(x)} samples begin or end with "
                    "clips of zeros, which look like padding; expected padding in "
                    "front, of NaN or with `clips`, the number of real clips of each"
                )
        x, real = split_padding(x, clips)
        if action is None and len(self.actions) == 1:
            action = self.actions[0]
        named = np.asarray([] if action is None else action).astype(str)
        unknown = set(named.ravel()) - {*self.actions}
        if action is None or unknown:
            raise AqaError(
                f"expected an action of the model ({', '.join(self.actions)}); found "
                f"{', '.join(sorted(unknown)) or 'none'}"
            )
        if named.shape not in ((), (1,), (len(x),), (0,)):
            raise AqaError(
                f"action: expected one name, or {len(x)}, one per sample; found "
                f"shape {named.shape}"
            )
        return self.label_scale.to_units(self.head.predict(x[:, 0], real), action)

    def record(self) -> dict[str, Any]:
        """Return everything but the arrays, as JSON values."""
        facts = self.head.facts()
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
            **({"rates": dict(self.rates)} if self.rates else {}),
            "plausibility": self.plausibility.record() if self.plausibility else [],
            **({self.head.kind: facts} if facts else {}),
        }


def _as_features(x: Any) -> NDArray[np.float32]:
    """Return numbers as float32; AqaError for what is none."""
    found = np.asarray(x)
    if found.dtype.kind not in "fiu":
        raise AqaError(f"features: expected an array of numbers, found {found.dtype}")
    with np.errstate(over="ignore"):  # what is too large is infinite, and refused
        return found.astype(np.float32, copy=False)


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


def save_model(path: Path, model: Model) -> None:
    """Write a model; a file at `path` is replaced whole or not at all."""
    header = {"version": VERSION, **model.record()}
    arrays = model.head.arrays()
    if model.plausibility:
        for name, array in model.plausibility.arrays().items():
            arrays[FEATURES + name] = array
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    write_safetensors(path, arrays, {ENTRY: text})


def load_model(path: Path) -> Model:
    """Read a model; raises `AqaError` that says what is wrong with the file."""
    try:
        return _model(*_read(path))
    except FileNotFoundError as error:
        raise AqaError(
            f"{path}: no such model; `aqa fit` makes one of a cache, `aqa demo` one of "
            "rendered athletes"
        ) from error
    except OSError as error:
        raise AqaError(f"{path}: {error.strerror or error}") from error
    except (
        SafetensorError,
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
        AttributeError,
    ) as error:
        raise AqaError(
            f"{path}: not a model of this aqa: {brief(error, 300)}"
        ) from error


def _model(header: Any, arrays: dict[str, NDArray[Any]]) -> Model:
    plausible = {
        name.removeprefix(FEATURES): arrays.pop(name)
        for name in list(arrays)
        if name.startswith(FEATURES)
    }
    kind = header["head"]
    return Model(
        head=kind_of(kind).read_head(arrays, header.get(kind)),
        actions=tuple(header["actions"]),
        label_scale=LabelScale(**header["label_scale"]),
        provenance=Provenance(header["provenance"]),
        settings=dict(header["settings"]),
        results=dict(header["results"]),
        calibration={
            name: Calibration(**{**fields, "typical": tuple(fields["typical"])})
            for name, fields in header["calibration"].items()
        },
        frames={n: (int(a), int(b)) for n, (a, b) in header["frames"].items()},
        ranges={n: (float(a), float(b)) for n, (a, b) in header["ranges"].items()},
        rates={n: float(rate) for n, rate in header.get("rates", {}).items()},
        plausibility=(
            Plausibility.read(plausible, header["plausibility"]) if plausible else None
        ),
    )


def _read(path: Path) -> tuple[Any, dict[str, NDArray[Any]]]:
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
        found = header.get("version") if isinstance(header, dict) else None
        if found != VERSION:
            raise AqaError(
                f"a header of version {found!r}; version {VERSION} is read: fit again"
            )
        return header, {name: arrays.get_tensor(name) for name in arrays.keys()}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(text: str) -> float:
    """Parse a number, which may be too large for a float."""
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)
