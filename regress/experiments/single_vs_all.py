"""The SVRs of a comparison: what each is fitted to, chose, and predicts.

Conventions: predictions are (copies, n) in scaled units, one a copy and test sample
of the actions trained on, in the cache's order. They are kept beside the LSTM heads,
with the choice in the file's header, under the digest of everything that made them;
the seed deals the folds of the cross-validation, all else about an SVR is determined.

The rows of Table 2 before they are judged: which head, on which features.

Conventions: SVR and LSTM heads, trained on one action (`single-action`) or on all of
them (`all-action`). Rows from further caches carry the name of their features, which
has a label of its own ("" for the cache itself); an LSTM needs more clips than one,
and an SVR that is named for the features joins in.

One head for all actions against one for each (Table 2 of the paper).

Conventions: columns are actions, judged on their test lists. Testing uses the copy at
offset 0; averaging over all copies gives rows of
its own, when asked for. Further caches are known by their rows' label.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError, brief
from aqa.cache.files import replacing
from aqa.regress.config import SVR_PRESETS, SvrConfig
from aqa.regress.data import Rows
from aqa.regress.evaluation import metrics
from aqa.regress.evaluation.bootstrap import (
    Cell,
    covers_zero,
    describe_claim,
    describe_row,
    judge,
)
from aqa.regress.evaluation.metrics import Floats
from aqa.regress.experiments.paper import POSES, TABLE_2
from aqa.regress.experiments.result import Result, drawn_seeds, opening, printed
from aqa.regress.experiments.study import (
    Heads,
    Study,
    predict_scores,
    trained_on,
    unique,
)
from aqa.regress.heads.svr import MOST_ITERATIONS, fit_svr
from aqa.regress.heads.tasks import HeadTask

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


KINDS = (
    ("single-action", "svr"),
    ("single-action", "lstm"),
    ("all-action", "lstm"),
    ("all-action", "svr"),
)
HEADS = {"lstm": "LSTM", "svr": "SVR", "nu-svr": "nu-SVR"}


@dataclass(frozen=True, eq=False)
class Row:
    """A row of the table before it is judged: which head, on which features."""

    mode: str
    head: str
    features: str
    study: Study
    copies: int

    @property
    def name(self) -> str:
        """The row's name in the table."""
        name = f"{self.mode} {HEADS[self.head]}"
        name += f", {self.features}" if self.features else ""
        return name + (f", mean of {self.copies} copies" if self.copies > 1 else "")

    def actions(self, action: str) -> tuple[str, ...]:
        """The actions that the head judged on `action` was trained on."""
        return (action,) if self.mode == "single-action" else self.study.actions


def rows_of(study: Study, also: Mapping[str, Study]) -> list[Row]:
    """All rows, in the order of the table."""
    copies = study.features.x.shape[1]
    means = (copies,) if study.config.average_offsets and copies > 1 else ()
    found = [
        Row(mode, head, "", study, count)
        for count in (1, *means)
        for mode, head in KINDS
    ]
    for label, other in {"": study, **also}.items():
        if label:
            found += [
                Row(mode, head, label, other, 1)
                for mode, head in KINDS
                if head == "svr" or has_course(other)
            ]
        if preset_of(other):
            found.append(Row("single-action", "nu-svr", label, other, 1))
    return found


def has_course(study: Study) -> bool:
    """Whether a sample is more than one clip, so that there is a course to learn."""
    return bool(study.features.x.shape[2] > 1)


def claimed(study: Study, also: Mapping[str, Study]) -> Iterator[tuple[str, str]]:
    """Pairs of rows of which the first is said to be better.

    The paper's own claim, and that the cache's features are better than further ones.
    """
    yield "all-action LSTM", "single-action LSTM"
    for label, other in also.items():
        head = "LSTM" if has_course(other) else "SVR"
        for mode in ("single-action", "all-action"):
            yield f"{mode} {head}", f"{mode} {head}, {label}"


def beside(rows: Iterable[Row]) -> dict[str, str]:
    """Which of our rows is what a row of the paper was: the first of its kind."""
    found: dict[str, str] = {}
    for row in rows:
        if row.copies == 1 and row.study.kind == "c3d" and row.head != "nu-svr":
            found.setdefault(f"{row.mode} {HEADS[row.head]}", row.name)
        if row.study.kind == "pose-dct" and row.head == "nu-svr":
            found.setdefault(POSES, row.name)
    return found


NAME = "single-vs-all"

#: SVRs by the name of their task.
Svrs = Mapping[str, TriedSvr]


def tasks(study: Study) -> list[HeadTask]:
    """Every LSTM head that the table needs, of features with a course."""
    return unique(
        trained_on(study, actions, seed)
        for actions in (*((action,) for action in study.actions), study.actions)
        for seed in range(study.config.seeds)
    )


