"""New labels for a cache, without extracting again.

Conventions: a label file is a CSV with the header `key,action,score,split`; `score`
(judges' units) and `split` (`train`, `test`) may be empty. A score that an action of
AQA-7 cannot have is refused, here and in every other file of labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from aqa.cache.actions import score_problem
from aqa.cache.csv_table import parse_score, read_rows
from aqa.cache.errors import AqaError
from aqa.cache.parts import merge, parts_folder
from aqa.cache.problems import raise_any
from aqa.cache.replacement import locked, remove_orphans
from aqa.cache.samples import label_problem, path_problem
from aqa.cache.store import FeatureCache
from aqa.cache.writing import write_cache

COLUMNS = ("key", "action", "score", "split")


@dataclass(frozen=True)
class Label:
    """What is to be learnt of one video; `score` is NaN where it is unknown.

    Raises AqaError over an action or a split that no cache can hold.
    """

    action: str
    score: float
    split: str

    def __post_init__(self) -> None:
        """Check every field."""
        if problem := label_problem(self.action, self.split, self.score):
            raise AqaError(problem)


def read_labels(path: Path | str) -> dict[str, Label]:
    """Read a label file: key -> label. Raises AqaError listing every bad row."""
    labels: dict[str, Label] = {}
    problems = []
    for line, row in read_rows(path, COLUMNS):
        place = f"{path}: line {line}"
        try:
            key, label = parse_label(row)
        except AqaError as error:
            problems.append(f"{place}: {error}")
            continue
        if key in labels:
            problems.append(f"{place}: key {key!r} is there twice")
        labels[key] = label
    raise_any(problems)
    return labels


def parse_label(row: Mapping[str, str]) -> tuple[str, Label]:
    """Take key and label out of one row of a CSV; AqaError says what is wrong."""
    if problem := path_problem(row["key"]):
        raise AqaError(f"key {row['key'][:80]!r} {problem}")
    label = Label(row["action"], parse_score(row["score"]), row["split"])
    if problem := score_problem(label.action, label.score):
        raise AqaError(problem)
    return row["key"], label


def relabel(cache: Path | str, labels: Mapping[str, Label]) -> int:
    """Give the samples in `labels` new labels; return how many of them changed.

    The cache is replaced whole, with the same features, as though it had been
    extracted with these labels; samples that `labels` does not name keep theirs. Parts
    are merged first: a killed merge may have left some, with the old labels. Raises
    AqaError listing keys that the cache does not have, and over damaged features.
    """
    cache = Path(cache)
    if parts_folder(cache).exists():
        merge(cache)
    with locked(cache), FeatureCache.open(cache) as old:
        remove_orphans(cache.parent, cache.name)
        unknown = sorted(labels.keys() - set(old.samples.key))
        raise_any([f"{cache}: no sample {key!r} to relabel" for key in unknown])
        before = [old.samples[row] for row in range(len(old.samples))]
        after = [
            replace(sample, **vars(labels[sample.key]))
            if sample.key in labels
            else sample
            for sample in before
        ]
        changed = sum(
            bool(new.differences(was)) for new, was in zip(after, before, strict=True)
        )
        if changed:
            features = (old.read_sound(row) for row in range(len(before)))
            write_cache(cache, after, features, old.provenance)
    return changed
