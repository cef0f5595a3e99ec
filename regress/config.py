"""What a fit and an experiment are asked to do: every default, stated once.

Conventions: iterations and steps count batches; a batch counts videos (each one a
sequence of clips). Source: the paper, section 5. Imports nothing heavy, so that the
command line can show defaults.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Adam's schedule: the rate is multiplied by `gamma` every `step` iterations."""

    iterations: int = 20_000
    learning_rate: float = 0.001
    step: int = 3_000
    gamma: float = 0.5
    batch: int = 15


@dataclass(frozen=True)
class LstmConfig:
    """One LSTM layer and one fully connected output, Gaussian initial weights."""

    hidden: int = 256
    init_std: float = 0.1


@dataclass(frozen=True)
class SvrConfig:
    """What cross-validation inside the training list chooses from."""

    kernels: tuple[str, ...] = ("linear", "rbf")
    costs: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    epsilons: tuple[float, ...] = (0.05, 0.1, 0.2)
    folds: int = 5


@dataclass(frozen=True)
class FineTuneSetting:
    """Fine-tuning on `n_train` samples (paper, section 5.3)."""

    n_train: int
    iterations: int
    step: int


#: For the four actions with many samples, and for the two synchronised dives.
FINE_TUNE = (
    FineTuneSetting(25, 500, 100),
    FineTuneSetting(75, 1_200, 300),
    FineTuneSetting(125, 2_000, 500),
)
FINE_TUNE_SMALL = (
    FineTuneSetting(15, 300, 60),
    FineTuneSetting(25, 500, 100),
    FineTuneSetting(35, 700, 140),
)
FINE_TUNE_TEST = 50
FINE_TUNE_EVERY = 100


@dataclass(frozen=True)
class CompareConfig:
    """One run of the paper's experiments."""

    seeds: int = 1
    schedule: Schedule = Schedule()
    lstm: LstmConfig = LstmConfig()
    svr: SvrConfig = SvrConfig()
    device: str = "auto"
    #: Training processes on CPU; None: one per processor.
    workers: int | None = None
    bootstrap: int = 2_000
