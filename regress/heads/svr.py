"""SVR heads: clip features averaged, standardised, one support vector machine.

Conventions: a sample is one copy of a video, float64 (D,): its features averaged over
the real clips and standardised on the training samples (`data.scaling_std`). Kernels
count a column as `gamma` = 1 / D, so that a cost means the same for any D: linear
`gamma * a @ b`, rbf `exp(-gamma * |a - b|^2)`. With `SvrConfig.scaled` False neither
features nor kernel nor labels are scaled: the machine learns judges' units.

Choice. Kernel, cost and epsilon are chosen by cross-validation inside the training
rows, stratified by action and repeated with new folds, where a video is its copy 0 as
in testing; standardisation is learned inside each fold. The loss of a candidate is
(1 - Spearman's rho) + RMSE / standard deviation of the labels, each within an action,
averaged over actions and repetitions: ranks and units weigh alike, since predicting
the mean costs 1 in either. The lowest loss wins, of equals the first.

The chosen machine is then fitted to all copies at the cost over their number: C near
copies of a video at a cost of 1 / C weigh as much as one at 1. Choosing on all copies
took five times as long on nine planted sets of 60 to 140 videos (far more on larger
ones: kernels are quadratic) and chose no better: test rho 0.818 against 0.816.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVR, NuSVR

from aqa.cache.console import Progress
from aqa.cache.errors import AqaError
from aqa.regress.config import NU_SVR, FitConfig, SvrConfig
from aqa.regress.data import FeatureSet, Floats, Rows, deal, scaling_std
from aqa.regress.evaluation.metrics import spearman
from aqa.regress.heads.registry import (
    Clips,
    Head,
    Part,
    averaged,
    axis_length,
    check_arrays,
    check_width,
)

KERNELS = ("linear", "rbf")
#: The solver stops here; costs that need more overfit, and are not chosen.
MOST_ITERATIONS = 200_000
#: Fewer copies are fitted where all would be more samples: kernels are quadratic.
MOST_SAMPLES = 10_000
#: Below this ratio of predicted to true standard deviation on its own training samples
#: a machine without scaling has learned next to nothing.
LEAST_SPREAD = 0.1


@dataclass(frozen=True)
class Choice:
    """One candidate: with `nu` it is nu-SVR, which has no epsilon (NaN)."""

    kernel: str
    cost: float
    epsilon: float
    nu: float | None = None


@dataclass(frozen=True, eq=False)
class Scaling:
    """Standardisation of samples, learned on training samples alone; both (D,)."""

    mean: Floats
    std: Floats

    @classmethod
    def of(cls, samples: Floats, scaled: bool) -> "Scaling":
        """Learn from samples (n, D); the identity unless `scaled`."""
        width = samples.shape[1]
        if not scaled:
            return cls(np.zeros(width), np.ones(width))
        mean = samples.mean(0)
        return cls(mean, scaling_std(mean, samples.var(0), len(samples)))

    def __call__(self, samples: Floats) -> Floats:
        """Standardise (n, D)."""
        return np.asarray((samples - self.mean) / self.std)


@dataclass(frozen=True, eq=False)
class SvrHead(Head):
    """A fitted SVR as plain arrays.

    vectors: float32 (S, D) standardised support vectors, coefficients: (S,); a linear
    head has one vector, its weights, and the coefficient 1. `cv_loss` is the loss that
    won the choice, NaN where there was one candidate only; `notes` are warnings of the
    fit, `converged` tells whether the solver ended by itself.
    """

    kind = "svr"
    choice: Choice
    gamma: float
    scaling: Scaling
    vectors: NDArray[np.float32]
    coefficients: Floats
    intercept: float
    cv_loss: float = math.nan
    notes: tuple[str, ...] = ()
    converged: bool = True

    def predict(self, x: NDArray[np.float32], clips: Clips = None) -> Floats:
        """Return predictions (n,) for features (n, clips, D)."""
        check_width(x, len(self.scaling.mean))
        samples = self.scaling(averaged(x, clips))
        vectors = self.vectors.astype(np.float64)
        kernel = kernel_matrix(samples, vectors, self.choice.kernel, self.gamma)
        return np.asarray(kernel @ self.coefficients + self.intercept)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return standardisation, vectors and coefficients."""
        return {
            "mean": self.scaling.mean,
            "deviation": self.scaling.std,
            "vectors": self.vectors,
            "coefficients": self.coefficients,
            "intercept": np.array(self.intercept),
        }

    def facts(self) -> dict[str, Any]:
        """Return the choice, gamma and the loss of the choice."""
        choice = asdict(self.choice)
        choice["epsilon"] = _or_none(self.choice.epsilon)
        return {
            "choice": choice,
            "gamma": self.gamma,
            "cv_loss": _or_none(self.cv_loss),
        }

    def warnings(self) -> list[str]:
        """Return the warnings of the fit."""
        return list(self.notes)


