"""A CSV of videos and labels: the layout for data of one's own.

Conventions: the header is `video,action,score,split`, then one video per row. `video`
is relative to the CSV, with / between folders, and names a file or a folder of frames
below it; `action` is any name; `score`, in judges' units, and `split`, "train" or
"test", may be empty.
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
    Layout,
    Problems,
    Request,
    Tree,
    Video,
    check_actions,
    key_of,
)

HEADER = ("video", "action", "score", "split")


def _matches(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".csv"


def _read(request: Request) -> Dataset:
    """Read the videos of a CSV, those of `actions` only if given."""
    path = request.path
    problems = Problems(path)
    rows = list(_read_videos(path, problems))
    check_actions(request.actions, {video.action for _, video in rows}, problems)
    tree = Tree(path.parent)
    lines: dict[str, int] = {}
    videos = []
    for line, video in rows:
        first = lines.setdefault(video.key, line)
        if first != line:
            problems.add("video twice", f"{video.key} in lines {first} and {line}")
        if request.actions and video.action not in request.actions:
            continue
        try:
            if not tree.has(video.key):
                problems.add("missing video", f"{video.key} (line {line})")
        except AqaError as error:
            problems.add("video outside the CSV's folder", f"line {line}: {error}")
        videos.append(video)
    problems.check()
    if not videos:
        raise DatasetError(f"{path}: expected one video per row after the header")
    videos.sort(key=lambda video: video.key)
    return Dataset(path, LAYOUT.name, tuple(videos), (_summary(videos),))


LAYOUT = Layout("manifest", "a CSV (video,action,score,split)", _matches, _read)


def _read_videos(path: Path, problems: Problems) -> Iterator[tuple[int, Video]]:
    """Yield each valid row with its line number; the others become problems."""
    try:
        for line, row in read_rows(path, HEADER):
            try:
                yield line, _video(row, path.parent)
            except AqaError as error:
                problems.add("bad row", f"line {line}: {error}")
    except AqaError as error:
        problems.add("not a list of videos", str(error).removeprefix(f"{path}: "))


def _video(row: dict[str, str], folder: Path) -> Video:
    key = key_of(row["video"])
    action, written, split = (row[name].strip() for name in HEADER[1:])
    if not action:
        raise AqaError("expected the name of an action, found none")
    score = parse_score(written)
    if problem := label_problem(action, split, score) or score_problem(action, score):
        raise AqaError(problem)
    return Video(key, folder / key, action, split, score)


def _summary(videos: list[Video]) -> str:
    splits = Counter(video.split or "neither" for video in videos)
    unlabelled = sum(math.isnan(video.score) for video in videos)
    actions = {video.action for video in videos}
    return (
        f"{len(videos)} videos, {len(actions)} actions: {splits['train']} train, "
        f"{splits['test']} test, {splits['neither']} neither; {unlabelled} unlabelled"
    )
