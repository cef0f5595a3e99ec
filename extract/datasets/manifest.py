"""A CSV of videos and labels: the layout for data of one's own.

Conventions: the header names `video` and `action`, and optionally `score`, `split` and
`key`; then one video per row. `video` is relative to the CSV, with / between folders,
and names a file or a folder of frames below it or below a root of the request; absolute
paths and ".." need a root. `key` defaults to the path; where no video is needed, it may
stand alone. `action` is any name; `score`, in judges' units, and `split`, "train" or
"test", may be empty. Further columns are kept as `Video.extra`.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aqa.cache.errors import AqaError
from aqa.cache.labels import name_notes, parse_label
from aqa.cache.tables import Table
from aqa.extract.datasets.dataset import (
    Dataset,
    DatasetError,
    Files,
    Layout,
    Problems,
    Request,
    Video,
    check_actions,
    key_of,
)


@dataclass(frozen=True)
class _Row:
    """A valid row: the video with its place still relative to `root`, if given."""

    line: int
    place: str
    root: Path | None
    video: Video


def _matches(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".csv"


def _read(request: Request) -> Dataset:
    """Read the videos of a CSV, those of `actions` only if given."""
    path = request.path
    problems = Problems(path)
    try:
        table = Table(path, ("action",), ("video", "key", "score", "split"))
    except AqaError as error:
        problems.add("not a list of videos", _unnamed(error, request))
        problems.check()
    rows = list(_read_rows(table, request, problems))
    actions = {row.video.action for row in rows}
    check_actions(request.actions, actions, problems)
    files = Files(path.parent, request, problems)
    lines: dict[str, int] = {}
    videos = []
    for row in rows:
        video, line = row.video, row.line
        first = lines.setdefault(video.key, line)
        if first != line:
            problems.add("video twice", f"{video.key} in lines {first} and {line}")
        if request.actions and video.action not in request.actions:
            continue
        roots = None if row.root is None else [row.root]
        if found := files.find(row.place, where=f" (line {line})", roots=roots):
            labels = video.key, found, video.action, video.split, video.score
            videos.append(Video(*labels, video.extra))
    problems.check()
    if not videos:
        raise DatasetError(f"{path}: expected one video per row after the header")
    videos.sort(key=lambda video: video.key)
    notes = (_summary(videos), *table.notes, *name_notes(actions), *files.notes())
    return Dataset(path, LAYOUT.name, tuple(videos), notes)


LAYOUT = Layout("manifest", "a CSV (video,action,score,split)", _matches, _read)


def _read_rows(table: Table, request: Request, problems: Problems) -> Iterator[_Row]:
    """Yield the valid rows; the others become problems."""
    try:
        for line, row in table:
            try:
                yield _row(line, row, table.extra, request)
            except AqaError as error:
                problems.add("bad row", f"line {line}: {error}")
    except AqaError as error:
        problems.add("not a list of videos", _unnamed(error, request))


def _unnamed(error: AqaError, request: Request) -> str:
    return str(error).removeprefix(f"{request.path}: ")


def _row(
    line: int, row: dict[str, str], extra: tuple[str, ...], request: Request
) -> _Row:
    place, key = row.get("video", "").strip(), row.get("key", "")
    root: Path | None = None
    if request.labels_only:
        place = place or key
    elif key and not place:
        raise AqaError("expected a video; a list of keys alone needs --poses DIR")
    if place.startswith("/") or ".." in place.split("/"):
        full = os.path.normpath(request.path.parent.absolute() / place)
        for each in request.roots:
            if Path(full).is_relative_to(each.absolute()):
                place, root = os.path.relpath(full, each.absolute()), each
                break
    default = key_of(place)
    label = parse_label(row, extra)
    if not label.action:
        raise AqaError("expected the name of an action, found none")
    key = key_of(key) if key else default
    video = Video(key, Path(), label.action, label.split, label.score, label.extra)
    return _Row(line, os.path.normpath(place), root, video)


def _summary(videos: list[Video]) -> str:
    splits = Counter(video.split or "neither" for video in videos)
    unlabelled = sum(math.isnan(video.score) for video in videos)
    named = {video.action for video in videos}
    hint = "; `--folds` assigns them" if splits["neither"] == len(videos) else ""
    return (
        f"{len(videos)} videos, {len(named)} actions: {splits['train']} train, "
        f"{splits['test']} test, {splits['neither']} neither{hint}; {unlabelled} "
        "unlabelled"
    )