def fit_heads(
    features: FeatureSet,
    parts: Sequence[Part],
    config: FitConfig,
    store: Path,
    progress: Progress,
) -> list[Head]:
    """Choose and fit one SVR per part; "nu-svr" is the preset `NU_SVR`."""
    wanted = NU_SVR if config.head == "nu-svr" else config.svr
    heads: list[Head] = []
    for done, part in enumerate(parts):
        progress(done, len(parts), f"fitting {part.name}")
        targets = np.full(len(features.x), np.nan)
        targets[part.rows] = part.labels
        heads.append(fit_svr(features, targets, part.rows, wanted, config.seed))
    progress(len(parts), len(parts), "SVRs fitted")
    return heads


def fit_svr(
    features: FeatureSet,
    targets: Floats,
    rows: Sequence[int] | Rows,
    config: SvrConfig | None = None,
    seed: int = 0,
) -> SvrHead:
    """Choose and fit an SVR on these rows alone; `seed` deals the folds.

    targets: (N,) scaled labels. Raises `AqaError` for rows without a label, an
    unknown kernel, and rows of several actions where nothing is to be scaled.
    """
    config = config or SvrConfig()
    chosen = np.asarray(rows, dtype=np.int64)
    labels, slope, offset = _labels(features, targets, chosen, config.scaled)
    choices = candidates(config)
    best, losses = 0, np.array([math.nan])
    if len(choices) > 1:
        losses = selection_losses(features, chosen, labels, choices, config, seed)
        best = int(np.argmin(losses))
    head = _fit(features, chosen, labels, choices[best], config)
    return replace(
        head,
        coefficients=head.coefficients / slope,
        intercept=(head.intercept - offset) / slope,
        cv_loss=float(losses[best]),
    )


def candidates(config: SvrConfig) -> list[Choice]:
    """Return all choices of a configuration, in the order it lists them."""
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


def selection_losses(
    features: FeatureSet,
    rows: Rows,
    labels: Floats,
    choices: Sequence[Choice],
    config: SvrConfig,
    seed: int,
) -> Floats:
    """Return the cross-validated loss of each candidate, the mean of all repeats."""
    samples = features.clip_means(rows)
    actions = features.action[rows]
    losses = np.zeros(len(choices))
    for repeat in range(config.repeats):
        folds = deal(actions, config.folds, seed + repeat * 1_000_003)
        predicted = held_out_predictions(samples, labels, folds, choices, config.scaled)
        losses += [selection_loss(labels, one, actions) for one in predicted]
    return np.asarray(losses / config.repeats)


def selection_loss(labels: Floats, predicted: Floats, actions: NDArray[Any]) -> float:
    """Return (1 - rho) + RMSE / std within each action, the mean over actions.

    An undefined rho counts as -1: a candidate that predicts one value must not win.
    Actions with equal labels are left out.
    """
    losses = []
    for action in np.unique(actions):
        truth, made = labels[actions == action], predicted[actions == action]
        if truth.std() > 0:
            rho = spearman(truth, made)
            rmse = math.sqrt(float(np.mean((made - truth) ** 2)))
            losses.append(2 if math.isnan(rho) else 1 - rho)
            losses[-1] += rmse / float(truth.std())
    return float(np.mean(losses)) if losses else 0.0


def held_out_predictions(
    samples: Floats,
    labels: Floats,
    folds: NDArray[np.int64],
    choices: Sequence[Choice],
    scaled: bool,
) -> Floats:
    """Predict each sample from the other folds, (choices, n)."""
    gamma = _gamma(samples.shape[1], scaled)
    predicted = np.empty((len(choices), len(samples)))
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        if not inside.any():  # one sample: no other fold
            predicted[:, outside] = labels.mean()
            continue
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


def kernel_matrix(a: Floats, b: Floats, kernel: str, gamma: float) -> Floats:
    """Return the kernel of samples (n, D) and (m, D): (n, m)."""
    result = np.asarray(a @ b.T)  # then in place: it may be large
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
    """Fit scikit-learn's SVR to a kernel matrix (n, n), at the cost over `copies`."""
    cost = choice.cost / copies
    common = {"kernel": "precomputed", "cache_size": 500, "max_iter": MOST_ITERATIONS}
    if choice.nu is not None:
        machine = NuSVR(C=cost, nu=choice.nu, **common)
    else:
        machine = SVR(C=cost, epsilon=choice.epsilon, **common)
    with catch_warnings():
        simplefilter("ignore", ConvergenceWarning)
        return machine.fit(kernel, labels)


def _gamma(width: int, scaled: bool) -> float:
    return 1 / width if scaled else 1.0


