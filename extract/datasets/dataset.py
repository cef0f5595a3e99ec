"""What a data set is to extraction, and how all that is wrong with one is said.

Conventions: `key` names a video in the cache, `diving/001` in AQA-7 and else the
normalised POSIX path relative to the root; `split` is "train", "test" or empty;
`score` is in judges' units, NaN where unlabelled; `action` is empty in a bare
folder. `path` leads to a video file or to a folder of frames, inside the root.
"""

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aqa.cache.errors import AqaError, printable
from aqa.cache.samples import path_problem

#: No file name that people meant to write holds one of these: control
#: characters, line separators, and bytes that are no UTF-8.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Video:
    """One video to extract, with the labels that travel into the cache."""

    key: str
    path: Path
    action: str
    split: str
    score: float


@dataclass(frozen=True)
class Dataset:
    """Videos sorted by key; `notes` say what was found, for the user to read.

    `kind` is "aqa-7", "manifest" or "folder".
    """

    root: Path
    kind: str
    videos: tuple[Video, ...]
    notes: tuple[str, ...]


class DatasetError(AqaError):
    """A data set that cannot be used as it is; the message names every problem."""


class Problems:
    """What is wrong with a data set, gathered by kind and said all at once."""

    def __init__(self, where: Path) -> None:
        """Begin with nothing wrong at `where`."""
        self._where = where
        self._found: dict[str, list[str]] = {}

    def add(self, kind: str, item: str) -> None:
        """Note one thing that is wrong; `kind` is what many may have in common."""
        self._found.setdefault(kind, []).append(item)

    def check(self) -> None:
        """Raise `DatasetError` where there was anything to note.

        Of each kind the first eight are listed and the rest counted, so that a
        million bad rows make a short message and no kind hides another.
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
    """The files under a root; nothing outside of it can be reached."""

    def __init__(self, root: Path) -> None:
        """Take `root` as it is now, itself perhaps reached over a link."""
        self.root = root
        self._real = os.path.realpath(root)
        self._folders: dict[str, str] = {}

    def holds(self, path: str) -> bool:
        """Whether `path`, all links followed, lies under the root."""
        real = os.path.realpath(path)
        return real == self._real or real.startswith(self._real.rstrip("/") + "/")

    def has(self, relative: str) -> bool:
        """Whether a file or folder lies at a normalised relative path.

        Raises:
            AqaError: a link on the way leads out of the root.
        """
        folder, _, name = relative.rpartition("/")
        # One look at the disk a file, not one for each folder above it: manifests
        # have a hundred thousand rows.
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


def normalised(text: str) -> str:
    """Key of the file that a manifest names: relative, POSIX, without "." parts.

    Raises:
        AqaError: an absolute path, "..", or what the cache takes for no key.
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


def chosen(
    actions: tuple[str, ...] | None, present: set[str], problems: Problems
) -> Callable[[str], bool]:
    """Test for the actions asked for, all if None; each must be `present`."""
    if actions is None:
        return lambda action: True
    found = ", ".join(sorted(present)) or "none"
    for action in actions:
        if action not in present:
            problems.add("no sample of the action", f"{action}, found {found}")
    return lambda action: action in actions
