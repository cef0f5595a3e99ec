"""Settings of fits and comparisons: every default, stated once.

Conventions: iterations and steps count batches; a batch counts sequences of clips.
Source of the values: the paper, section 5. Imports nothing heavy, so that the command
line can show defaults. A TOML file may hold any field; nested settings are tables
([schedule], [lstm], [svr], [split], [fine_tune]).
"""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from aqa.cache.errors import AqaError, above_zero, at_least

#: Precisions of the two large products of an LSTM's iteration.
PRODUCTS = ("fp32", "bf16")
#: How labels are scaled per action: by the standard deviation alone (the paper,
#: section 5), or to zero mean and unit standard deviation.
LABEL_SCALES = ("std", "zscore")
#: What the steps of an LSTM are labelled with: "final" has the loss see the last step
#: only; "incremental" labels step k of K with k / K of the score (Parmar and Morris,
#: "Learning to Score Olympic Events", its second form).
LABELS = ("final", "incremental")
#: One model of all actions, or one per action.
MODES = ("all-action", "single-action")
#: Loss functions of LSTM heads, see `heads.lstm_training`.
LOSSES = ("squared", "rank")
#: Kernels of an SVR.
KERNELS = ("linear", "rbf")
#: Settings of one word, by name.
CHOICES = {
    "label_scale": LABEL_SCALES,
    "labels": LABELS,
    "mode": MODES,
    "loss": LOSSES,
}


@dataclass(frozen=True)
class Schedule:
    """Adam's schedule: the rate is multiplied by `gamma` every `step` iterations."""

    iterations: int = 20_000
    learning_rate: float = 0.001
    step: int = 3_000
    gamma: float = 0.5
    batch: int = 15

    def __post_init__(self) -> None:
        """Refuse numbers that no training can have."""
        at_least(self, 0, "iterations")  # 0: a head as it is drawn
        at_least(self, 1, "step", "batch")
        above_zero(self, "learning_rate", "gamma")

    def scaled(self, factor: float) -> "Schedule":
        """Scale iterations and step, each at least 1."""
        return replace(
            self,
            iterations=max(1, round(self.iterations * factor)),
            step=max(1, round(self.step * factor)),
        )


@dataclass(frozen=True)
class LstmConfig:
    """One LSTM layer and one fully connected output, Gaussian initial weights."""

    hidden: int = 256
    init_std: float = 0.1
    #: Precision of the two large products of an iteration, of `PRODUCTS`: "bf16" where
    #: the hardware has it. On planted data bf16 moved rho by 0.005 (standard deviation
    #: over 24 heads), another seed moves it by 0.038.
    products: str = "fp32"

    def __post_init__(self) -> None:
        """Refuse numbers that no layer can have."""
        at_least(self, 1, "hidden")
        above_zero(self, "init_std")


@dataclass(frozen=True)
class SvrConfig:
    """Candidates of the cross-validation inside the training rows.

    With `nu` the regression is nu-SVR, which needs no epsilon. With `scaled` False
    features, kernel and labels are used as they are.
    """

    kernels: tuple[str, ...] = ("linear", "rbf")
    costs: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
    epsilons: tuple[float, ...] = (0.02, 0.1, 0.2, 0.4)
    nu: float | None = None
    scaled: bool = True
    folds: int = 5
    #: Cross-validations, each with folds of its own, that a choice averages; fewer,
    #: but at least 2, above 1,200 samples in all. On the rendered set five actions of
    #: six then choose the same kernel and cost with any seed.
    repeats: int = 10

    def __post_init__(self) -> None:
        """Refuse numbers that no SVR can have, and a grid without candidates."""
        for name in ("kernels", "costs") + (("epsilons",) if self.nu is None else ()):
            if not getattr(self, name):
                raise AqaError(f"{name}: expected one candidate or more, found none")
        if unknown := [name for name in self.kernels if name not in KERNELS]:
            raise AqaError(f"kernels: expected linear or rbf, found {unknown[0]!r}")
        above_zero(self, "costs")
        at_least(self, 0, "epsilons")
        at_least(self, 2, "folds")
        at_least(self, 1, "repeats")
        if self.nu is not None and not 0 < self.nu <= 1:
            raise AqaError(f"nu: expected above 0, at most 1, found {self.nu!r}")


#: The linear nu-SVR of Pirsiavash et al. 2014, nothing scaled: "nu-svr" by name.
NU_SVR = SvrConfig(
    kernels=("linear",), costs=(0.001,), epsilons=(), nu=0.5, scaled=False
)


