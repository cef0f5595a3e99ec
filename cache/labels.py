"""Labels from a CSV, and a cache relabelled with them without extracting again.

Conventions: a list of labels has a column `key` and any of `action`, `score` (judges'
units) and `split` (`train`, `test`); cells may be empty. Further columns are kept as
the samples' `extra`. All texts pass `normal_text`; `split` is read in any case. A
score that an action of AQA-7 cannot have is refused.
"""

import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from aqa.cache.actions import ACTIONS, BY_NAME, score_problem
from aqa.cache.errors import AqaError, raise_any
from aqa.cache.files import locked, remove, remove_orphans, replacing
from aqa.cache.parts import merge, parts_folder
from aqa.cache.samples import (
    Sample,
    label_problem,
    normal_text,
    path_problem,
    similar_names,
)
from aqa.cache.store import FeatureCache, write_cache
from aqa.cache.tables import Table, parse_score

LABELS = ("action", "score", "split")
_FACTS = ("frames", "clips", "damage", "source_sha256", "feature_sha256")
#: What `aqa cache list` says of samples beside their labels: no labels of a user's.
OWN_COLUMNS = (*_FACTS, *(f"extra_{name}" for name in _FACTS))
#: Columns of other lists of ours, which say nothing about labels.
NO_LABELS = ("video", "file", *OWN_COLUMNS)

#: Share of a cache's labels from which changing them needs to be confirmed, and the
#: fewest labels that are judged so.
MANY, FEW = 0.5, 4


