"""A folder of videos without labels.

Conventions: a file is a video if its suffix says so; hidden files and those that
systems leave behind are ignored (`is_ignored`). Linked folders are not walked; links
that lead out of the folder are refused.
"""

import math
import os
from pathlib import Path

from aqa.cache.errors import AqaError
from aqa.extract.datasets.dataset import (
    Dataset,
    DatasetError,
    Layout,
    Problems,
    Request,
    Tree,
    Video,
    is_ignored,
    key_of,
)

SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts "
    ".ts .webm .wmv".split()
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
    tree = Tree(root)
    videos = []
    for folder, below, names in os.walk(root, onerror=_refuse):
        below[:] = [name for name in below if not is_ignored(name)]
        links = [name for name in below if os.path.islink(os.path.join(folder, name))]
        for name in [*filter(_is_video, names), *links]:
            try:
                key = key_of(os.path.relpath(os.path.join(folder, name), root))
                found = tree.has(key)
            except AqaError as error:
                problems.add("unusable name or link", str(error))
                continue
            if not found:
                problems.add("neither file nor folder", key)
            elif name not in links:
                videos.append(Video(key, root / key, "", "", math.nan))
    if not videos:
        problems.add(
            "no video",
            "expected AQA-7, or files with a known suffix: "
            f"{', '.join(sorted(SUFFIXES))}",
        )
    problems.check()
    videos.sort(key=lambda video: video.key)
    note = f"{len(videos)} videos, unlabelled"
    return Dataset(root, LAYOUT.name, tuple(videos), (note,))


LAYOUT = Layout("folder", "a folder of videos", Path.is_dir, _read)


def _is_video(name: str) -> bool:
    return not is_ignored(name) and os.path.splitext(name)[1].lower() in SUFFIXES


def _refuse(error: OSError) -> None:
    raise AqaError(f"expected a folder that can be read, found {error}") from error