@dataclass(frozen=True)
class SplitConfig:
    """Which samples train and which test; neither: the fixed split of the cache."""

    #: Number of folds, stratified by action, or the label column that holds the fold.
    folds: int | str | None = None
    #: A label column: all samples of one of its values are left out at a time.
    leave_one_out: str | None = None
    #: Deals the samples into a number of folds.
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a seed that no generator takes."""
        at_least(self, 0, "seed")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings that fits and comparisons have in common."""

    #: None: every action with labelled training videos, except AQA-7's trampoline.
    actions: tuple[str, ...] | None = None
    split: SplitConfig = SplitConfig()
    #: Scales `schedule` to this number of iterations; None: as it stands.
    iterations: int | None = None
    #: Seed of everything random; `head_seed` replaces it for weights and batches.
    seed: int = 0
    head_seed: int | None = None
    #: One of `LABEL_SCALES`.
    label_scale: str = "std"
    #: Standardise the inputs of LSTM heads; None: all features but C3D's.
    standardise: bool | None = None
    #: One of `LOSSES`.
    loss: str = "squared"
    schedule: Schedule = Schedule()
    lstm: LstmConfig = LstmConfig()
    svr: SvrConfig = SvrConfig()
    device: str = "auto"
    #: Training processes on CPU; None: one per usable processor.
    workers: int | None = None

    def __post_init__(self) -> None:
        """Check words and numbers; raises `AqaError`."""
        at_least(self, 0, "seed", "head_seed", "bootstrap_seed", "calibration_folds")
        at_least(self, 1, "iterations", "workers", "seeds", "bootstrap", "untrained")
        if (iterations := self.schedule.iterations) < 1:
            raise AqaError(
                f"schedule: iterations: expected at least 1, found {iterations}"
            )
        for name, values in CHOICES.items():
            found = getattr(self, name, values[0])
            if found not in values:
                words = " or ".join(values)
                raise AqaError(f"{name}: expected {words}, found {found!r}")

    @property
    def first_seed(self) -> int:
        """Seed of initial weights and batches, of the first where there are several."""
        return self.seed if self.head_seed is None else self.head_seed

    @property
    def scale(self) -> float:
        """Factor of the iterations and steps of every schedule."""
        if self.iterations is None:
            return 1.0
        return self.iterations / self.schedule.iterations

    def standardises(self, kind: str) -> bool:
        """Tell whether LSTM inputs of this kind of features are standardised.

        C3D's are not, as in the paper: they are activations of one scale.
        """
        return kind != "c3d" if self.standardise is None else self.standardise


@dataclass(frozen=True)
class FitConfig(TrainingConfig):
    """One fit: one model of all actions, or one model per action."""

    mode: str = "all-action"
    #: A kind of head, of `heads.HEADS`.
    head: str = "lstm"
    #: One of `LABELS`.
    labels: str = "final"
    #: Folds of the training rows whose held-out predictions calibrate intervals;
    #: 0 or 1: none, and scores have no interval.
    calibration_folds: int = 3


@dataclass(frozen=True)
class FineTuneSetting:
    """Fine-tuning on `n_train` samples (paper, section 5.3)."""

    n_train: int
    iterations: int
    step: int

    def __post_init__(self) -> None:
        """Refuse numbers that no training can have."""
        at_least(self, 2, "n_train")
        at_least(self, 1, "iterations", "step")


@dataclass(frozen=True)
class FineTuneConfig:
    """The settings of Table 4; `few` is for actions with few samples.

    All else in an action's schedule is that of `CompareConfig.schedule`. `test`
    samples of each action are kept for testing, rho is taken every `every` iterations.
    """

    settings: tuple[FineTuneSetting, ...] = (
        FineTuneSetting(25, 500, 100),
        FineTuneSetting(75, 1_200, 300),
        FineTuneSetting(125, 2_000, 500),
    )
    few: tuple[FineTuneSetting, ...] = (
        FineTuneSetting(15, 300, 60),
        FineTuneSetting(25, 500, 100),
        FineTuneSetting(35, 700, 140),
    )
    test: int = 50
    every: int = 100

    def __post_init__(self) -> None:
        """Refuse numbers that no experiment can have."""
        at_least(self, 1, "test", "every")