@dataclass(frozen=True)
class Label:
    """The labels of one video; `score` is NaN where unknown.

    Raises AqaError over values that no cache can hold.
    """

    action: str
    score: float
    split: str
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check every field."""
        if problem := label_problem(self.action, self.split, self.score, self.extra):
            raise AqaError(problem)


class Labels(dict[str, Label]):
    """Labels by key; `columns` are those that the list has, `notes` are for the user.

    A column that the list does not have changes nothing when a cache is relabelled.
    """

    def __init__(
        self,
        labels: Mapping[str, Label] | None = None,
        columns: Sequence[str] = LABELS,
        notes: Sequence[str] = (),
    ) -> None:
        """Take the labels, by default those of a list with all three columns."""
        super().__init__(labels or {})
        self.columns, self.notes = tuple(columns), tuple(notes)


def read_labels(path: Path | str) -> Labels:
    """Read a list of labels. Raises AqaError listing every bad row."""
    table = Table(path, ("key",), LABELS, NO_LABELS)
    labels: dict[str, Label] = {}
    problems, written = [], set()
    for line, row in table:
        try:
            key, label = parse_key(row["key"]), parse_label(row, table.extra)
            if key in labels:
                raise AqaError(f"key {key!r} is there twice")
            labels[key] = label
            written.add(row.get("action", ""))
        except AqaError as error:
            problems.append(f"{path}: line {line}: {error}")
    raise_any(problems)
    notes = (*table.notes, *name_notes(written))
    return Labels(labels, (*table.columns[1:], *table.extra), notes)


def parse_key(text: str) -> str:
    """Return the key in a cell; AqaError when it is none."""
    key = normal_text(text)
    if problem := path_problem(key):
        raise AqaError(f"key {text[:80]!r} {problem}")
    return key


def parse_label(row: Mapping[str, str], extra: Iterable[str] = ()) -> Label:
    """Return the label in a row of a table; AqaError says what is wrong with it."""
    action, split = (normal_text(row.get(name, "")) for name in ("action", "split"))
    if split.casefold() in ("train", "test"):
        split = split.casefold()
    more = {name: normal_text(row[name]) for name in extra}
    label = Label(action, parse_score(row.get("score", "")), split, more)
    if problem := score_problem(action, label.score):
        raise AqaError(problem)
    return label


def name_notes(written: Collection[str]) -> list[str]:
    """Say which names of actions became one, and which look like slips.

    >>> name_notes({"diving", "Diving"})
    ["actions 'Diving' and 'diving' differ in case or blanks only, and count as two"]
    """
    notes = []
    forms: dict[str, set[str]] = {}
    for text in written:
        forms.setdefault(normal_text(text), set()).add(text)
    for name, same in sorted(forms.items()):
        if len(same) > 1:
            listed = " and ".join(ascii(text) for text in sorted(same))
            notes.append(f"actions {listed} are one: {name!r}")
    for group in similar_names([name for name in forms if name]):
        listed = " and ".join(map(repr, group))
        number = "two" if len(group) == 2 else len(group)
        notes.append(
            f"actions {listed} differ in case or blanks only, and count as {number}"
        )
    for action in ACTIONS:
        if action.name in forms:
            continue
        for name in sorted(forms.keys() - BY_NAME.keys()):
            if any(similar_names([name, own]) for own in (action.name, action.title)):
                notes.append(f"action {name!r}: AQA-7 calls it {action.name!r}")
    return notes


@dataclass(frozen=True)
class Relabelling:
    """What a list of labels changes in a cache, or has changed.

    `counts` maps each changed column to the number of samples, `examples` are lines
    like `diving/001: score 81.5 -> 70`. `unknown` lists keys that the cache lacks,
    `unlisted` counts samples that the list lacks. `doubts` say why the list may be
    another data set's; `kept` is the copy of the old cache, None if nothing changed.
    """

    samples: int
    changed: int
    counts: dict[str, int]
    examples: tuple[str, ...]
    unknown: tuple[str, ...]
    unlisted: int
    doubts: tuple[str, ...]
    notes: tuple[str, ...]
    kept: Path | None = None


def plan_relabel(cache: Path | str, labels: Mapping[str, Label]) -> Relabelling:
    """Return what `relabel` would change.

    Raises AqaError when there is no sound cache, and over a score that the sample's
    action cannot have.
    """
    with FeatureCache.open(cache) as opened:
        return _compare(opened, labels)[0]


def relabel(
    cache: Path | str, labels: Mapping[str, Label], *, doubtful: bool = False
) -> Relabelling:
    """Give the samples in `labels` new labels, as though extracted with these.

    The old file is kept beside the new one. Samples that `labels` does not name keep
    theirs, and so do columns that the list does not have. Parts are merged first: a
    killed merge may have left some. AqaError, and nothing has changed, where there are
    doubts (keys that the cache lacks, most labels different) and `doubtful` is false,
    or features are damaged.
    """
    cache = Path(cache)
    if parts_folder(cache).exists():
        merge(cache)
    with locked(cache), FeatureCache.open(cache) as old:
        remove_orphans(cache.parent, cache.name)
        plan, samples = _compare(old, labels)
        if plan.doubts and not doubtful:
            raise_any(
                [f"{cache}: {doubt}" for doubt in plan.doubts],
                "Nothing was changed. If the list is right, `--yes` relabels",
            )
        if not plan.changed:
            return plan
        kept = _keep(cache)
        features = (old.read_sound(row) for row in range(len(samples)))
        try:
            digests = old.samples.feature_sha256
            write_cache(cache, samples, features, old.provenance, digests)
        except BaseException:
            remove(kept)
            raise
    return replace(plan, kept=kept)


def _keep(cache: Path) -> Path:
    """Give the cache a second name, the first free of `.bak`, `.bak2`, ..."""
    for number in count(1):
        path = Path(f"{cache}.bak{number if number > 1 else ''}")
        if not os.path.lexists(path):
            break
        if path.samefile(cache):  # a killed run came as far as this
            return path
    try:
        os.link(cache, path)
    except OSError:  # no links on this file system
        with replacing(path) as copy, cache.open("rb") as file:
            shutil.copyfileobj(file, copy)
    return path


def _compare(
    cache: FeatureCache, labels: Mapping[str, Label]
) -> tuple[Relabelling, list[Sample]]:
    """Return the changes, and all samples with their new labels."""
    columns = labels.columns if isinstance(labels, Labels) else LABELS
    pairs = [
        (old, _labelled(old, labels[old.key], columns) if old.key in labels else old)
        for old in cache.samples
    ]
    if ("action" in columns) != ("score" in columns):  # else checked when it was read
        problems = [
            f"{new.key}: {problem}"
            for _, new in pairs
            if new.key in labels and (problem := score_problem(new.action, new.score))
        ]
        raise_any(problems)
    changes = {old.key: _changes(old, new) for old, new in pairs}
    counts = Counter(name for changed in changes.values() for name in changed)
    examples = [
        f"{key}: {', '.join(changed.values())}"
        for key, changed in changes.items()
        if changed
    ]
    unknown = tuple(sorted(labels.keys() - changes.keys()))
    names = {label.action for label in labels.values()} | set(cache.samples.action)
    plan = Relabelling(
        samples=len(pairs),
        changed=len(examples),
        counts=dict(counts),
        examples=tuple(examples[:5]),
        unknown=unknown,
        unlisted=len(changes.keys() - labels.keys()),
        doubts=tuple(_doubts(pairs, labels, unknown)),
        notes=tuple(name_notes(names - {""}) if "action" in columns else ()),
    )
    return plan, [new for _, new in pairs]


def _labelled(sample: Sample, label: Label, columns: Sequence[str]) -> Sample:
    given = {name: getattr(label, name) for name in LABELS if name in columns}
    return replace(sample, **given, extra={**sample.extra, **label.extra})


def _doubts(
    pairs: Sequence[tuple[Sample, Sample]],
    labels: Mapping[str, Label],
    unknown: Sequence[str],
) -> Iterator[str]:
    """Say why the list may be another data set's."""
    if unknown:
        shown = ", ".join(map(repr, unknown[:3])) + ", ..." * (len(unknown) > 3)
        alike = {_bare_key(old.key): old.key for old, _ in pairs}
        hints = [
            f"; is {key!r} the cache's {alike[_bare_key(key)]!r}?"
            for key in unknown
            if _bare_key(key) in alike
        ]
        yield (
            f"{len(unknown)} of {len(labels)} keys are not in the cache: {shown}"
            + "".join(hints[:1])
        )
    for name in ("score", "action"):
        listed = [(_text(o, name), _text(n, name)) for o, n in pairs if o.key in labels]
        known = [(before, after) for before, after in listed if before]
        changed = sum(before != after for before, after in known)
        if len(known) >= FEW and changed > MANY * len(known):
            yield (
                f"{changed} of {len(known)} samples get another {name}: is this the "
                "list of another data set?"
            )


def _bare_key(key: str) -> str:
    """Return a key without what spreadsheets and people change in it."""
    stem = re.sub(r"\.[A-Za-z0-9]{1,4}$", "", key.casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", stem)


def _changes(old: Sample, new: Sample) -> dict[str, str]:
    """Map each column that differs to a text like `score 81.5 -> 70`."""
    changes = {}
    for name in (*LABELS, *sorted({*old.extra, *new.extra})):
        before, after = _text(old, name), _text(new, name)
        if before != after:
            changes[name] = f"{name} {before or 'none'} -> {after or 'none'}"
    return changes


def _text(sample: Sample, name: str) -> str:
    """Return a label as text, empty where unknown."""
    if name == "score":
        return "" if math.isnan(sample.score) else repr(sample.score)
    text: str = getattr(sample, name) if name in LABELS else sample.extra.get(name, "")
    return text
