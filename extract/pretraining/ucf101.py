"""Labelled videos: UCF-101 with its official lists, or any folder of class folders.

Conventions: labels count from 0 in memory, from 1 in UCF-101's files. A video is
named by its path relative to the data set's root, POSIX style, as the lists do.
`trainlist0N.txt` has lines `Class/video.avi LABEL`, `testlist0N.txt` lines
`Class/video.avi`, `classInd.txt` lines `LABEL Class`.

Without lists a part of every class is held out by seed. Clips that were cut from
one recording (UCF-101's `_gNN_`) stay on one side, or the test would know them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from aqa.cache.errors import AqaError

#: What a folder of class folders is searched for.
SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
_GROUP = re.compile(r"_g\d+(?=_c\d+)")
_INDEX, _TRAIN, _TEST = "classInd.txt", "trainlist", "testlist"
_MOST_BYTES = 64 * 2**20  # UCF-101's longest has 400 kB


@dataclass(frozen=True)
class LabelledVideo:
    """A video and the index of its class."""

    name: str
    label: int


@dataclass(frozen=True)
class ClassSet:
    """Classes in the order of their labels, and the videos of both sides."""

    root: Path
    classes: tuple[str, ...]
    train: tuple[LabelledVideo, ...]
    test: tuple[LabelledVideo, ...]
    #: How the two sides were told apart, in words.
    division: str


def read_classes(
    root: Path, split: Path | None = None, held_out: float = 0.25, seed: int = 0
) -> ClassSet:
    """Read a data set of labelled videos, checking all of it before anything runs.

    Args:
        root: the folder with one folder per class.
        split: a training list; its test list and class index lie beside it. None:
            looks for the first split in `root`.
        held_out: without lists, the part of each class to test on.
        seed: without lists, chooses that part.

    Raises:
        AqaError: naming what is missing, twice there, or contradicts itself.
    """
    if not root.is_dir():
        raise AqaError(f"{root}: expected a folder of class folders, found none")
    if split is None and (root / f"{_TRAIN}01.txt").is_file():
        split = root / f"{_TRAIN}01.txt"
    if split is None:
        return _divide(root, held_out, seed)
    if _TRAIN not in split.name:
        raise AqaError(f"{split}: expected a file named {_TRAIN}0N.txt")
    other = split.with_name(split.name.replace(_TRAIN, _TEST))
    classes = _read_index(split.with_name(_INDEX))
    train = _read_list(split, classes, labelled=True)
    test = _read_list(other, classes, labelled=False)
    _require_sound(root, train, test)
    return ClassSet(root, classes, train, test, f"{split.name} and {other.name}")


def _lines(path: Path) -> list[str]:
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise AqaError(f"{path}: {size} bytes; at most {_MOST_BYTES} are read")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AqaError(f"{path}: expected a list of UCF-101's ({error})") from None
    return [line.strip() for line in lines if line.strip()]


def _read_index(path: Path) -> tuple[str, ...]:
    """Read the classes, whose labels must be 1 .. N in some order."""
    names: dict[str, str] = {}
    for line in _lines(path):
        label, _, name = line.partition(" ")
        if label in names or not name:
            raise AqaError(f"{path}: expected `LABEL Class` once each, found {line!r}")
        names[label] = name.strip()
    wanted = [str(label) for label in range(1, len(names) + 1)]
    if sorted(names) != sorted(wanted):
        raise AqaError(f"{path}: expected labels 1 to {len(names)}, found others")
    classes = tuple(names[label] for label in wanted)
    if len(set(classes)) < len(classes) or not classes:
        raise AqaError(f"{path}: expected distinct classes, found {len(set(classes))}")
    return classes


def _read_list(
    path: Path, classes: tuple[str, ...], *, labelled: bool
) -> tuple[LabelledVideo, ...]:
    """Read one side; where a label is written it must be that of the folder."""
    labels = {name: label for label, name in enumerate(classes)}
    videos = []
    for line in _lines(path):
        name, _, written = line.rpartition(" ") if labelled else (line, "", "")
        folder = PurePosixPath(name).parts[:1]
        label = labels.get(folder[0]) if folder else None
        if label is None or (labelled and written != str(label + 1)):
            raise AqaError(
                f"{path}: expected `Class/video{' LABEL' * labelled}` that agrees with "
                f"{_INDEX}, found {line[:120]!r}"
            )
        videos.append(LabelledVideo(name, label))
    return tuple(videos)


def _divide(root: Path, held_out: float, seed: int) -> ClassSet:
    """Hold out a part of each class, whole recordings at a time."""
    if not 0 < held_out < 1:
        raise AqaError(f"held_out: expected a part between 0 and 1, found {held_out}")
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    train: list[LabelledVideo] = []
    test: list[LabelledVideo] = []
    for label, folder in enumerate(folders):
        videos = sorted(
            path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES
        )
        groups = sorted({_recording(path) for path in videos})
        if len(groups) < 2:
            raise AqaError(
                f"{folder}: expected at least two recordings, one to train and one to "
                f"test on, found {len(groups)}"
            )
        count = min(max(1, round(held_out * len(groups))), len(groups) - 1)
        rng = np.random.default_rng([seed, label])
        chosen = {groups[i] for i in rng.permutation(len(groups))[:count]}
        for path in videos:
            side = test if _recording(path) in chosen else train
            side.append(LabelledVideo(path.relative_to(root).as_posix(), label))
    classes = tuple(folder.name for folder in folders)
    if len(classes) < 2:
        raise AqaError(f"{root}: expected two class folders or more, found {classes}")
    _require_sound(root, train, test)
    division = f"{held_out:g} of each class held out, seed {seed}"
    return ClassSet(root, classes, tuple(train), tuple(test), division)


def _recording(path: Path) -> str:
    """Name what a clip was cut from: UCF-101's group, else the clip itself."""
    found = _GROUP.search(path.stem)
    return path.stem[: found.end()] if found else path.name


def _require_sound(
    root: Path, train: Iterable[LabelledVideo], test: Iterable[LabelledVideo]
) -> None:
    """Check that every video is there, inside the root, and on one side only."""
    sides = [[video.name for video in side] for side in (train, test)]
    names = [name for side in sides for name in side]
    if not all(sides):
        raise AqaError(f"{root}: expected videos to train and to test on, found none")
    seen: set[str] = set()
    base = root.resolve()
    problems = []
    for name in names:
        if not name.isprintable() or not (base / name).resolve().is_relative_to(base):
            problems.append(f"{name!r} leads out of the folder")
        elif name in seen:
            problems.append(f"{name} is listed twice")
        elif not (base / name).is_file():
            problems.append(f"{name} is missing")
        seen.add(name)
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise AqaError(f"{root}: {', '.join(problems[:5])}{more}")
