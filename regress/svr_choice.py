"""Which SVR: kernel, cost and epsilon chosen inside the training rows.

Conventions: samples are float64 (n, D), one a video; kernels count a column as
`gamma`: linear `gamma * a @ b`, rbf `exp(-gamma * |a - b|^2)`. Videos are dealt into
folds within each action; each fold is predicted by what the others trained, its
standardisation included. A candidate is worth the Spearman correlation of these
held-out predictions, the mean over actions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVR, NuSVR

from aqa.cache.errors import AqaError
from aqa.regress.config import SvrConfig
from aqa.regress.data import Floats
from aqa.regress.metrics import spearman

KERNELS = ("linear", "rbf")
#: The solver stops here; costs that need more overfit, and lose in the choice.
MOST_ITERATIONS = 200_000


@dataclass(frozen=True)
class Choice:
    """One candidate: with `nu` it is nu-SVR, which has no epsilon (NaN)."""

    kernel: str
    cost: float
    epsilon: float
    nu: float | None = None


@dataclass(frozen=True, eq=False)
class Scaling:
    """What standardises samples: learnt on training samples alone."""

    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, samples: Floats, scaled: bool) -> "Scaling":
        """Mean and deviation (ddof 0; 1 where zero) of columns, or no scaling."""
        if not scaled:
            width = samples.shape[1]
            return cls(np.zeros(width), np.ones(width))
        deviation = samples.std(0)
        return cls(samples.mean(0), np.where(deviation > 0, deviation, 1.0))

    def __call__(self, samples: Floats) -> Floats:
        """Standardise (n, D)."""
        return np.asarray((samples - self.mean) / self.deviation)


def candidates(config: SvrConfig) -> list[Choice]:
    """All choices of a configuration, in the order it lists them."""
    unknown = set(config.kernels) - set(KERNELS)
    if unknown:
        raise AqaError(
            f"SVR kernel {', '.join(sorted(unknown))}: expected {' or '.join(KERNELS)}"
        )
    epsilons = (np.nan,) if config.nu is not None else config.epsilons
    return [
        Choice(kernel, cost, epsilon, config.nu)
        for kernel, cost, epsilon in product(config.kernels, config.costs, epsilons)
    ]


def width_factor(width: int, scaled: bool) -> float:
    """Gamma: 1 / D, so that a cost means the same to both kernels and any D."""
    return 1 / width if scaled else 1.0


def kernel_matrix(a: Floats, b: Floats, kernel: str, gamma: float) -> Floats:
    """The kernel of samples (n, D) and (m, D): (n, m)."""
    result = np.asarray(a @ b.T)  # and then in place: it may be large
    if kernel == "linear":
        result *= gamma
        return result
    result *= -2
    result += (a * a).sum(1)[:, None]
    result += (b * b).sum(1)
    np.maximum(result, 0, out=result)
    result *= -gamma
    return np.exp(result, out=result)


def solve(kernel: Floats, labels: Floats, choice: Choice, copies: int = 1) -> Any:
    """Fit scikit-learn's SVR to a kernel matrix (n, n), the cost over `copies`."""
    cost = choice.cost / copies
    common = {"kernel": "precomputed", "cache_size": 500, "max_iter": MOST_ITERATIONS}
    if choice.nu is not None:
        machine = NuSVR(C=cost, nu=choice.nu, **common)
    else:
        machine = SVR(C=cost, epsilon=choice.epsilon, **common)
    with catch_warnings():
        simplefilter("ignore", ConvergenceWarning)
        return machine.fit(kernel, labels)


def held_out_predictions(
    samples: Floats,
    labels: Floats,
    folds: NDArray[np.int64],
    choices: Sequence[Choice],
    scaled: bool,
) -> Floats:
    """Each video predicted by the other folds, (choices, n)."""
    gamma = width_factor(samples.shape[1], scaled)
    predicted = np.empty((len(choices), len(samples)))
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        scaling = Scaling.of(samples[inside], scaled)
        train, test = scaling(samples[inside]), scaling(samples[outside])
        for kernel in dict.fromkeys(choice.kernel for choice in choices):
            own = kernel_matrix(train, train, kernel, gamma)
            across = kernel_matrix(test, train, kernel, gamma)
            for number, choice in enumerate(choices):
                if choice.kernel == kernel:
                    machine = solve(own, labels[inside], choice)
                    predicted[number, outside] = machine.predict(across)
    return predicted


def worth(labels: Floats, predicted: Floats, actions: NDArray[Any]) -> float:
    """Spearman within each action, the mean over actions; where undefined, -1.

    A candidate that predicts one value for all must not win.
    """
    rhos = [
        spearman(labels[actions == action], predicted[actions == action])
        for action in np.unique(actions)
    ]
    return float(np.mean(np.nan_to_num(rhos, nan=-1.0)))
