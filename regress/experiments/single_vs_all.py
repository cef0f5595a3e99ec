"""One head for all actions against one for each (Table 2 of the paper).

Conventions: columns are actions. Rows are SVR and LSTM heads trained on the judged
action (`single-action`) or on all (`all-action`); rows that average over copies are
added when asked for. Further caches and variants add rows with their label, of the
kinds of heads that can learn from them; poses add the nu-SVR that goes with them.
"""

from collections.abc import Iterator, Sequence

from aqa.regress.config import MODES
from aqa.regress.experiments.describe import compare_rows
from aqa.regress.experiments.paper import POSES, TABLE_2, printed
from aqa.regress.experiments.result import Report, Result, opening
from aqa.regress.experiments.rows import (
    Needs,
    RowPlan,
    Trained,
    fit_notes,
    judge_rows,
    near_random,
)
from aqa.regress.experiments.study import Study
from aqa.regress.heads import HEADS

NAME = "single-vs-all"
#: The rows of the paper; those of every further kind of head follow.
PAPER = (
    ("single-action", "svr"),
    ("single-action", "lstm"),
    ("all-action", "lstm"),
    ("all-action", "svr"),
)
#: The SVR of the paper's poses, which has a row where features are of their kind.
PRESET, PRESET_FEATURES = "nu-svr", "pose-dct"


def needs(studies: Sequence[Study]) -> Needs:
    """Yield every head and SVR of the table."""
    for plan in plans(studies):
        if plan.copies == 1:
            yield from plan.needs()


def evaluate(studies: Sequence[Study], trained: Trained) -> Result:
    """Judge every row on every action; the first study is the cache itself."""
    study = studies[0]
    planned = plans(studies)
    table, rows = judge_rows(planned, trained)
    notes = fit_notes(rows)
    if len(study.actions) == 1:
        notes = [*notes, "one action only: all-action heads are single-action heads"]
    compared = [
        compare_rows(better, other, table, study.draws)
        for better, other in comparisons(studies)
    ]
    report = Report(
        **opening(study, NAME, notes, studies[1:]),
        also={
            other.cache: dict(other.features.provenance.record)
            for other in studies
            if other.cache
        },
        rows=rows,
        claims=compared,
        findings=[
            *(each.words for each in compared),
            *near_random({row.name: row.average for row in rows}),
        ],
        paper=printed(study, 2, TABLE_2, _beside(planned)),
    )
    return Result(
        report,
        table,
        study.features.key,
        title="Single action or all actions",
        question=(
            "Does one head trained on all actions rank the test samples of each better "
            "than a head trained on that action alone? (Table 2 of the paper)"
        ),
        table=("table-2", "Spearman's rho by action"),
        pictures=("dots", "scatter"),
    )


def plans(studies: Sequence[Study]) -> list[RowPlan]:
    """Return all rows, in the order of the table."""
    study, *others = studies
    copies = study.features.x.shape[1]
    means = (copies,) if study.config.average_offsets and copies > 1 else ()
    further = [
        (mode, head)
        for head, kind in HEADS.items()
        for mode in MODES[::-1]
        if head not in ("lstm", "svr") and not kind.one_action
    ]
    kinds = [*PAPER, *further]
    found = [
        _plan(study, mode, head, count) for count in (1, *means) for mode, head in kinds
    ]
    for other in studies:
        if other is not study:
            found += [
                _plan(other, mode, head) for mode, head in kinds if other.takes(head)
            ]
        if other.kind == PRESET_FEATURES and not other.variant:
            found.append(_plan(other, "single-action", PRESET))
    return found


def comparisons(studies: Sequence[Study]) -> Iterator[tuple[str, str]]:
    """Yield pairs of rows of which the first is claimed to be better.

    The paper's own claim, the same of SVRs, that the cache's features are better than
    those of further caches, and that a variant is better than the paper's way.
    """
    single, every = "single-action LSTM", "all-action LSTM"
    if len(studies[0].actions) > 1:
        yield every, single
        yield "all-action SVR", "single-action SVR"
    for other in studies[1:]:
        if other.variant:
            if len(other.actions) > 1:
                yield every + other.label, single + other.label
            yield every + other.label, every
            if other.takes("svr"):
                yield f"all-action SVR{other.label}", "all-action SVR"
        else:
            head = "LSTM" if other.takes("lstm") else "SVR"
            for mode in ("single-action", "all-action"):
                yield f"{mode} {head}", f"{mode} {head}{other.label}"


def _plan(study: Study, mode: str, head: str, copies: int = 1) -> RowPlan:
    name = f"{mode} {HEADS[head].title}{study.label}"
    if copies > 1:
        name += f", mean of {copies} copies"
    single = mode == "single-action"
    return RowPlan(
        name,
        mode,
        head,
        study,
        lambda action: (action,) if single else study.actions,
        copies,
    )


def _beside(planned: Sequence[RowPlan]) -> dict[str, str]:
    """Return our row for each row of the paper: the first of its kind."""
    found: dict[str, str] = {}
    for plan in planned:
        first = plan.copies == 1 and not plan.study.variant
        if first and plan.study.kind == "c3d" and plan.head != PRESET:
            found.setdefault(f"{plan.mode} {HEADS[plan.head].title}", plan.name)
        if plan.study.kind == PRESET_FEATURES and plan.head == PRESET:
            found.setdefault(POSES, plan.name)
    return found
