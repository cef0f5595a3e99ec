"""Labelled videos: UCF-101 with its official lists, or any folder of class folders.

Conventions: labels count from 0 in memory, from 1 in UCF-101's files. A video is named
by its POSIX path relative to the root, as in the lists. `trainlist0N.txt` has lines
`Class/video.avi LABEL`, `testlist0N.txt` lines `Class/video.avi`, `classInd.txt` lines
`LABEL Class`.

Without lists, part of every class is held out, chosen by seed. Clips cut from one
recording (UCF-101's `_gNN_`) stay on one side, or the test would be too easy.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from aqa.cache.errors import AqaError, brief, raise_any
from aqa.cache.samples import is_inside
from aqa.extract.datasets.dataset import is_ignored

#: Suffixes of videos in a folder of class folders.
SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
_GROUP = re.compile(r"_g\d+(?=_c\d+)")
_INDEX, _TRAIN, _TEST = "classInd.txt", "trainlist", "testlist"
_MOST_BYTES = 64 << 20  # UCF-101's longest list has 400 kB


@dataclass(frozen=True)
class LabelledVideo:
    """A video and the index of its class."""

    name: str
    label: int


@dataclass(frozen=True)
class ClassSet:
    """Classes in the order of their labels, and the videos of both sides.

    `division` says in words how the sides were chosen.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[LabelledVideo, ...]
    test: tuple[LabelledVideo, ...]
    division: str


def read_classes(
    root: Path, split: Path | None = None, held_out: float = 0.25, seed: int = 0
) -> ClassSet:
    """Read a data set of labelled videos and check that all of them exist.

    Args:
        root: the folder with one folder per class.
        split: a training list, with its test list and class index beside it; None for
            the first split in `root`, if there is one.
        held_out: without lists, the part of each class to test on.
        seed: without lists, chooses that part.

    Raises:
        AqaError: naming what is missing, listed twice, or contradictory.
    """
    if not root.is_dir():
        raise AqaError(f"{root}: expected a folder of class folders, found none")
    if split is None and (root / f"{_TRAIN}01.txt").is_file():
        split = root / f"{_TRAIN}01.txt"
    if split is None:
        found = _hold_out(root, held_out, seed)
    else:
        found = _read_lists(root, split)
    _require_sound(found)
    return found


def _read_lists(root: Path, split: Path) -> ClassSet:
    if _TRAIN not in split.name:
        raise AqaError(f"{split}: expected a file named {_TRAIN}0N.txt")
    other = split.with_name(split.name.replace(_TRAIN, _TEST))
    classes = _read_index(split.with_name(_INDEX))
    train = _read_list(split, classes, labelled=True)
    test = _read_list(other, classes, labelled=False)
    return ClassSet(root, classes, train, test, f"{split.name} and {other.name}")


def _lines(path: Path) -> list[str]:
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise AqaError(f"{path}: {size} bytes; at most {_MOST_BYTES} are read")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AqaError(f"{path}: expected a list of UCF-101's ({error})") from None
    return [line.strip() for line in lines if line.strip()]


def _read_index(path: Path) -> tuple[str, ...]:
    """Read the classes, whose labels must be 1 .. N in some order."""
    pairs = [line.partition(" ")[::2] for line in _lines(path)]
    names = {label: name.strip() for label, name in pairs}
    wanted = [str(label) for label in range(1, len(pairs) + 1)]
    if sorted(names) != sorted(wanted):
        found = brief(", ".join(label for label, _ in pairs))
        raise AqaError(f"{path}: expected labels 1 to {len(pairs)}, found {found}")
    classes = tuple(names[label] for label in wanted)
    if not all(classes) or len(set(classes)) < len(classes) or not classes:
        raise AqaError(f"{path}: expected distinct classes, found {len(set(classes))}")
    return classes


def _read_list(
    path: Path, classes: tuple[str, ...], *, labelled: bool
) -> tuple[LabelledVideo, ...]:
    """Read one side; a label that is written must be that of the folder."""
    labels = {name: label for label, name in enumerate(classes)}
    videos = []
    for line in _lines(path):
        name, _, written = line.rpartition(" ") if labelled else (line, "", "")
        folder = PurePosixPath(name).parts[:1]
        label = labels.get(folder[0]) if folder else None
        if label is None or (labelled and written != str(label + 1)):
            raise AqaError(
                f"{path}: expected `Class/video{' LABEL' * labelled}` that agrees with "
                f"{_INDEX}, found {brief(line)!r}"
            )
        videos.append(LabelledVideo(name, label))
    return tuple(videos)


def _hold_out(root: Path, held_out: float, seed: int) -> ClassSet:
    """Hold out part of each class, whole recordings at a time."""
    folders = sorted(
        path for path in root.iterdir() if path.is_dir() and not is_ignored(path.name)
    )
    if len(folders) < 2:
        raise AqaError(
            f"{root}: expected two class folders or more, found {len(folders)}"
        )
    train: list[LabelledVideo] = []
    test: list[LabelledVideo] = []
    for label, folder in enumerate(folders):
        videos = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and not is_ignored(path.name)
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
    division = f"{held_out:g} of each class held out, seed {seed}"
    return ClassSet(root, classes, tuple(train), tuple(test), division)


def _recording(path: Path) -> str:
    """Name the recording of a clip: UCF-101's group, else the clip itself."""
    found = _GROUP.search(path.stem)
    return path.stem[: found.end()] if found else path.name


def _require_sound(found: ClassSet) -> None:
    """Check that every video exists, lies in the root, and is on one side only."""
    if not (found.train and found.test):
        raise AqaError(
            f"{found.root}: expected videos to train and to test on, found none"
        )
    seen: set[str] = set()
    problems = []
    for video in (*found.train, *found.test):
        path = found.root / video.name
        if not video.name.isprintable() or not is_inside(path, found.root):
            problems.append(f"{brief(video.name)!r} leads out of the folder")
        elif video.name in seen:
            problems.append(f"{video.name} is listed twice")
        elif not path.is_file():
            problems.append(f"{video.name} is missing")
        seen.add(video.name)
    raise_any([f"{found.root}: {problem}" for problem in problems])
