"""How far a model's scores are from the judges', learnt inside the training rows.

Conventions: judges' units. Held-out predictions of training videos (each made by a
head that never saw the video) leave residuals, truth minus prediction; an interval is
a score plus their low and high order statistics, so that a new video of the kind falls
inside about as often as `level` says; with too few videos for the level it is the
whole range of the residuals. The typical course is the training videos' mean
prediction after each clip: what is lost in a clip is told against it.

A fitted model: a head, and all one must know to use it.

Conventions: a head predicts scaled labels; times its action's deviation they are in
judges' units. Everything here can be written to a file and read back (`model_file`).

A fitted model on disk: arrays and a JSON header, nothing that could be code.

Conventions: one .safetensors file; its metadata has the one entry `aqa-model`, a JSON
object with `version`, `head` ("lstm" or "svr"), `actions`, `deviations` (judges'
units of one scaled label), `provenance` of the features, `settings` of the training,
`results` on the test list, `calibration` and `frames` by action, and for an SVR
`svr`, its choice.
An LSTM's arrays are those of `lstm.Arrays` in float32; an SVR's are `mean` and
`deviation` (D,), `coefficients` (S,), `intercept` () in float64 and `vectors` (S, D)
in float32. The same model gives the same bytes.
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
from aqa.regress.evaluation.metrics import Floats
from aqa.regress.heads.lstm import LstmHead
from aqa.regress.heads.svr import KERNELS, Choice, Scaling, SvrHead

#: The part of new videos that an interval is meant to hold.
LEVEL = 0.9


@dataclass(frozen=True)
class Calibration:
    """What is known of a model's errors on one action.

    `low` and `high` are the residuals that bound an interval, of `videos` held out;
    `folds` heads were trained for them. `typical` holds the mean course, empty for a
    head without one.
    """

    low: float
    high: float
    level: float
    videos: int
    folds: int
    typical: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no residuals could have given."""
        bounds = np.array([self.low, self.high, *self.typical], np.float64)
        if not (np.isfinite(bounds).all() and self.low <= self.high):
            raise AqaError(
                f"calibration bounds {self.low} to {self.high} are no interval"
            )
        if not (0 < self.level < 1 and self.videos > 0 and self.folds > 1):
            raise AqaError("calibration without level, videos or folds")

    def words(self) -> str:
        """What an interval is worth, and how that is known."""
        return (
            f"{100 * self.level:g} %, calibrated on {self.videos} training videos "
            f"held out in {self.folds} folds"
        )

    def basis(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {"level": self.level, "videos": self.videos, "folds": self.folds}


def residual_bounds(residuals: Floats, level: float = LEVEL) -> tuple[float, float]:
    """The order statistics between which a further residual falls with `level`.

    residuals: (n,). As many are cut off below as above, of n + 1 equally likely
    places for the next one; (lowest, highest) where that is none.
    """
    ordered = np.sort(residuals)
    # Rounded first: 0.05 * 20 must be one place, not 0.9999.
    cut = max(1, int(np.floor(round((len(ordered) + 1) * (1 - level) / 2, 9))))
    return float(ordered[cut - 1]), float(ordered[-cut])


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


ENTRY = "aqa-model"
VERSION = 1
#: Bytes of header that are read; ours have a few thousand.
MOST_HEADER = 1 << 20

Tensors = dict[str, NDArray[Any]]
Header = dict[str, Any]
Kind = TypeVar("Kind")


def save_model(path: Path, model: Model) -> None:
    """Write a model; what was at `path` is replaced whole or not at all."""
    header: Header = {"version": VERSION, **model.record()}
    if isinstance(model.head, LstmHead):
        tensors: Tensors = dict(model.head.parameters)
    else:
        header["svr"], tensors = _svr_parts(model.head)
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    with replacing(path) as descriptor, open(descriptor, "wb", closefd=False) as file:
        file.write(save(tensors, {ENTRY: text}))


def load_model(path: Path) -> Model:
    """Read a model; `AqaError` says what is wrong with a file that is none."""
    try:
        header, tensors = _read(path)
        calibration = _get(header, "calibration", dict)
        return Model(
            head=_head(header, tensors),
            actions=tuple(_get(header, "actions", list)),
            deviations=_get(header, "deviations", dict),
            provenance=Provenance(_get(header, "provenance", dict)),
            settings=_get(header, "settings", dict),
            results=_get(header, "results", dict),
            calibration={
                name: Calibration(**{**fields, "typical": tuple(fields["typical"])})
                for name, fields in calibration.items()
            },
            frames={
                name: (int(shortest), int(longest))
                for name, (shortest, longest) in _get(header, "frames", dict).items()
            },
        )
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


def _read(path: Path) -> tuple[Header, Tensors]:
    """The header and the arrays, neither looked into yet."""
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
            raise AqaError(f"its header is no JSON ({brief(error)})") from error
        if not isinstance(header, dict):
            raise AqaError("its header is no JSON object")
        if header.get("version") != VERSION:
            raise AqaError(
                f"version {header.get('version')!r}; version {VERSION} is read"
            )
        return header, {name: arrays.get_tensor(name) for name in arrays.keys()}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(text: str) -> float:
    """A number as it is written, which may be too large to be one here."""
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _get(record: Header, name: str, kind: type[Kind]) -> Kind:
    value = record.get(name)
    if not isinstance(value, kind):
        raise AqaError(f"{name}: expected {kind.__name__}, found {str(value)[:60]!r}")
    return value


def _number(record: Header, name: str) -> float:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AqaError(f"{name}: expected a number, found {str(value)[:60]!r}")
    if not math.isfinite(value):
        raise AqaError(f"{name}: expected a finite number, found {value}")
    return float(value)


def _head(header: Header, tensors: Tensors) -> LstmHead | SvrHead:
    kind = _get(header, "head", str)
    if kind == "lstm":
        return _lstm_head(tensors)
    if kind == "svr":
        return _svr_head(_get(header, "svr", dict), tensors)
    raise AqaError(f"head {kind[:60]!r}; lstm and svr are known")


def _lstm_head(tensors: Tensors) -> LstmHead:
    width = _axis(tensors, "w_x", 0)
    hidden = _axis(tensors, "v", 0)
    shapes = {
        "w_x": (width, 4 * hidden),
        "w_h": (hidden, 4 * hidden),
        "b": (4 * hidden,),
        "v": (hidden,),
        "c": (),
    }
    _check(tensors, {name: (shape, "float32") for name, shape in shapes.items()})
    return LstmHead(tensors)


def _svr_parts(head: SvrHead) -> tuple[Header, Tensors]:
    choice = asdict(head.choice)
    if math.isnan(head.choice.epsilon):
        choice["epsilon"] = None
    record = {"choice": choice, "gamma": head.gamma, "worth": head.worth}
    return record, {
        "mean": head.scaling.mean,
        "deviation": head.scaling.deviation,
        "vectors": head.vectors,
        "coefficients": head.coefficients,
        "intercept": np.array(head.intercept),
    }


def _svr_head(record: Header, tensors: Tensors) -> SvrHead:
    width = _axis(tensors, "vectors", 1)
    count = _axis(tensors, "vectors", 0)
    _check(
        tensors,
        {
            "mean": ((width,), "float64"),
            "deviation": ((width,), "float64"),
            "vectors": ((count, width), "float32"),
            "coefficients": ((count,), "float64"),
            "intercept": ((), "float64"),
        },
    )
    choice = _get(record, "choice", dict)
    kernel = _get(choice, "kernel", str)
    if kernel not in KERNELS:
        raise AqaError(f"kernel {kernel[:60]!r}; {' and '.join(KERNELS)} are known")
    if not (tensors["deviation"] > 0).all():
        raise AqaError("deviation: a column's deviation is above 0")
    nu, epsilon = choice.get("nu"), choice.get("epsilon")
    return SvrHead(
        choice=Choice(
            kernel=kernel,
            cost=_number(choice, "cost"),
            epsilon=math.nan if epsilon is None else _number(choice, "epsilon"),
            nu=None if nu is None else _number(choice, "nu"),
        ),
        gamma=_number(record, "gamma"),
        scaling=Scaling(tensors["mean"], tensors["deviation"]),
        vectors=tensors["vectors"],
        coefficients=tensors["coefficients"],
        intercept=float(tensors["intercept"]),
        worth=_number(record, "worth"),
        held_out=np.empty(0),
    )


def _axis(tensors: Tensors, name: str, axis: int) -> int:
    """The length of an axis that other shapes follow from."""
    if name not in tensors or tensors[name].ndim <= axis or 0 in tensors[name].shape:
        raise AqaError(f"{name}: no such array, or an empty one")
    return int(tensors[name].shape[axis])


def _check(tensors: Tensors, asked: dict[str, tuple[tuple[int, ...], str]]) -> None:
    if tensors.keys() != asked.keys():
        raise AqaError(
            f"expected the arrays {', '.join(sorted(asked))}; "
            f"found {', '.join(sorted(tensors))[:200]}"
        )
    for name, (shape, kind) in asked.items():
        array = tensors[name]
        if array.shape != shape or array.dtype != kind:
            raise AqaError(
                f"{name}: expected {kind} {shape}, found {array.dtype} {array.shape}"
            )
        if not np.isfinite(array).all():
            raise AqaError(f"{name}: holds values that are not finite")
