"""Data of one's own: a CSV of videos and labels, or a folder of videos without.

Of a CSV, the header names `video` and `action`, and optionally `score`, `split` and
`key`; then one video per row. `video` is relative to the CSV, with / between folders,
and names a file or a folder of frames below it or below a root of the request; absolute
paths and ".." need a root. `key` defaults to the path; where no video is needed, it may
stand alone. `action` is any name; `score`, in judges' units, and `split`, "train" or
"test", may be empty. Further columns are kept as `Video.extra`.

In a folder, a file is a video if its suffix says so; hidden files and those that
systems leave behind are ignored (`is_ignored`). Links out of the folder need a root of
the request; linked folders inside it are read under their own names only.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from aqa.cache.errors import AqaError, counted
from aqa.cache.labels import OWN_COLUMNS, name_notes, parse_label
from aqa.cache.samples import is_inside
from aqa.cache.tables import Table
from aqa.extract.datasets.dataset import (
    SUFFIXES,
    Dataset,
    DatasetError,
    Files,
    Layout,
    Request,
    Video,
    is_ignored,
    key_of,
    split_counts,
)


def _is_manifest(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".csv"


def _read_manifest(request: Request) -> Dataset:
    """Read the videos of a CSV, those of `actions` only if given."""
    path = request.path
    files = Files(request)
    lines: dict[str, int] = {}
    actions = set()
    videos = []
    try:
        table = Table(
            path, ("action",), ("video", "key", "score", "split"), OWN_COLUMNS
        )
        _check_columns(table)
        for line, row in table:
            try:
                video, root = _row(row, table.extra, request)
            except AqaError as error:
                files.add("bad row", f"line {line}: {error}")
                continue
            actions.add(video.action)
            first = lines.setdefault(video.key, line)
            if first != line:
                twice = f"{video.key} in lines {first} and {line}"
                files.add("video twice", twice)
            if files.asked(video.action):
                roots = None if root is None else [root]
                place, where = str(video.path), f" (line {line})"
                if found := files.find(place, where=where, roots=roots):
                    videos.append(replace(video, path=found))
    except AqaError as error:
        reason = str(error).removeprefix(f"{path}: ")
        files.add("not a list of videos", reason)
        files.check()
    files.check_actions(actions)
    notes = (_summary(videos), *table.notes, *name_notes(actions))
    none = "expected one video per row after the header"
    return files.dataset(videos, *notes, none=none)


MANIFEST = Layout("a CSV (video,action,score,split)", _is_manifest, _read_manifest)


#: What others call a column of ours.
_OTHERWISE = {
    "video": ("filename", "file", "path", "name", "clip", "video_id", "video_path"),
    "score": ("points", "mark", "marks", "grade", "rating", "total"),
}


def _check_columns(table: Table) -> None:
    """Refuse a list without videos, or with a known column under another name."""
    lacking = {"video", "score"} - {*table.columns}
    if "key" in table.columns:
        lacking.discard("video")
    for name in sorted(lacking, reverse=True):
        like = [own for own in table.extra if own.casefold() in _OTHERWISE[name]]
        if like or name == "video":
            found = ", ".join((*table.columns, *table.extra))
            rename = f"; rename {like[0]!r} to {name!r}" if like else ""
            raise AqaError(
                f"expected the columns video,action,score,split; found {found}: no "
                f"{name!r}{rename}"
            )


def _row(
    row: dict[str, str], extra: tuple[str, ...], request: Request
) -> tuple[Video, Path | None]:
    """Return the video of a row, its path relative to the root that is returned.

    The root is None where any will do.

    Raises:
        AqaError: the row is not valid.
    """
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
    labels = label.action, label.split, label.score, label.extra
    return Video(key, Path(place), *labels), root


def _summary(videos: list[Video]) -> str:
    neither = sum(not video.split for video in videos)
    unlabelled = sum(math.isnan(video.score) for video in videos)
    named = {video.action for video in videos}
    hint = "; `--folds` assigns them" if neither == len(videos) else ""
    return (
        f"{counted(len(videos), 'video')}, {counted(len(named), 'action')}: "
        f"{split_counts(videos)}, {neither} neither{hint}; {unlabelled} unlabelled"
    )


def _read_folder(request: Request) -> Dataset:
    """Read every video below the folder."""
    root = request.path
    if request.actions is not None:
        raise DatasetError(
            f"{root}: expected AQA-7 or a CSV to choose actions from, found a "
            "folder, whose videos have none"
        )
    files = Files(request)
    videos = []
    for relative in _video_files(root, files):
        link = " (a link)" if (root / relative).is_symlink() else ""
        if path := files.find(relative, where=link):
            try:
                videos.append(Video(key_of(relative), path, "", "", math.nan))
            except AqaError as error:
                files.add("unusable name", str(error))
    videos.sort(key=lambda video: video.key)
    for before, after in pairwise(videos):
        if before.key == after.key:
            files.add("two forms of one name", before.key)
    known = ", ".join(sorted(SUFFIXES))
    none = f"no video: expected a known data set, or files with a known suffix: {known}"
    note = f"{counted(len(videos), 'video')}, unlabelled"
    return files.dataset(videos, note, none=none)


FOLDER = Layout("a folder of videos", Path.is_dir, _read_folder)


def _video_files(root: Path, files: Files) -> Iterator[str]:
    """Yield all video files below the folder, as relative paths."""
    folders, seen = [""], {os.path.realpath(root)}
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            raise AqaError(
                f"expected a folder that can be read, found {error}"
            ) from error
        for entry in entries:
            relative = os.path.join(folder, entry.name)
            if is_ignored(entry.name):
                continue
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if entry.is_symlink() and is_inside(real, root):
                    continue  # read under its own name
                if not files.holds(real):
                    files.add_outside(f"{relative} is a link out of it, to {real}")
                elif real not in seen:
                    seen.add(real)
                    folders.append(relative)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                yield relative
