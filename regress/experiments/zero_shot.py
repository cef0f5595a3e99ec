"""Zero-shot: heads judged on an action that they never saw (Table 3 of the paper).

Conventions: rows are what a head was trained on: nothing (`random`), one action, or
every action but the one judged (`multi-action`); columns are the unseen action. Where
a single-action head meets its own action the cell is `matched` and stays out of the
row's average, as in the paper.
"""

from collections.abc import Sequence
from typing import Any

from aqa.cache.errors import AqaError
from aqa.regress.evaluation.bootstrap import (
    Cell,
    covers_zero,
    describe_claim,
    describe_row,
    judge,
)
from aqa.regress.experiments.paper import TABLE_3
from aqa.regress.experiments.result import Result, drawn_seeds, opening, printed
from aqa.regress.experiments.study import (
    Heads,
    Study,
    all_but,
    predict_scores,
    title_of,
    trained_on,
    unique,
    untrained,
)
from aqa.regress.heads.tasks import HeadTask

NAME = "zero-shot"


def tasks(study: Study) -> list[HeadTask]:
    """Every head that the table needs."""
    if len(study.actions) < 2:
        raise AqaError(
            f"{NAME}: an unseen action needs another to train on; this cache can "
            f"judge {study.actions[0]} only"
        )
    return unique(
        _head(study, row, action, seed)
        for row in _rows(study)
        for action in study.actions
        for seed in range(study.config.seeds)
    )


def evaluate(study: Study, heads: Heads) -> Result:
    """Judge every head on every action."""
    table = {
        row: {action: _judged(study, heads, row, action) for action in study.actions}
        for row in _rows(study)
    }
    drawn = drawn_seeds(study)
    rows = [
        describe_row(row, _mode(row), "lstm", cells, drawn)
        for row, cells in table.items()
    ]
    claim = describe_claim(
        "multi-action",
        "random",
        {
            action: (table["multi-action"][action], table["random"][action])
            for action in study.actions
        },
        drawn,
    )
    report = {
        **opening(study, NAME),
        "rows": rows,
        "claims": [claim],
        "findings": [claim["words"], *_findings(rows)],
        "paper": printed(
            study, 3, TABLE_3, {name: name for name in TABLE_3 if study.kind == "c3d"}
        ),
    }
    return Result(report, table, study.features.key)


def _rows(study: Study) -> list[str]:
    return ["random", *study.actions, "multi-action"]


def _mode(row: str) -> str:
    return row if row in ("random", "multi-action") else "single-action"


def _head(study: Study, row: str, action: str, seed: int) -> HeadTask:
    if row == "random":
        return untrained(study, seed)
    if row == "multi-action":
        return all_but(study, action, seed)
    return trained_on(study, [row], seed)


def _judged(study: Study, heads: Heads, row: str, action: str) -> Cell:
    test = study.tests[action]
    predicted = [
        predict_scores(study, heads[_head(study, row, action, seed)], test.rows, action)
        for seed in range(study.config.seeds)
    ]
    return judge([test] * len(predicted), predicted, matched=row == action)


def _findings(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the intervals say of each row, in words."""
    multi = next(row for row in rows if row["name"] == "multi-action")
    open_columns = [
        title_of(action)
        for action, cell in multi["per_action"].items()
        if covers_zero(cell["ci95"])
    ]
    found = []
    if open_columns:
        found.append(
            "The multi-action head's interval covers zero for "
            f"{', '.join(open_columns)}: no transfer to these is shown."
        )
    if all(covers_zero(row["average"]["ci95"]["fisher_z"]) for row in rows):
        found.append(
            "Every row's average has an interval that covers zero: nothing here tells "
            "any head from one that ranks at random."
        )
    return found