def _fit(
    features: FeatureSet, rows: Rows, labels: Floats, choice: Choice, config: SvrConfig
) -> SvrHead:
    """Fit the choice to all copies of the rows, in the unit of the labels."""
    copies = min(features.x.shape[1], max(1, MOST_SAMPLES // len(rows)))
    samples = features.clip_means(rows, copies)
    scaling = Scaling.of(samples, config.scaled)
    samples = scaling(samples)
    gamma = _gamma(samples.shape[1], config.scaled)
    kernel = kernel_matrix(samples, samples, choice.kernel, gamma)
    repeated = np.repeat(labels, copies)
    machine = solve(kernel, repeated, choice, copies)
    converged = bool(machine.fit_status_ == 0)
    spread = float(machine.predict(kernel).std()) if not config.scaled else math.inf
    vectors, coefficients = samples[machine.support_], machine.dual_coef_[0]
    if choice.kernel == "linear":
        vectors, coefficients = coefficients[None] @ vectors, np.ones(1)
    return SvrHead(
        choice=choice,
        gamma=gamma,
        scaling=scaling,
        vectors=vectors.astype(np.float32),
        coefficients=coefficients,
        intercept=float(machine.intercept_[0]),
        notes=tuple(_notes(choice, config, converged, samples, labels, spread)),
        converged=converged,
    )


def _notes(
    choice: Choice,
    config: SvrConfig,
    converged: bool,
    samples: Floats,
    labels: Floats,
    spread: float,
) -> list[str]:
    """Return what should be known of a fit."""
    notes = []
    if not converged:
        notes.append(
            f"the SVR stopped after {MOST_ITERATIONS:,} iterations, before it converged"
        )
    if len(config.costs) > 1 and choice.cost in (min(config.costs), max(config.costs)):
        end = "smallest" if choice.cost == min(config.costs) else "largest"
        notes.append(
            f"the SVR chose the {end} cost of its grid, {choice.cost:g}: a wider grid "
            "may do better"
        )
    if spread < LEAST_SPREAD * float(labels.std()):
        size = float(np.sqrt(np.mean((samples - samples.mean(0)) ** 2)))
        notes.append(
            f"nothing is scaled for this SVR, and its cost of {choice.cost:g} is too "
            f"small for features that vary by {size:.2g} (its source has pixels): "
            "predictions hardly vary. Use --head svr, or features in pixels"
        )
    return notes


def _labels(
    features: FeatureSet, targets: Floats, rows: Rows, scaled: bool
) -> tuple[Floats, float, float]:
    """Return the labels to fit (n,), and slope and offset from scaled labels to them.

    These are the scaled labels themselves, or judges' scores where nothing is scaled.
    """
    labels = targets[rows]
    if len(rows) == 0 or not np.isfinite(labels).all():
        bad = [str(key) for key in features.key[rows[~np.isfinite(labels)]]]
        raise AqaError(f"no label to train on: {', '.join(bad[:5]) or 'no rows'}")
    if scaled:
        return labels, 1.0, 0.0
    scores = features.score[rows]
    slope, offset = 1.0, 0.0
    if np.ptp(labels) > 0:
        centred = labels - labels.mean()
        slope = float(scores @ centred / (centred @ centred))
        offset = float(scores.mean() - slope * labels.mean())
    if len(set(features.action[rows])) > 1:
        raise AqaError(
            "an SVR with nothing scaled learns scores in judges' units: "
            "fit it to one action at a time"
        )
    return scores, slope, offset


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def read_head(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> SvrHead:
    """Make the head of a model file."""
    width, count = axis_length(arrays, "vectors", 1), axis_length(arrays, "vectors", 0)
    check_arrays(
        arrays,
        {
            "mean": ((width,), "float64"),
            "deviation": ((width,), "float64"),
            "vectors": ((count, width), "float32"),
            "coefficients": ((count,), "float64"),
            "intercept": ((), "float64"),
        },
    )
    if not (arrays["deviation"] > 0).all():
        raise AqaError("deviation: the standard deviation of a column is above 0")
    choice = facts.get("choice")
    kernel = choice.get("kernel") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or kernel not in KERNELS:
        raise AqaError(
            f"kernel {str(kernel)[:60]!r}; {' and '.join(KERNELS)} are known"
        )
    nu, epsilon = choice.get("nu"), choice.get("epsilon")
    return SvrHead(
        choice=Choice(
            kernel=kernel,
            cost=_number(choice, "cost"),
            epsilon=math.nan if epsilon is None else _number(choice, "epsilon"),
            nu=None if nu is None else _number(choice, "nu"),
        ),
        gamma=_number(facts, "gamma"),
        scaling=Scaling(arrays["mean"], arrays["deviation"]),
        vectors=arrays["vectors"],
        coefficients=arrays["coefficients"],
        intercept=float(arrays["intercept"]),
    )


def _number(record: Mapping[str, Any], name: str) -> float:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AqaError(f"{name}: expected a number, found {str(value)[:60]!r}")
    if not math.isfinite(value):
        raise AqaError(f"{name}: expected a finite number, found {value}")
    return float(value)