def svr_tasks(study: Study, also: Mapping[str, Study]) -> list[SvrTask]:
    """Every SVR that the table needs."""
    found = {}
    for row in rows_of(study, also):
        if row.head == "lstm":
            continue
        for action in study.actions:
            for seed in range(study.config.seeds):
                task = _svr(row, action, seed)
                found[task.name] = task
    return list(found.values())


def evaluate(
    study: Study,
    heads: Heads,
    svrs: Svrs,
    also: Mapping[str, Study],
    also_heads: Mapping[str, Heads],
) -> Result:
    """Judge every row on every action; further caches and their heads by label."""
    heads_of = {"": heads, **also_heads}
    table: dict[str, dict[str, Cell]] = {}
    rows: list[dict[str, Any]] = []
    drawn = drawn_seeds(study)
    for row in rows_of(study, also):
        cells = {
            action: judge(
                [study.tests[action]] * study.config.seeds,
                [
                    _predicted(row, action, seed, heads_of, svrs)
                    for seed in range(study.config.seeds)
                ],
            )
            for action in study.actions
        }
        table[row.name] = cells
        rows.append(
            describe_row(
                row.name,
                row.mode,
                row.head,
                cells,
                drawn,
                features=row.features or study.kind,
                copies=row.copies,
                choices=_choices(row, svrs),
                pooled=_pooled(list(cells.values())),
            )
        )
    claims = [
        describe_claim(
            better,
            worse,
            {name: (table[better][name], table[worse][name]) for name in study.actions},
            drawn,
        )
        for better, worse in claimed(study, also)
    ]
    opened = opening(study, NAME, also.values())
    report = {
        **opened,
        "notes": [*opened["notes"], *_unconverged(rows)],
        "also": {
            label: dict(other.features.provenance.record)
            for label, other in also.items()
        },
        "rows": rows,
        "claims": claims,
        "findings": [*(claim["words"] for claim in claims), *_findings(rows)],
        "paper": printed(study, 2, TABLE_2, beside(rows_of(study, also))),
    }
    return Result(report, table, study.features.key)


def _svr(row: Row, action: str, seed: int) -> SvrTask:
    return SvrTask(row.features, row.study, row.head, row.actions(action), seed)


def _predicted(
    row: Row, action: str, seed: int, heads: Mapping[str, Heads], svrs: Svrs
) -> Floats:
    """A row's predictions for an action's test list, in judges' units (n,)."""
    study = row.study
    rows = study.tests[action].rows
    if row.head == "lstm":
        head = heads[row.features][trained_on(study, row.actions(action), seed)]
        copies = [
            predict_scores(study, head, rows, action, copy)
            for copy in range(row.copies)
        ]
        return np.asarray(np.mean(copies, axis=0))
    task = _svr(row, action, seed)
    places = np.searchsorted(task.tests, rows)
    scaled = svrs[task.name].predicted[: row.copies, places].mean(0)
    return np.asarray(scaled * study.scale[action])


def _choices(row: Row, svrs: Svrs) -> dict[str, list[dict[str, Any]]]:
    """What the row's SVRs chose, by action and seed; empty for an LSTM."""
    if row.head == "lstm":
        return {}
    return {
        action: [
            svrs[_svr(row, action, seed).name].choice
            for seed in range(row.study.config.seeds)
        ]
        for action in row.study.actions
    }


def _unconverged(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name the SVRs whose solver was stopped before its end."""
    named = [
        f"{row['name']} on {action}"
        for row in rows
        for action, choices in row["choices"].items()
        if row["copies"] == 1 and not all(choice["converged"] for choice in choices)
    ]
    if not named:
        return []
    return [
        f"stopped after {MOST_ITERATIONS:,} iterations, before they converged: "
        f"{', '.join(named)}"
    ]


def _pooled(cells: Sequence[Cell]) -> dict[str, Any]:
    """rho over the test samples of all actions together, for each seed."""
    rho = [
        metrics.spearman(np.concatenate(truth), np.concatenate(predicted))
        for truth, predicted in zip(
            zip(*(cell.truth for cell in cells), strict=True),
            zip(*(cell.predicted for cell in cells), strict=True),
            strict=True,
        )
    ]
    return {"spearman": rho, "mean": metrics.arithmetic_mean(rho)}


def _findings(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The rows that cannot be told from a ranking at random."""
    unsure = [
        row["name"] for row in rows if covers_zero(row["average"]["ci95"]["fisher_z"])
    ]
    if not unsure:
        return []
    return [
        f"The average's interval covers zero for {', '.join(unsure)}: nothing here "
        "tells that from a ranking at random."
    ]
