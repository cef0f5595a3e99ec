"""A CSV manifest: the way in for a data set of one's own.

Conventions: UTF-8, the header `video,action,score,split`, then one video a row.
`video` is relative to the CSV, with / between folders, and names a file or a folder
of frames below it; `action` is any name; `score`, in judges' units, and `split`,
"train" or "test", may be empty. Blank lines are skipped.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from aqa.cache.actions import BY_NAME
from aqa.cache.errors import AqaError
from aqa.cache.samples import label_problem
from aqa.extract.datasets.dataset import (
    Dataset,
    DatasetError,
    Problems,
    Tree,
    Video,
    chosen,
    normalised,
)

HEADER = ["video", "action", "score", "split"]
MOST_ROWS = 1_000_000


def read_manifest(path: Path, actions: tuple[str, ...] | None) -> Dataset:
    """The videos of a CSV, those of `actions` only where given.

    Raises:
        DatasetError: names every row that is not as it should be.
    """
    problems = Problems(path)
    listed = list(_videos(path, problems))
    wanted = chosen(actions, {video.action for _, video in listed}, problems)
    lines: dict[str, int] = {}
    tree = Tree(path.parent)
    videos = []
    for line, video in listed:
        first = lines.setdefault(video.key, line)
        if first != line:
            problems.add("video twice", f"{video.key} in lines {first} and {line}")
        if not wanted(video.action):
            continue
        try:
            if not tree.has(video.key):
                problems.add("missing video", f"{video.key} (line {line})")
        except AqaError as error:
            problems.add("video outside the CSV's folder", f"line {line}: {error}")
        videos.append(video)
    problems.check()
    if not videos:
        raise DatasetError(f"{path}: expected a video a row after the header")
    videos.sort(key=lambda video: video.key)
    return Dataset(path, "manifest", tuple(videos), tuple(_notes(videos)))


def _videos(path: Path, problems: Problems) -> Iterator[tuple[int, Video]]:
    """Every good row with its line number; the others become problems."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = [name.strip() for name in next(rows, [])]
            if header != HEADER:
                expected, found = ",".join(HEADER), ",".join(header)[:200]
                problems.add("header", f"expected {expected}, found {found!r}")
                return
            for count, row in enumerate(rows):
                if count == MOST_ROWS:
                    problems.add("too long", f"more than {MOST_ROWS} rows; split it")
                    return
                if not row:
                    continue
                try:
                    yield rows.line_num, _video(row, path.parent)
                except AqaError as error:
                    problems.add("bad row", f"line {rows.line_num}: {error}")
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        problems.add("not a CSV in UTF-8", str(error))


def _video(row: list[str], folder: Path) -> Video:
    if len(row) != len(HEADER):
        raise AqaError(f"expected {len(HEADER)} fields, found {len(row)}")
    key = normalised(row[0])
    action, written, split = (field.strip() for field in row[1:])
    if not action:
        raise AqaError("expected the name of an action, found none")
    score = _score(written)
    if problem := label_problem(action, split, score):
        raise AqaError(problem)
    if action in BY_NAME and not math.isnan(score):
        low, high = BY_NAME[action].score_range
        if not low <= score <= high:
            raise AqaError(
                f"expected a score of {low:g} to {high:g}, as AQA-7's {action} has, "
                f"found {written}; another scale needs another name for the action"
            )
    return Video(key, folder / key, action, split, score)


def _score(written: str) -> float:
    if not written:
        return math.nan
    try:
        score = float(written)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise AqaError(f"expected a score or nothing, found {written!r}")
    return score


def _notes(videos: list[Video]) -> Iterator[str]:
    splits = Counter(video.split or "neither" for video in videos)
    unlabelled = sum(math.isnan(video.score) for video in videos)
    actions = sorted({video.action for video in videos})
    yield (
        f"{len(videos)} videos, {len(actions)} actions: {splits['train']} train, "
        f"{splits['test']} test, {splits['neither']} neither; {unlabelled} unlabelled"
    )
