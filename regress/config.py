"""What a fit and an experiment are asked to do: every default, stated once.

Conventions: iterations and steps count batches; a batch counts videos (each one a
sequence of clips). Source: the paper, section 5. Imports nothing heavy, so that the
command line can show defaults.
"""

from dataclasses import dataclass, replace

#: Precisions of the two large products of an LSTM's iteration.
PRODUCTS = ("fp32", "bf16")
#: How labels are scaled per action: by the standard deviation alone (the paper,
#: section 5), or to zero mean and unit standard deviation.
LABEL_SCALES = ("std", "zscore")


@dataclass(frozen=True)
class Schedule:
    """Adam's schedule: the rate is multiplied by `gamma` every `step` iterations."""

    iterations: int = 20_000
    learning_rate: float = 0.001
    step: int = 3_000
    gamma: float = 0.5
    batch: int = 15

    def scaled(self, factor: float) -> "Schedule":
        """Make the same course longer or shorter: iterations and step, at least 1."""
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
    #: What the two large products of an iteration multiply, of `PRODUCTS`: "bf16" where
    #: the hardware has it. On planted data bf16 moved rho by 0.005 (standard deviation
    #: over 24 heads), another seed moves it by 0.038.
    products: str = "fp32"


@dataclass(frozen=True)
class SvrConfig:
    """What cross-validation inside the training list chooses from.

    With `nu` the regression is nu-SVR and finds its own epsilon. With `scaled` False
    nothing is: neither features nor kernel nor labels.
    """

    kernels: tuple[str, ...] = ("linear", "rbf")
    costs: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    epsilons: tuple[float, ...] = (0.05, 0.1, 0.2)
    nu: float | None = None
    scaled: bool = True
    folds: int = 5


#: The linear nu-SVR of Pirsiavash et al. 2014, nothing scaled: "nu-svr" by name.
NU_SVR = SvrConfig(
    kernels=("linear",), costs=(0.001,), epsilons=(), nu=0.5, scaled=False
)
#: The SVR that comes with features, by their kind.
SVR_PRESETS = {"c3d": SvrConfig(), "pose-dct": NU_SVR}


@dataclass(frozen=True)
class SplitConfig:
    """Which samples train and which test; neither: the fixed split of the cache."""

    #: Number of folds, stratified by action, or the label column that holds the fold.
    folds: int | str | None = None
    #: A label column: all samples of one of its values are left out at a time.
    leave_one_out: str | None = None
    #: Deals the samples into a number of folds.
    seed: int = 0


@dataclass(frozen=True)
class FitConfig:
    """One fit: a model of all actions together, or one of each."""

    mode: str = "all-action"
    #: "lstm", "svr" as `svr` says, or "nu-svr", the preset, for single actions.
    head: str = "lstm"
    #: None: every action with labelled training videos, trampoline left aside.
    actions: tuple[str, ...] | None = None
    #: Iterations of `schedule`, whose steps are scaled alike. None: as it stands.
    iterations: int | None = None
    seed: int = 0
    #: What an LSTM's steps are labelled with: "final" or "incremental".
    labels: str = "final"
    #: Further LSTMs, trained without a part of the training list each, to learn how
    #: far scores are off; 0: none, and scores come without an interval.
    calibration_folds: int = 3
    schedule: Schedule = Schedule()
    lstm: LstmConfig = LstmConfig()
    svr: SvrConfig = SvrConfig()
    device: str = "auto"
    #: Training processes on CPU; None: as many as torch would use threads.
    workers: int | None = None


@dataclass(frozen=True)
class FineTuneSetting:
    """Fine-tuning on `n_train` samples (paper, section 5.3)."""

    n_train: int
    iterations: int
    step: int


@dataclass(frozen=True)
class FineTuneConfig:
    """The settings of Table 4: `few` is for actions with few samples.

    The other numbers of an action's schedule are those of `CompareConfig.schedule`.
    `test` samples of each action are kept for testing, rho is taken every `every`
    iterations.
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


@dataclass(frozen=True)
class CompareConfig:
    """One run of the paper's experiments."""

    seeds: int = 1
    #: Iterations of `schedule`; all others are scaled alike. None: as they stand.
    iterations: int | None = None
    #: None: every action of the cache that can be judged, trampoline left aside.
    actions: tuple[str, ...] | None = None
    #: Add rows that average the predictions of all offsets at test.
    average_offsets: bool = False
    schedule: Schedule = Schedule()
    fine_tune: FineTuneConfig = FineTuneConfig()
    lstm: LstmConfig = LstmConfig()
    svr: SvrConfig = SvrConfig()
    device: str = "auto"
    #: Training processes on CPU; None: as many as torch would use threads.
    workers: int | None = None
    bootstrap: int = 2_000
    bootstrap_seed: int = 0

    @property
    def scale(self) -> float:
        """What every schedule's iterations and steps are multiplied by."""
        if self.iterations is None:
            return 1.0
        return self.iterations / self.schedule.iterations
