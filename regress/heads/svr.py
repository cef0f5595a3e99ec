"""Which SVR: kernel, cost and epsilon chosen inside the training rows.

Conventions: samples are float64 (n, D), one a video; kernels count a column as
`gamma`: linear `gamma * a @ b`, rbf `exp(-gamma * |a - b|^2)`. Videos are dealt into
folds within each action; each fold is predicted by what the others trained, its
standardisation included. A candidate is worth the Spearman correlation of these
held-out predictions, the mean over actions.

The SVR head: clip features averaged, standardised, one support vector machine.

Conventions: a sample is one copy of a video, its features averaged over the clips and
standardised on the training samples (mean, standard deviation with ddof 0; a column
that never changes is left at zero). Predictions are in units of scaled labels.

Kernel, cost and epsilon are chosen by cross-validation inside the training rows (see
`svr_choice`), where a video is its copy 0, as in testing; the first of equals wins.
The SVR chosen is then fitted to all copies, at the cost over their number: C near
copies of a video, each at a cost of 1 / C, weigh what one does at 1. Choosing on all
copies took five times as long on nine planted sets of 60 to 140 videos (far more on
larger ones: kernels are quadratic) and chose no better: test rho 0.818 to 0.816.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVR, NuSVR

from aqa.cache.errors import AqaError
from aqa.regress.config import SvrConfig
from aqa.regress.data import FeatureSet, Floats, Rows, deal
from aqa.regress.evaluation.metrics import spearman

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


#: Fewer copies are fitted where all would be more samples: kernels are quadratic.
MOST_SAMPLES = 10_000

_DEFAULT = SvrConfig()


@dataclass(frozen=True, eq=False)
class SvrHead:
    """A fitted SVR as plain arrays.

    vectors: float32 (S, D) standardised support vectors, coefficients: (S,); a linear
    head has one vector, its weights, and the coefficient 1. `worth` is the mean
    correlation that won the choice; `held_out` (n,) are the predictions it comes
    from, of copy 0 of each training row (empty in a head that was read from a file).
    `converged` is False where the solver stopped at its last iteration.
    """

    choice: Choice
    gamma: float
    scaling: Scaling
    vectors: NDArray[np.float32]
    coefficients: Floats
    intercept: float
    worth: float
    held_out: Floats
    converged: bool = True

    def predict(self, x: NDArray[np.float32]) -> Floats:
        """Predictions (n,) for features (n, clips, D)."""
        width = len(self.scaling.mean)
        if x.ndim != 3 or x.shape[-1] != width:
            raise AqaError(
                f"the head takes features (videos, clips, {width}); found {x.shape}"
            )
        samples = self.scaling(averaged(x))
        vectors = self.vectors.astype(np.float64)
        kernel = kernel_matrix(samples, vectors, self.choice.kernel, self.gamma)
        return np.asarray(kernel @ self.coefficients + self.intercept)


def averaged(x: NDArray[np.float32]) -> Floats:
    """Mean over the clips, (..., clips, D) -> float64 (..., D)."""
    return np.asarray(x.mean(axis=-2, dtype=np.float64))


def fit_svr(
    features: FeatureSet,
    targets: Floats,
    rows: Sequence[int] | Rows,
    config: SvrConfig = _DEFAULT,
    seed: int = 0,
) -> SvrHead:
    """Choose and fit an SVR on these rows alone; `seed` deals the folds.

    targets: (N,) scaled labels. Raises `AqaError` for rows without a label, an
    unknown kernel, and rows of several actions where nothing is to be scaled.
    """
    chosen = np.asarray(rows, dtype=np.int64)
    labels, unit = _labels(features, targets, chosen, config.scaled)
    choices = candidates(config)
    actions = features.action[chosen]
    folds = deal(actions, config.folds, seed)
    single = _samples(features, chosen, 1)
    guesses = held_out_predictions(single, labels, folds, choices, config.scaled)
    worths = [worth(labels, guess, actions) for guess in guesses]
    best = int(np.argmax(worths))
    head = _fit(features, chosen, labels, choices[best], config.scaled)
    return replace(
        head,
        coefficients=head.coefficients / unit,
        intercept=head.intercept / unit,
        worth=worths[best],
        held_out=guesses[best] / unit,
    )


def _fit(
    features: FeatureSet, rows: Rows, labels: Floats, choice: Choice, scaled: bool
) -> SvrHead:
    """Fit the choice to all copies of the rows, in the unit of the labels."""
    width = features.x.shape[-1]
    copies = min(features.x.shape[1], max(1, MOST_SAMPLES // len(rows)))
    samples = _samples(features, rows, copies)
    scaling = Scaling.of(samples, scaled)
    samples = scaling(samples)
    gamma = width_factor(width, scaled)
    kernel = kernel_matrix(samples, samples, choice.kernel, gamma)
    machine = solve(kernel, np.repeat(labels, copies), choice, copies)
    vectors, coefficients = samples[machine.support_], machine.dual_coef_[0]
    intercept = float(machine.intercept_[0])
    if choice.kernel == "linear":
        weights = coefficients[None] @ vectors
        vectors, coefficients = weights, np.ones(1)
    return SvrHead(
        choice=choice,
        gamma=gamma,
        scaling=scaling,
        vectors=vectors.astype(np.float32),
        coefficients=coefficients,
        intercept=intercept,
        worth=np.nan,
        held_out=np.empty(0),
        converged=machine.fit_status_ == 0,
    )


def _samples(features: FeatureSet, rows: Rows, copies: int) -> Floats:
    """The first copies of each row, averaged over clips: (rows * copies, D)."""
    samples = np.empty((len(rows), copies, features.x.shape[-1]))
    for place, row in enumerate(rows):  # one by one: features are held once
        samples[place] = averaged(features.x[row, :copies])
    return samples.reshape(-1, samples.shape[-1])


def _labels(
    features: FeatureSet, targets: Floats, rows: Rows, scaled: bool
) -> tuple[Floats, float]:
    """What the machine is fitted to, and how many of its units a scaled label has."""
    labels = targets[rows]
    if len(rows) == 0 or not np.isfinite(labels).all():
        bad = [str(key) for key in features.key[rows[~np.isfinite(labels)]]]
        raise AqaError(f"no label to train on: {', '.join(bad[:5]) or 'no rows'}")
    if scaled:
        return labels, 1.0
    scores = features.score[rows]
    unit = float(scores @ labels / (labels @ labels))
    if not np.allclose(scores, unit * labels):
        raise AqaError(
            "an SVR with nothing scaled learns scores in judges' units: "
            "fit it to one action at a time"
        )
    return scores, unit
