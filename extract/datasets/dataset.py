"""What extraction needs to know of a data set, and the checks that layouts share.

Conventions: `key` names a video in the cache: `diving/001` in AQA-7, elsewhere the
normalised POSIX path relative to the root. `path` leads to a video file or to a folder
of frames. `split` is "train", "test" or empty; `score` is in judges' units, NaN where
unlabelled; `action` is empty in a folder without labels. Texts from lists and file
names are in Unicode's composed form (`normal_text`).
"""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aqa.cache.errors import AqaError, printable
from aqa.cache.samples import path_problem

#: Folders and files that systems and tools leave behind; hidden ones begin with a dot.
_LEFT_BEHIND = frozenset(
    "__macosx @eadir @tmp #recycle $recycle.bin lost+found desktop.ini thumbs.db "
    "ehthumbs.db __pycache__".split()
) | {"system volume information"}


def is_ignored(name: str) -> bool:
    """Return whether a folder entry is no data: hidden, or left behind by a system.

    >>> [is_ignored(name) for name in ("._a.mp4", "@eaDir", "Thumbs.db", "a.mp4")]
    [True, True, True, False]
    """
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


@dataclass(frozen=True, slots=True)
class Video:
    """One video to extract, with the labels that go into the cache.

    `extra` holds further label columns (fold, surgeon, ...), by name.
    """

    key: str
    path: Path
    action: str
    split: str
    score: float
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Dataset:
    """Videos sorted by key; `notes` tell the user what was found.

    `kind` is the name of the layout.
    """

    root: Path
    kind: str
    videos: tuple[Video, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """Where to look for a data set, and what to read of it."""

    path: Path
    #: None: those that the layout reads by default.
    actions: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Layout:
    """A form that data sets come in; `aqa.extract.datasets.reader` lists them all.

    `form` completes "expected ..."; `matches` returns whether a path has the layout,
    and `read` raises DatasetError naming everything that is wrong with it.
    """

    name: str
    form: str
    matches: Callable[[Path], bool]
    read: Callable[[Request], Dataset]


class DatasetError(AqaError):
    """A data set that cannot be used as it is; the message names every problem."""


class Problems:
    """What is wrong with a data set, collected by kind and raised all at once."""

    def __init__(self, where: Path) -> None:
        """Start without problems; `where` opens the message."""
        self._where = where
        self._found: dict[str, list[str]] = {}

    def add(self, kind: str, item: str) -> None:
        """Add a problem; `kind` is what several may have in common."""
        self._found.setdefault(kind, []).append(item)

    def check(self) -> None:
        """Raise `DatasetError` if there are problems.

        The first eight of each kind are listed and the rest counted, so that a million
        bad rows make a short message and no kind hides another.
        """
        if not self._found:
            return
        lines = []
        for kind, items in self._found.items():
            shown = "; ".join(printable(item)[:200] for item in items[:8])
            count = f" ({len(items)})" if len(items) > 1 else ""
            more = f"; and {len(items) - 8} more" if len(items) > 8 else ""
            lines.append(f"{kind}{count}: {shown}{more}")
        where = printable(str(self._where))
        if len(lines) == 1:
            raise DatasetError(f"{where}: {lines[0]}")
        total = sum(map(len, self._found.values()))
        raise DatasetError("\n  ".join([f"{where}: {total} problems", *lines]))


class Tree:
    """The files below a folder; paths that lead out of it are refused."""

    def __init__(self, root: Path) -> None:
        """Use `root`, which may itself be a link."""
        self.root = root
        self._real = os.path.realpath(root)
        self._folders: dict[str, str] = {}

    def holds(self, path: str) -> bool:
        """Return whether `path`, all links followed, lies below the root."""
        real = os.path.realpath(path)
        return real == self._real or real.startswith(self._real.rstrip("/") + "/")

    def has(self, relative: str) -> bool:
        """Return whether a file or folder exists at a normalised relative path.

        Raises:
            AqaError: a link on the way leads out of the root.
        """
        folder, _, name = relative.rpartition("/")
        # Resolve each folder once: lists have a hundred thousand rows.
        if (real := self._folders.get(folder)) is None:
            real = os.path.realpath(os.path.join(self._real, folder))
            if not self.holds(real):
                raise AqaError(f"{relative} leads out of {self.root}")
            self._folders[folder] = real
        path = os.path.join(real, name)
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                if not self.holds(path):
                    raise AqaError(f"{relative} is a link out of {self.root}")
                mode = os.stat(path).st_mode
        except OSError:
            return False
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def key_of(text: str) -> str:
    """Return the key of the file that a list names: relative, without "." parts.

    Raises:
        AqaError: an absolute path, "..", or no valid key.
    """
    if text.startswith("/"):
        raise AqaError(f"{text!r}: expected a relative path, found an absolute one")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise AqaError(f"{text!r} leads out of its folder with ..")
    key = "/".join(parts)
    if problem := path_problem(key):
        raise AqaError(f"path {problem}: {text!r}")
    return key


def check_actions(
    asked: tuple[str, ...] | None, present: set[str], problems: Problems
) -> None:
    """Add a problem for each action asked for that is not present."""
    found = ", ".join(sorted(present)) or "none"
    for action in asked or ():
        if action not in present:
            problems.add("no sample of the action", f"{action}, found {found}")
