"""One head for all actions against one for each (Table 2 of the paper).

Conventions: rows are those of `aqa.regress.rows`; columns are actions, judged on their
test lists. Testing uses the copy at offset 0; averaging over all copies gives rows of
its own, when asked for. Further caches are known by their rows' label.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aqa.regress import metrics
from aqa.regress.claims import covers_zero, describe_claim
from aqa.regress.evaluation import Cell, describe_row, judge
from aqa.regress.metrics import Floats
from aqa.regress.paper import TABLE_2
from aqa.regress.result import Result, drawn_seeds, opening, printed
from aqa.regress.roster import Heads, predict_scores, trained_on, unique
from aqa.regress.rows import Row, beside, claimed, rows_of
from aqa.regress.study import Study
from aqa.regress.svr_choice import MOST_ITERATIONS
from aqa.regress.svr_rows import SvrTask, TriedSvr
from aqa.regress.tasks import HeadTask

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
        head = heads[row.features][trained_on(study, row.actions(action), seed).name]
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
