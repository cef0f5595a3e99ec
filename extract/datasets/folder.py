"""A bare folder of videos: no labels, every video file below it.

Conventions: a file is a video if its suffix says so; what begins with a dot is
hidden and left alone. Linked folders are not walked; those inside the root come up
anyway, and those outside are refused, as is a file linked from outside.
"""

import math
import os
from pathlib import Path

from aqa.cache.errors import AqaError
from aqa.extract.datasets.dataset import Dataset, Problems, Tree, Video, normalised

SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts "
    ".ts .webm .wmv".split()
)


def read_folder(root: Path) -> Dataset:
    """Every video below `root`.

    Raises:
        DatasetError: no video at all, or names and links that cannot be used.
    """
    problems = Problems(root)
    tree = Tree(root)
    videos = []
    for folder, below, names in os.walk(root, onerror=_refuse):
        below[:] = [name for name in below if not name.startswith(".")]
        links = [name for name in below if os.path.islink(os.path.join(folder, name))]
        for name in [*filter(_is_video, names), *links]:
            relative = os.path.relpath(os.path.join(folder, name), root)
            try:
                key = normalised(relative)
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
    return Dataset(root, "folder", tuple(videos), (note,))


def _is_video(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _refuse(error: OSError) -> None:
    raise AqaError(f"expected a folder that can be read, found {error}") from error
