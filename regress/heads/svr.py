"""SVR heads: clip features averaged, standardised, one support vector machine.

Conventions: a sample is one copy of a video, float64 (D,): its features averaged over
the real clips and standardised on the training samples (`data.scaling_std`). Kernels
count a column as `gamma` = 1 / D, so that a cost means the same for any D: linear
`gamma * a @ b`, rbf `exp(-gamma * |a - b|^2)`. With `SvrConfig.scaled` False neither
features, kernel nor labels are scaled: the machine learns judges' units.

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
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel
from sklearn.svm import SVR, NuSVR

from aqa.cache.console import Progress
from aqa.cache.errors import AqaError
from aqa.regress.config import KERNELS, NU_SVR, FitConfig, SvrConfig
from aqa.regress.data import FeatureSet, Floats, Rows, deal, scaling_std
from aqa.regress.evaluation.metrics import spearman
from aqa.regress.heads.base import (
    Clips,
    Head,
    Part,
    averaged,
    axis_length,
    check_arrays,
    check_width,
)

#: The solver stops here; costs that need more overfit, and are not chosen.
MOST_ITERATIONS = 200_000
#: Fewer copies are fitted where all would be more samples: kernels are quadratic.
MOST_SAMPLES = 10_000
#: Samples in all repetitions of the cross-validation.
MOST_REPEATED = 1_200
#: Below this ratio of predicted to true standard deviation on its own training samples
#: a machine without scaling has learned next to nothing.
LEAST_SPREAD = 0.1


@dataclass(frozen=True)
class Choice:
    """One candidate: with `nu` it is nu-SVR, which has no epsilon (None)."""

    kernel: str
    cost: float
    epsilon: float | None
    nu: float | None = None


@dataclass(frozen=True, eq=False)
class SvrHead(Head):
    """A fitted SVR as plain arrays.

    mean, std: float64 (D,), the standardisation; vectors: float32 (S, D) standardised
    support vectors, coefficients: (S,). A linear head has one vector, its weights, and
    the coefficient 1. `cv_loss` is the loss of the choice (None: nothing to choose);
    `notes` are warnings of the fit, `converged` tells whether the solver ended.
    """

    kind = "svr"
    choice: Choice
    gamma: float
    mean: Floats
    std: Floats
    vectors: NDArray[np.float32]
    coefficients: Floats
    intercept: float
    cv_loss: float | None = None
    notes: tuple[str, ...] = ()
    converged: bool = True

    def predict(self, x: NDArray[np.float32], clips: Clips = None) -> Floats:
        """Return predictions (n,) for features (n, clips, D)."""
        check_width(x, len(self.mean))
        if len(x) == 0:
            return np.empty(0)
        samples = (averaged(x, clips) - self.mean) / self.std
        vectors = self.vectors.astype(np.float64)
        kernel = kernel_matrix(samples, vectors, self.choice.kernel, self.gamma)
        return np.asarray(kernel @ self.coefficients + self.intercept)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return standardisation, vectors and coefficients."""
        return {
            "mean": self.mean,
            "deviation": self.std,
            "vectors": self.vectors,
            "coefficients": self.coefficients,
            "intercept": np.array(self.intercept),
        }

    def facts(self) -> dict[str, Any]:
        """Return the choice, gamma and the loss of the choice."""
        choice = asdict(self.choice)
        return {"choice": choice, "gamma": self.gamma, "cv_loss": self.cv_loss}

    def choices(self) -> dict[str, Any]:
        """Return the choice, and whether the solver ended."""
        return asdict(self.choice) | {"converged": self.converged}

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

    targets: (N,) scaled labels. Raises `AqaError` for rows without a label and for an
    unknown kernel.
    """
    config = config or SvrConfig()
    chosen = np.asarray(rows, dtype=np.int64)
    labels = targets[chosen]
    if len(chosen) == 0 or not np.isfinite(labels).all():
        bad = [str(key) for key in features.key[chosen[~np.isfinite(labels)]]]
        raise AqaError(f"no label to train on: {', '.join(bad[:5]) or 'no rows'}")
    units = 1.0
    if not config.scaled:
        units = float(features.score[chosen].std() / (labels.std() or 1.0)) or 1.0
    labels = labels * units
    choices = candidates(config)
    samples, actions = features.clip_means(chosen), features.action[chosen]
    losses = np.zeros(len(choices))
    repeats = min(config.repeats, max(2, MOST_REPEATED // len(chosen)))
    for repeat in range(repeats if len(choices) > 1 else 0):
        folds = deal(actions, config.folds, seed + repeat * 1_000_003)
        predicted = held_out_predictions(samples, labels, folds, choices, config.scaled)
        losses += [selection_loss(labels, one, actions) for one in predicted]
    best = int(np.argmin(losses))
    head = _fit(features, chosen, labels, choices[best], config)
    return replace(
        head,
        coefficients=head.coefficients / units,
        intercept=head.intercept / units,
        cv_loss=float(losses[best] / repeats) if len(choices) > 1 else None,
    )


def candidates(config: SvrConfig) -> list[Choice]:
    """Return all choices of a configuration, in the order it lists them."""
    epsilons = (None,) if config.nu is not None else config.epsilons
    return [
        Choice(kernel, cost, epsilon, config.nu)
        for kernel, cost, epsilon in product(config.kernels, config.costs, epsilons)
    ]


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
            rmse = float(np.sqrt(np.mean((made - truth) ** 2)))
            losses.append(1 - (-1 if math.isnan(rho) else rho) + rmse / truth.std())
    return float(np.mean(losses)) if losses else 0.0


def held_out_predictions(
    samples: Floats,
    labels: Floats,
    folds: NDArray[np.int64],
    choices: Sequence[Choice],
    scaled: bool,
) -> Floats:
    """Predict each sample from the other folds, (choices, n)."""
    predicted = np.full((len(choices), len(samples)), labels.mean())
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        if not inside.any():  # a single sample has no other fold
            continue
        mean, std, gamma = _scaling(samples[inside], scaled)
        train, test = ((samples[part] - mean) / std for part in (inside, outside))
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
    made = (
        linear_kernel(a, b) * gamma if kernel == "linear" else rbf_kernel(a, b, gamma)
    )
    return np.asarray(made)


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


def _scaling(samples: Floats, scaled: bool) -> tuple[Floats, Floats, float]:
    """Return mean and standard deviation (D,) of samples (n, D), and gamma."""
    width = samples.shape[1]
    if not scaled:
        return np.zeros(width), np.ones(width), 1.0
    mean = samples.mean(0)
    return mean, scaling_std(mean, samples.var(0), len(samples)), 1 / width


def _fit(
    features: FeatureSet, rows: Rows, labels: Floats, choice: Choice, config: SvrConfig
) -> SvrHead:
    """Fit the choice to all copies of the rows."""
    copies = min(features.x.shape[1], max(1, MOST_SAMPLES // len(rows)))
    raw = features.clip_means(rows, copies)
    mean, std, gamma = _scaling(raw, config.scaled)
    samples = (raw - mean) / std
    kernel = kernel_matrix(samples, samples, choice.kernel, gamma)
    machine = solve(kernel, np.repeat(labels, copies), choice, copies)
    vectors, coefficients = samples[machine.support_], machine.dual_coef_[0]
    if choice.kernel == "linear":
        vectors, coefficients = coefficients[None] @ vectors, np.ones(1)
    converged = bool(machine.fit_status_ == 0)
    notes = []
    if not converged:
        notes.append(
            f"the SVR stopped after {MOST_ITERATIONS:,} iterations, before it converged"
        )
    if len(config.costs) > 1 and choice.cost in (min(config.costs), max(config.costs)):
        notes.append(
            f"the SVR chose a cost at the end of its grid, {choice.cost:g}: a wider "
            "grid may do better"
        )
    spread = float(machine.predict(kernel).std() / (labels.std() or 1.0))
    if not config.scaled and spread < LEAST_SPREAD:
        notes.append(
            "nothing is scaled for this SVR, and its cost is too small for features "
            f"that vary by {float((raw - raw.mean(0)).std()):.2g} (its source has "
            "pixels): predictions hardly vary. Use --head svr, or features in pixels"
        )
    return SvrHead(
        choice=choice,
        gamma=gamma,
        mean=mean,
        std=std,
        vectors=vectors.astype(np.float32),
        coefficients=coefficients,
        intercept=float(machine.intercept_[0]),
        notes=tuple(notes),
        converged=converged,
    )


def read_head(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> SvrHead:
    """Make the head of a model file."""
    count, width = (axis_length(arrays, "vectors", axis) for axis in (0, 1))
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
    choice = Choice(**facts["choice"])
    if choice.kernel not in KERNELS or not (arrays["deviation"] > 0).all():
        raise AqaError(f"kernel {choice.kernel!r}, or a standard deviation of 0")
    return SvrHead(
        choice=choice,
        gamma=float(facts["gamma"]),
        mean=arrays["mean"],
        std=arrays["deviation"],
        vectors=arrays["vectors"],
        coefficients=arrays["coefficients"],
        intercept=float(arrays["intercept"]),
    )