@dataclass(frozen=True)
class CompareConfig(TrainingConfig):
    """One run of the paper's experiments."""

    #: Repetitions, with the seeds from `first_seed` on.
    seeds: int = 1
    #: Add rows that average the predictions of all offsets at test.
    average_offsets: bool = False
    #: Add rows of the other label scales and losses, each compared with the paper's.
    variants: bool = False
    #: Untrained heads that zero-shot averages over.
    untrained: int = 40
    fine_tune: FineTuneConfig = FineTuneConfig()
    bootstrap: int = 2_000
    bootstrap_seed: int = 0


Config = TypeVar("Config", bound=TrainingConfig)

#: Options of the command line that belong to a nested settings object.
NESTED = {
    "hidden": "lstm",
    "init_std": "lstm",
    "products": "lstm",
    "learning_rate": "schedule",
    "batch": "schedule",
    "gamma": "schedule",
    "step": "schedule",
    "folds": "split",
    "leave_one_out": "split",
}


def configured(base: Config, file: Path | None, options: Mapping[str, Any]) -> Config:
    """Return `base` with the settings of a TOML file, then options that are not None.

    A step given as an option is that of the training at its final length. Raises
    `AqaError` for unknown names and values of another type.
    """
    config = base if file is None else read_toml(base, file)
    given = {name: value for name, value in options.items() if value is not None}
    plain = {name: value for name, value in given.items() if name not in NESTED}
    _check_names(plain, [*vars(config), *NESTED])
    hints = get_type_hints(type(config))
    for name, value in plain.items():
        if name in hints:
            plain[name] = _value(hints[name], value, f"{name}: ")
    config = replace(config, **plain)
    for name, section in NESTED.items():
        if name in given:
            hint = get_type_hints(type(getattr(config, section)))[name]
            value = _value(hint, given[name], f"{name}: ")
            if name == "step":
                value = max(1, round(value / config.scale))
            part = replace(getattr(config, section), **{name: value})
            config = replace(config, **{section: part})
    return config


def read_toml(base: Config, file: Path) -> Config:
    """Return `base` with the settings of a TOML file."""
    try:
        record = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AqaError(f"{file}: not TOML: {error}") from error
    result: Config = _value(type(base), record, f"{file}: ", base)
    return result


def _check_names(
    given: Collection[str], known: Collection[str], where: str = ""
) -> None:
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise AqaError(f"{where}unknown setting {name!r}; {hint}")


def _value(kind: Any, value: Any, where: str, base: Any = None) -> Any:
    """Return a value as this type; a table of TOML replaces fields of `base`."""
    if isinstance(value, Real) and not isinstance(value, bool):  # of NumPy, too
        value = int(value) if isinstance(value, Integral) else float(value)
    if get_origin(kind) is UnionType:
        choices = [each for each in get_args(kind) if each is not type(None)]
        kind = next((each for each in choices if type(value) is each), choices[0])
    if get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        return tuple(_value(get_args(kind)[0], each, where) for each in value)
    if kind is float and type(value) is int:
        return float(value)
    if kind in (int, float, str, bool) and type(value) is kind and value == value:
        return value
    if is_dataclass(kind) and type(value) is kind:
        return value
    if is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        _check_names(value, hints, where)
        given = {
            name: _value(
                hints[name], each, f"{where}{name}: ", getattr(base, name, None)
            )
            for name, each in value.items()
        }
        make: Any = kind
        lacking = [f.name for f in fields(make) if f.default is MISSING]
        if base is None and (absent := [n for n in lacking if n not in given]):
            raise AqaError(f"{where}expected {', '.join(absent)} as well")
        try:
            return make(**given) if base is None else replace(base, **given)
        except AqaError as error:
            raise AqaError(f"{where}{error}") from error
    wanted = "list" if get_origin(kind) is tuple else kind.__name__
    raise AqaError(f"{where}expected {wanted}, found {value!r}")


def unlike_paper(config: TrainingConfig, kind: str) -> list[str]:
    """Name the settings of LSTM training that differ from the paper's.

    `kind` is the kind of the features. `["hidden 64 (paper: 256)"]`
    """
    schedule = config.schedule.scaled(config.scale)
    lstm = replace(config.lstm, products=LstmConfig.products)
    found = vars(schedule) | vars(lstm)
    paper = vars(Schedule()) | vars(LstmConfig())
    for name in ("label_scale", "loss"):
        found[name], paper[name] = getattr(config, name), getattr(TrainingConfig, name)
    found["standardised inputs"] = "yes" if config.standardises(kind) else "no"
    paper["standardised inputs"] = "no"
    return [
        f"{name.replace('_', ' ')} {_shown(value)} (paper: {_shown(paper[name])})"
        for name, value in found.items()
        if value != paper[name]
    ]


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
