"""The heads as scikit-learn estimators.

Conventions: X is (n, clips, D), or (n, D) as one clip, or (n, copies, clips, D), whose
further copies are seen in training only; y is (n,) in any unit, and so are
predictions. `actions` (n,) name the action of each sample, whose labels are scaled by
themselves; without them all samples are of one action. Everything is learned in `fit`:
inside a cross-validation nothing of the held-out samples is.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from aqa.cache.console import silent
from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance
from aqa.regress.config import FitConfig, LstmConfig, Schedule, SvrConfig, configured
from aqa.regress.data import FeatureSet, Floats, LabelScale
from aqa.regress.heads.base import Part, kind_of
from aqa.regress.heads.fit import units_of_ranks

ALL = "all"


class _Regressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """What both estimators share."""

    def _config(self) -> FitConfig:
        raise NotImplementedError

    def fit(self, X: Any, y: Any, actions: Any = None) -> Any:  # noqa: N803
        """Train on samples X with labels y; return self."""
        config = self._config()
        X, y = validate_data(
            self, X, y, allow_nd=True, dtype=np.float32, y_numeric=True
        )
        names = np.full(len(y), ALL) if actions is None else np.asarray(actions, str)
        if len(y) < 2:
            raise AqaError("one sample cannot be fitted: n_samples=1")
        x = _with_copies(X)
        rows = np.arange(len(y))
        features = FeatureSet(
            x=np.ascontiguousarray(x),
            key=np.array([f"{row:06}" for row in rows]),
            action=names,
            split=np.full(len(y), "train"),
            score=np.asarray(y, np.float64),
            provenance=Provenance({"features": "array"}),
        )
        scale = LabelScale.learn(features, rows, config.label_scale)
        part = Part(type(self).__name__, rows, scale.to_scaled(y, names))
        with TemporaryDirectory(prefix="aqa-heads-") as store:
            (self.head_,) = kind_of(config.head).fit_heads(
                features, [part], config, Path(store), silent
            )
        if config.loss == "rank":
            scale = units_of_ranks(features, self.head_, part)
        self.label_scale_ = scale
        return self

    def predict(self, X: Any, actions: Any = None) -> Floats:  # noqa: N803
        """Return the predictions (n,) in the unit of y."""
        check_is_fitted(self)
        X = validate_data(self, X, allow_nd=True, dtype=np.float32, reset=False)
        names = np.full(len(X), ALL) if actions is None else np.asarray(actions, str)
        unknown = {*names.tolist()} - self.label_scale_.scale.keys()
        if unknown or names.shape != (len(X),):
            known = ", ".join(self.label_scale_.scale)
            raise AqaError(
                f"actions: expected one of {known} for each of {len(X)} samples, found "
                f"{', '.join(sorted(unknown)) or names.shape}"
            )
        made = self.head_.predict(_with_copies(X)[:, 0])
        return self.label_scale_.to_units(made, names)


def _with_copies(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return X as (n, copies, clips, D)."""
    if not 2 <= x.ndim <= 4:
        raise AqaError(f"X: expected 2 to 4 dimensions, found {x.ndim}")
    return x.reshape(len(x), *(1,) * (4 - x.ndim), *x.shape[1:])


class LSTMRegressor(_Regressor):
    """LSTM over the clips of a sample; parameters as in `regress.config`."""

    def __init__(
        self,
        hidden: int = LstmConfig.hidden,
        iterations: int = Schedule.iterations,
        learning_rate: float = Schedule.learning_rate,
        step: int = Schedule.step,
        gamma: float = Schedule.gamma,
        batch: int = Schedule.batch,
        init_std: float = LstmConfig.init_std,
        label_scale: str = "zscore",
        loss: str = FitConfig.loss,
        standardise: bool = True,
        random_state: int = 0,
    ) -> None:
        """Keep the parameters."""
        self.hidden = hidden
        self.iterations = iterations
        self.learning_rate = learning_rate
        self.step = step
        self.gamma = gamma
        self.batch = batch
        self.init_std = init_std
        self.label_scale = label_scale
        self.loss = loss
        self.standardise = standardise
        self.random_state = random_state

    def _config(self) -> FitConfig:
        options = self.get_params() | {"head": "lstm"}
        options["seed"] = options.pop("random_state") or 0
        return configured(FitConfig(), None, options)


class SVRRegressor(_Regressor):
    """SVR on the mean of the clips, chosen by cross-validation in the training set."""

    def __init__(
        self,
        kernels: tuple[str, ...] = SvrConfig.kernels,
        costs: tuple[float, ...] = SvrConfig.costs,
        epsilons: tuple[float, ...] = SvrConfig.epsilons,
        folds: int = SvrConfig.folds,
        repeats: int = SvrConfig.repeats,
        label_scale: str = "zscore",
        random_state: int = 0,
    ) -> None:
        """Keep the parameters."""
        self.kernels = kernels
        self.costs = costs
        self.epsilons = epsilons
        self.folds = folds
        self.repeats = repeats
        self.label_scale = label_scale
        self.random_state = random_state

    def _config(self) -> FitConfig:
        options = self.get_params()
        seed, scale = options.pop("random_state") or 0, options.pop("label_scale")
        svr = SvrConfig(**options)
        return FitConfig(head="svr", svr=svr, seed=seed, label_scale=scale)
