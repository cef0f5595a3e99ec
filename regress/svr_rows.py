"""The SVRs of a comparison: what each is fitted to, chose, and predicts.

Conventions: predictions are (copies, n) in scaled units, one a copy and test sample
of the actions trained on, in the cache's order. They are kept beside the LSTM heads,
with the choice in the file's header, under the digest of everything that made them;
the seed deals the folds of the cross-validation, all else about an SVR is determined.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from aqa.cache.errors import AqaError, brief
from aqa.cache.progress import Progress, silent
from aqa.cache.replacement import replacing
from aqa.regress.config import SVR_PRESETS, SvrConfig
from aqa.regress.data import Rows
from aqa.regress.metrics import Floats
from aqa.regress.study import Study
from aqa.regress.svr import fit_svr

#: Raised by one when the same task would now predict otherwise.
VERSION = 2


@dataclass(frozen=True, eq=False)
class SvrTask:
    """An SVR to fit to the training lists of `actions` and try on their test lists.

    `features` is the label of the cache that the features are from; `kind` is "svr",
    or "nu-svr" for the named preset of the features.
    """

    features: str
    study: Study
    kind: str
    actions: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """A name that no other task of a comparison has."""
        return f"{self.kind} on {', '.join(self.actions)}, seed {self.seed}" + (
            f", {self.features}" if self.features else ""
        )

    @property
    def config(self) -> SvrConfig:
        """What may be chosen."""
        preset = preset_of(self.study)
        if self.kind == "nu-svr" and preset is not None:
            return preset
        return self.study.config.svr

    @property
    def tests(self) -> Rows:
        """The rows that are predicted."""
        return self.study.features.rows(self.actions, "test")

    def digest(self) -> str:
        """SHA-256 over everything that makes the predictions."""
        features, targets = self.study.features, self.study.targets
        record = {
            "version": VERSION,
            "config": asdict(self.config),
            "seed": self.seed,
            "train": [
                (
                    str(features.key[row]),
                    features.digests[row],
                    float(targets[row]).hex(),
                )
                for row in self.study.train_rows(self.actions)
            ],
            "test": [
                (str(features.key[row]), features.digests[row]) for row in self.tests
            ],
            "provenance": features.provenance.sha256,
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class TriedSvr:
    """What an SVR chose (kernel, cost, epsilon, nu) and predicts (copies, n).

    `choice` also says whether it `converged`.
    """

    choice: dict[str, Any]
    predicted: Floats


def preset_of(study: Study) -> SvrConfig | None:
    """The named nu-SVR that goes with features of this kind, if there is one."""
    preset = SVR_PRESETS.get(study.kind)
    return preset if preset and preset.nu is not None else None


def fit_svrs(
    tasks: Iterable[SvrTask], store: Path, progress: Progress = silent
) -> Mapping[str, TriedSvr]:
    """Each task's outcome by its name, fitted or taken from the store."""
    todo = list(tasks)
    found = {}
    for done, task in enumerate(todo):
        progress(done, len(todo), f"{done} of {len(todo)} SVRs fitted")
        path = store / f"{task.digest()}.safetensors"
        found[task.name] = _read(path) if path.is_file() else _try(task, path)
    progress(len(todo), len(todo), f"{len(todo)} of {len(todo)} SVRs fitted")
    return found


def _try(task: SvrTask, path: Path) -> TriedSvr:
    """Fit an SVR, let it predict, and keep what it did."""
    study = task.study
    rows = study.train_rows(task.actions)
    head = fit_svr(study.features, study.targets, rows, task.config, task.seed)
    x = study.features.x[task.tests]
    predicted = np.stack([head.predict(x[:, copy]) for copy in range(x.shape[1])])
    choice = {**asdict(head.choice), "converged": head.converged}
    tried = TriedSvr(choice, predicted)
    header = {"choice": json.dumps(tried.choice)}
    with replacing(path) as descriptor, open(descriptor, "wb", closefd=False) as file:
        file.write(save({"predicted": predicted}, header))
    return tried


def _read(path: Path) -> TriedSvr:
    try:
        with safe_open(path, "numpy") as file:
            choice = json.loads(file.metadata()["choice"])
            return TriedSvr(choice, file.get_tensor("predicted"))
    except (SafetensorError, KeyError, TypeError) as error:
        raise AqaError(
            f"{path}: not what an SVR predicted ({brief(error)}); remove it, and it is "
            "made anew"
        ) from error
