"""One experiment as a reader meets it: what was asked, what came out, how sure it is.

Conventions: the first table is the paper's; `details` are further tables, for those
who look. Text is plain; each medium escapes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aqa.regress.report.measures import choices, kendall, pooled, rl2
from aqa.regress.report.table import Table
from aqa.regress.report.tables import Report, by_action, claim, fine_tuning


@dataclass(frozen=True)
class Section:
    """One experiment's words and tables."""

    name: str
    title: str
    question: str
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    details: tuple[Table, ...]


SINGLE, ZERO_SHOT, FINE_TUNE = "single-vs-all", "zero-shot", "fine-tune"

TITLES = {
    SINGLE: "Single action or all actions",
    ZERO_SHOT: "Zero-shot: an action never seen",
    FINE_TUNE: "Fine-tuning on a few samples",
}
QUESTIONS = {
    SINGLE: (
        "Does one head trained on all actions rank the test samples of each better "
        "than a head trained on that action alone? (Table 2 of the paper)"
    ),
    ZERO_SHOT: (
        "Does a head rank samples of an action that it never saw? (Table 3 of the "
        "paper)"
    ),
    FINE_TUNE: (
        "With few samples of a new action, is a head trained on the other actions a "
        "better start than random weights? (Table 4 and Figure 3 of the paper)"
    ),
}


def shared_notes(reports: Sequence[Report]) -> tuple[str, ...]:
    """Notes that every one of several reports has: they are said once, for all."""
    first, *others = reports
    return tuple(
        note
        for note in first["notes"]
        if others and all(note in other["notes"] for other in others)
    )


def section_of(report: Report, shared: Sequence[str] = ()) -> Section:
    """An experiment's report.json object as words and tables.

    Notes that are `shared` by all experiments are left out.
    """
    name = report["experiment"]
    claims = tuple(
        claim(report, found, f"{name}-claim-{nth}")
        for nth, found in enumerate(report["claims"], 1)
    )
    return Section(
        name,
        TITLES[name],
        QUESTIONS[name],
        tuple(report["findings"]),
        tuple(note for note in report["notes"] if note not in shared),
        (_main_table(report), *claims),
        _details(report),
    )


def _main_table(report: Report) -> Table:
    if report["experiment"] == SINGLE:
        return by_action(report, "table-2", "Spearman's rho by action")
    if report["experiment"] == ZERO_SHOT:
        return by_action(report, "table-3", "Spearman's rho on each action")
    return fine_tuning(report)


def _details(report: Report) -> tuple[Table, ...]:
    name = report["experiment"]
    others = (kendall(report, f"{name}-kendall"), rl2(report, f"{name}-rl2"))
    return (pooled(report), *others, choices(report)) if name == SINGLE else others
