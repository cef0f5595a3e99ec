"""A folder of videos without labels.

Conventions: a file is a video if its suffix says so; hidden files and those that
systems leave behind are ignored (`is_ignored`). Links out of the folder need a root of
the request; linked folders inside it are read under their own names only.
"""

import math
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from aqa.cache.errors import AqaError
from aqa.cache.samples import is_inside
from aqa.extract.datasets.dataset import (
    SUFFIXES,
    Dataset,
    DatasetError,
    Files,
    Layout,
    Problems,
    Request,
    Video,
    is_ignored,
    key_of,
)


def _read(request: Request) -> Dataset:
    """Read every video below the folder."""
    root = request.path
    if request.actions is not None:
        raise DatasetError(
            f"{root}: expected AQA-7 or a CSV to choose actions from, found a "
            "folder, whose videos have none"
        )
    problems = Problems(root)
    files = Files(root, request, problems)
    videos = []
    for relative in _video_files(root, files):
        if path := files.find(
            relative, where=" (a link)" * (root / relative).is_symlink()
        ):
            try:
                videos.append(Video(key_of(relative), path, "", "", math.nan))
            except AqaError as error:
                problems.add("unusable name", str(error))
    videos.sort(key=lambda video: video.key)
    for before, after in pairwise(videos):
        if before.key == after.key:
            problems.add("two forms of one name", before.key)
    problems.check()
    if not videos:
        raise DatasetError(
            f"{root}: no video: expected a known data set, or files with a known "
            f"suffix: {', '.join(sorted(SUFFIXES))}"
        )
    notes = (f"{len(videos)} videos, unlabelled", *files.notes())
    return Dataset(root, LAYOUT.name, tuple(videos), notes)


LAYOUT = Layout("folder", "a folder of videos", Path.is_dir, _read)


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
