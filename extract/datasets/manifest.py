"""A CSV manifest: the way in for a data set of one's own.

Conventions: a CSV as `cache/csv_table.py` reads it, with the header
`video,action,score,split` and one video a row. `video` is relative to the CSV, with /
between folders, and names a file or a folder of frames below it; `action` is any name;
`score`, in judges' units, and `split`, "train" or "test", may be empty.
"""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from aqa.cache.actions import score_problem
from aqa.cache.errors import AqaError
from aqa.cache.samples import label_problem
from aqa.cache.tables import parse_score, read_rows
from aqa.extract.datasets.dataset import (
    Dataset,
    DatasetError,
    Problems,
    Tree,
    Video,
    chosen,
    normalised,
)

HEADER = ("video", "action", "score", "split")


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
        for line, row in read_rows(path, HEADER):
            try:
                yield line, _video(row, path.parent)
            except AqaError as error:
                problems.add("bad row", f"line {line}: {error}")
    except AqaError as error:
        problems.add("not a list of videos", str(error).removeprefix(f"{path}: "))


def _video(row: dict[str, str], folder: Path) -> Video:
    key = normalised(row["video"])
    action, written, split = (row[name].strip() for name in HEADER[1:])
    if not action:
        raise AqaError("expected the name of an action, found none")
    score = parse_score(written)
    if problem := label_problem(action, split, score) or score_problem(action, score):
        raise AqaError(problem)
    return Video(key, folder / key, action, split, score)


def _notes(videos: list[Video]) -> Iterator[str]:
    splits = Counter(video.split or "neither" for video in videos)
    unlabelled = sum(math.isnan(video.score) for video in videos)
    actions = sorted({video.action for video in videos})
    yield (
        f"{len(videos)} videos, {len(actions)} actions: {splits['train']} train, "
        f"{splits['test']} test, {splits['neither']} neither; {unlabelled} unlabelled"
    )
