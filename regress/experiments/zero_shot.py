"""Zero-shot: heads judged on an action that they never saw (Table 3 of the paper).

Conventions: rows are what a head was trained on: nothing (`random`: the mean of many
draws, since a single untrained head may rank well or badly by chance), one action, or
every action but the judged one (`multi-action`, an LSTM, and one row of each other kind
of head). Where a single-action head meets its own action the cell is `matched` and
stays out of the row's average, as in the paper. R-l2 is left out of all other cells: a
head that never saw an action does not know its range of scores.
"""

import math
from collections.abc import Sequence
from functools import partial

from aqa.cache.errors import AqaError
from aqa.regress.evaluation.bootstrap import covers_zero
from aqa.regress.experiments.describe import compare_rows
from aqa.regress.experiments.paper import TABLE_3, printed
from aqa.regress.experiments.result import Report, Result, Row, opening
from aqa.regress.experiments.rows import (
    Needs,
    RowPlan,
    Trained,
    UntrainedPlan,
    all_but,
    judge_rows,
)
from aqa.regress.experiments.study import Study, title_of
from aqa.regress.heads import HEADS

NAME = "zero-shot"
MULTI, MULTI_SVR, RANDOM = "multi-action", "multi-action SVR", "random"


def needs(studies: Sequence[Study]) -> Needs:
    """Yield every head and SVR of the table."""
    if len(studies[0].actions) < 2:
        raise AqaError(
            f"{NAME}: an unseen action needs another to train on; this cache can "
            f"judge {studies[0].actions[0]} only"
        )
    for plan in plans(studies):
        yield from plan.needs()


def evaluate(studies: Sequence[Study], trained: Trained) -> Result:
    """Judge every row on every action."""
    study = studies[0]
    table, rows = judge_rows(plans(studies), trained, full=False)
    variants = [other.label for other in studies[1:] if other.variant]
    pairs = [
        (MULTI, RANDOM),
        (MULTI_SVR, RANDOM),
        *((MULTI + label, MULTI) for label in variants),
    ]
    compared = [compare_rows(*pair, table, study.draws) for pair in pairs]
    report = Report(
        **opening(study, NAME, _about_draws(rows[0])),
        rows=rows,
        claims=compared,
        findings=[*(each.words for each in compared), *_findings(rows)],
        paper=printed(
            study, 3, TABLE_3, {name: name for name in TABLE_3 if study.kind == "c3d"}
        ),
    )
    return Result(
        report,
        table,
        study.features.key,
        title="Zero-shot: an action never seen",
        question=(
            "Does a head rank samples of an action that it never saw? (Table 3 of the "
            "paper)"
        ),
        table=("table-3", "Spearman's rho on each action"),
        pictures=("matrix",),
    )


def plans(studies: Sequence[Study]) -> list[RowPlan]:
    """Return all rows, in the order of the table."""
    study = studies[0]
    found: list[RowPlan] = [UntrainedPlan(RANDOM, RANDOM, "lstm", study, lambda _: ())]
    for name in study.actions:
        on = partial(_only, name)
        found.append(
            RowPlan(name, "single-action", "lstm", study, on, mark_matched=True)
        )
    found.append(RowPlan(MULTI, MULTI, "lstm", study, partial(all_but, study)))
    for head in HEADS:
        if head != "lstm" and not HEADS[head].one_action:  # not the row above
            name, on = f"{MULTI} {HEADS[head].title}", partial(all_but, study)
            found.append(RowPlan(name, MULTI, head, study, on))
    for other in studies[1:]:
        if other.variant:
            name, on = MULTI + other.label, partial(all_but, other)
            found.append(RowPlan(name, MULTI, "lstm", other, on))
    return found


def _only(action: str, judged: str) -> tuple[str, ...]:
    return (action,)


def _about_draws(row: Row) -> list[str]:
    """Say how far single untrained heads vary."""
    spread = row.average.sd["fisher_z"]
    if math.isnan(spread):
        return []
    return [
        f"random is the mean of {len(row.average.per_seed['fisher_z'])} untrained "
        "heads; the average rho of a single one has a standard deviation of "
        f"{spread:.2f}"
    ]


def _findings(rows: Sequence[Row]) -> list[str]:
    """Say what the intervals leave open."""
    multi = next(row for row in rows if row.name == MULTI)
    uncertain = [
        title_of(action)
        for action, cell in multi.per_action.items()
        if covers_zero(cell.ci95)
    ]
    found = []
    if uncertain:
        found.append(
            f"The multi-action head's interval covers zero for {', '.join(uncertain)}: "
            "no transfer to these is shown."
        )
    if all(covers_zero(row.average.ci95["fisher_z"]) for row in rows):
        found.append(
            "The interval of every row's average covers zero: no head is "
            "distinguishable from a random ranking."
        )
    return found
