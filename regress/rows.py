"""The rows of Table 2 before they are judged: which head, on which features.

Conventions: SVR and LSTM heads, trained on one action (`single-action`) or on all of
them (`all-action`). Rows from further caches carry the name of their features, which
has a label of its own ("" for the cache itself); an LSTM needs more clips than one,
and an SVR that is named for the features joins in.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from aqa.regress.paper import POSES
from aqa.regress.study import Study
from aqa.regress.svr_rows import preset_of

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
