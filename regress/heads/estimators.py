"""The heads as scikit-learn estimators.

Conventions: X is (n, clips, D), or (n, D) as one clip, or (n, copies, clips, D), whose
further copies are seen in training only. A sample of fewer clips than others begins
with clips of NaN (as the features of `aqa.open_cache`), which are ignored. y is (n,) in
any unit, and so are predictions. `actions` (n,) name the action of each sample, whose
labels are scaled by themselves; without them all samples are of one action. Everything
is learned in `fit`: inside a cross-validation nothing of the held-out samples is.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from aqa.cache.console import silent
from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance
from aqa.regress.config import FitConfig, LstmConfig, Schedule, SvrConfig, configured
from aqa.regress.data import ALL, FeatureSet, Floats, LabelScale, split_padding
from aqa.regress.heads.base import Part, kind_of
from aqa.regress.heads.fit import units_of_ranks


class _Regressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """What both estimators share."""

    def _config(self) -> FitConfig:
        raise NotImplementedError

    def fit(self, X: Any, y: Any, actions: Any = None) -> Any:  # noqa: N803
        """Train on samples X with labels y; return self."""
        config = self._config()
        y = validate_data(self, "no_validation", y, y_numeric=True)
        x, clips = self._features(X, reset=True)
        check_consistent_length(x, y)
        names = np.full(len(y), ALL) if actions is None else np.asarray(actions, str)
        if len(y) < 2:
            raise AqaError("one sample cannot be fitted: n_samples=1")
        rows = np.arange(len(y))
        features = FeatureSet(
            x=np.ascontiguousarray(x),
            key=np.array([f"{row:06}" for row in rows]),
            action=names,
            split=np.full(len(y), "train"),
            score=np.asarray(y, np.float64),
            provenance=Provenance({"features": "array"}),
            clips=clips,
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
        x, clips = self._features(X, reset=False)
        names = np.full(len(x), ALL) if actions is None else np.asarray(actions, str)
        unknown = {*names.tolist()} - self.label_scale_.scale.keys()
        if unknown or names.shape != (len(x),):
            known = ", ".join(self.label_scale_.scale)
            raise AqaError(
                f"actions: expected one of {known} for each of {len(x)} samples, found "
                f"{', '.join(sorted(unknown)) or names.shape}"
            )
        made = self.head_.predict(x[:, 0], clips)
        return self.label_scale_.to_units(made, names)

    def _features(
        self, samples: Any, reset: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.int32] | None]:
        """Return X as (n, copies, clips, D), and the real clips (n,), None for all."""
        x = samples if hasattr(samples, "shape") else np.asarray(samples)
        shape = x.shape
        if len(shape) > 4 or 0 in shape[1:-1]:
            raise AqaError(
                "X: expected (n, D), (n, clips, D) or (n, copies, clips, D), found "
                f"{shape}"
            )
        if len(shape) > 2:  # scikit-learn takes the second axis for the features
            x = np.asarray(x).reshape(-1, shape[-1])
        x = validate_data(
            self, x, dtype=np.float32, ensure_all_finite="allow-nan", reset=reset
        )
        return split_padding(x.reshape(shape[0], *(1,) * (4 - len(shape)), *shape[1:]))


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
    """SVR on the mean of the clips, chosen by cross-validation in the training set.

    `kernels`, `costs` and `epsilons` are the candidates: several, or one alone.
    """

    def __init__(
        self,
        kernels: Sequence[str] | str = SvrConfig.kernels,
        costs: Sequence[float] | float = SvrConfig.costs,
        epsilons: Sequence[float] | float = SvrConfig.epsilons,
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
        svr = self.get_params()
        options = {"head": "svr", "label_scale": svr.pop("label_scale")}
        options["seed"] = svr.pop("random_state") or 0
        for name in ("kernels", "costs", "epsilons"):
            svr[name] = np.atleast_1d(svr[name]).tolist()
        return configured(FitConfig(), None, options | {"svr": svr})
