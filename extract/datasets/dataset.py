"""What extraction needs to know of a data set, and the checks that layouts share.

Conventions: `key` names a video in the cache: `diving/001` in AQA-7, elsewhere the
normalised POSIX path relative to the root. `path` leads to a video file or to a folder
of frames. `split` is "train", "test" or empty; `score` is in judges' units, NaN where
unlabelled; `action` is empty in a folder without labels. Texts from lists and file
names are in Unicode's composed form (`normal_text`).
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import filterfalse, product
from pathlib import Path

from aqa.cache.errors import AqaError, printable
from aqa.cache.samples import is_inside, normal_text, path_problem

#: Of video files.
SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts "
    ".ts .webm .wmv".split()
)
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
    """Videos sorted by key; `notes` tell the user what was found."""

    root: Path
    videos: tuple[Video, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """Where to look for a data set, and what to read of it."""

    path: Path
    #: None: those that the layout reads by default.
    actions: tuple[str, ...] | None = None
    #: Folders besides the data set's own that its files may lie in (`--root`).
    roots: tuple[Path, ...] = ()
    #: Keep videos that do not exist: extraction reports each as a failure.
    skip_missing: bool = False
    #: Only keys and labels are needed; videos need not exist.
    labels_only: bool = False


@dataclass(frozen=True)
class Layout:
    """A form that data sets come in; `aqa.extract.datasets.LAYOUTS` lists them all.

    `form` completes "expected ..."; `matches` tells by its truth whether a path has the
    layout, and `read` raises DatasetError naming everything that is wrong with it.
    """

    form: str
    matches: Callable[[Path], object]
    read: Callable[[Request], Dataset]


class DatasetError(AqaError):
    """A data set that cannot be used as it is; the message names every problem."""


class Files:
    """The files that a data set may name: below its folder, or a root of the request.

    Paths that lead out of all of these are refused. Problems are collected by kind and
    raised all at once.
    """

    def __init__(self, request: Request) -> None:
        """Look in the folder that the request names, or where its list lies."""
        path = request.path
        self.roots = (path.parent if path.is_file() else path, *request.roots)
        self._request = request
        self._problems: dict[str, list[str]] = {}
        self._missing: list[str] = []
        self._ambiguous: list[str] = []
        self._folders: dict[str, str] = {}
        self._names: dict[str, dict[str, list[str]]] = {}

    def asked(self, action: str) -> bool:
        """Return whether the request includes an action."""
        return not self._request.actions or action in self._request.actions

    def check_actions(self, present: set[str]) -> None:
        """Add a problem for each action asked for that is not present."""
        found = ", ".join(sorted(present)) or "none"
        for action in self._request.actions or ():
            if action not in present:
                self.add("no sample of the action", f"{action}, found {found}")

    def add(self, kind: str, item: str) -> None:
        """Add a problem; `kind` is what several may have in common."""
        self._problems.setdefault(kind, []).append(item)

    def add_outside(self, item: str) -> None:
        """Add a problem about a file that lies outside all roots."""
        self.add(f"outside the data set; {_PERMIT}", item)

    def check(self) -> None:
        """Raise `DatasetError` if there are problems.

        The first eight of each kind are listed and the rest counted, so that a million
        bad rows make a short message and no kind hides another.
        """
        lines = []
        for kind, items in self._problems.items():
            shown = "; ".join(printable(item)[:200] for item in items[:8])
            count = f" ({len(items)})" if len(items) > 1 else ""
            more = f"; and {len(items) - 8} more" if len(items) > 8 else ""
            lines.append(f"{kind}{count}: {shown}{more}")
        where = printable(self._request.path)
        if len(lines) == 1:
            raise DatasetError(f"{where}: {lines[0]}")
        if lines:
            total = sum(map(len, self._problems.values()))
            raise DatasetError("\n  ".join([f"{where}: {total} problems", *lines]))

    def dataset(
        self,
        videos: list[Video],
        *notes: str,
        none: str = "expected videos in the lists, found none",
    ) -> Dataset:
        """Return the data set of some videos, in any order, with notes on its files.

        Raises:
            DatasetError: there are problems, or no videos, which `none` describes.
        """
        self.check()
        if not videos:
            raise DatasetError(f"{self._request.path}: {none}")
        if self._missing:
            notes += (
                f"{len(self._missing)} missing videos are skipped and listed in "
                f"failures.json: {listed(self._missing)}",
            )
        if self._ambiguous:
            notes += (
                f"{len(self._ambiguous)} videos lie in several places; used: "
                f"{listed(self._ambiguous)}",
            )
        ordered = tuple(sorted(videos, key=lambda video: video.key))
        return Dataset(self._request.path, ordered, notes)

    def holds(self, path: Path | str) -> bool:
        """Return whether `path`, all links followed, lies below one of the roots."""
        return any(is_inside(path, root) for root in self.roots)

    def exists(self, path: Path) -> bool:
        """Return whether there is a file or folder at `path`.

        Raises:
            AqaError: the path leads out of all roots.
        """
        folder, name = os.path.split(path)
        # Resolve each folder once: lists have a hundred thousand rows.
        if (real := self._folders.get(folder)) is None:
            real = os.path.realpath(folder)
            if not self.holds(real):
                raise AqaError(f"{self._shown(path)} leads out of it, to {real}")
            self._folders[folder] = real
        target = os.path.join(real, name)
        try:
            mode = os.lstat(target).st_mode
            if stat.S_ISLNK(mode):
                if not self.holds(target):
                    real = os.path.realpath(target)
                    raise AqaError(
                        f"{self._shown(path)} is a link out of it, to {real}"
                    )
                mode = os.stat(target).st_mode
        except OSError:
            return False
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode)

    def find(
        self, *places: str, where: str = "", roots: Sequence[Path] | None = None
    ) -> Path | None:
        """Return the first of some relative places that exists below a root.

        If none does, it is a problem ("missing video") and None is returned, unless
        missing videos are skipped or only labels are wanted. `where` names the row;
        `roots` narrows the search.
        """
        roots = roots or self.roots
        if self._request.labels_only:
            return roots[0] / places[0]
        candidates = [root / place for place in places for root in roots]
        try:
            found = [path for path in candidates if self.exists(path)]
        except AqaError as error:
            self.add_outside(f"{error}{where}")
            return None
        if found:
            self._ambiguous += [str(found[0])] * (len(found) > 1)
            return found[0]
        hint = ""
        for root, place in product(roots, places):
            similar = self._similar(root, place)
            if similar and similar != place:
                if normal_text(similar) == normal_text(place):
                    return root / similar  # another Unicode form of the same name
                hint = f"; did you mean {similar}?"
        if self._request.skip_missing:
            self._missing.append(places[0])
            return candidates[0]
        self.add("missing video", f"{places[0]}{where}{hint}")
        return None

    def _shown(self, path: Path) -> str:
        return os.path.relpath(path, self.roots[0])

    def _similar(self, root: Path, place: str) -> str | None:
        """Return the only path whose parts are written alike (`_folded`), if any."""
        found: list[str] = []
        for part in place.split("/"):
            folder = str(root.joinpath(*found))
            if (names := self._names.get(folder)) is None:
                names = self._names[folder] = {}
                with suppress(OSError):
                    for name in filterfalse(is_ignored, os.listdir(folder)):
                        names.setdefault(_folded(name), []).append(name)
            same = names.get(_folded(part), [])
            if part not in same and len(same) != 1:
                return None
            found.append(part if part in same else same[0])
        return "/".join(found)


_PERMIT = "--root DIR permits files below DIR"


def _folded(name: str) -> str:
    """Return a name without what lists get wrong: case, leading zeros, the suffix.

    >>> _folded("Dive_007.AVI") == _folded("dive_7") == _folded("dive_07.mp4")
    True
    """
    stem, suffix = os.path.splitext(normal_text(name).casefold())
    stem += "" if suffix in SUFFIXES else suffix
    return re.sub("0*([0-9]+)", r"\1", stem)


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return the first names of a list in one line."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return printable(", ".join(names[:most]) + more)


def key_of(text: str) -> str:
    """Return the key of the file that a list names: relative, without "." parts.

    Raises:
        AqaError: an absolute path, "..", or no valid key.
    """
    if text.startswith("/"):
        raise AqaError(
            f"{text!r}: expected a relative path, found an absolute one; {_PERMIT}"
        )
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise AqaError(f"{text!r} leads out of its folder with ..; {_PERMIT}")
    key = normal_text("/".join(parts))
    if problem := path_problem(key):
        raise AqaError(f"path {problem}: {text!r}")
    return key


def split_counts(videos: Sequence[Video]) -> str:
    """Return how many videos are in each split, as in "3 train, 1 test"."""
    counts = Counter(video.split for video in videos)
    return f"{counts['train']} train, {counts['test']} test"
