"""AQA-7: lists in MATLAB files.

A sample NNN of an action lies at one of

    Actions/<action>/NNN.avi            as released, or .mp4
    Actions/<action>/frames/NNN/*.jpg   frames, as some repositories unpack them
    <action>-out/NNN/img_00001.jpg      frames, as most do

and the lists are Split_4/split_4_{train,test}_list.mat, or are named like the variables
inside them. A list is a float64 matrix (n, 3): action id 1-7, sample number from 1,
score. The authors' own lists hold scores times 100, other copies plain ones; the score
ranges of the paper's Table 1 tell which.

Conventions: keys are `diving/001`. Only listed samples are read, since a video without
a list has neither label nor split; but an action that is asked for by name and is in
no list, as trampoline, is read whole and unlabelled.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aqa.cache.actions import ACTIONS, BY_NAME, EXPERIMENT_ACTIONS
from aqa.cache.errors import AqaError
from aqa.cache.tables import read_matrix
from aqa.extract.datasets.dataset import (
    Dataset,
    Files,
    Layout,
    Request,
    Video,
    split_counts,
)

SPLITS = ("train", "test")
MAX_ROWS = 100_000
#: Judges' scores have at most four decimals; rounding hides the division by 100.
DECIMALS = 6

#: Action, sample number, split, score in judges' units.
Row = tuple[str, int, str, float]


def _find(path: Path) -> Path | None:
    """Return the release at `path` or at `path`/AQA-7, if there is one."""
    for root in (path, path / "AQA-7"):
        folders = [root / f"{action.name}-out" for action in ACTIONS]
        folders += [root / "Actions" / action.name for action in ACTIONS]
        lists = (_list_path(root, split) for split in SPLITS)
        if any(lists) or any(map(Path.is_dir, folders)):
            return root
    return None


def _read(request: Request) -> Dataset:
    """Read the listed samples of `actions`, by default the six of the experiments."""
    root, actions = _find(request.path) or request.path, request.actions
    files = Files(replace(request, path=root))
    for action in actions or ():
        if action not in BY_NAME:
            known = ", ".join(BY_NAME)
            files.add("unknown action", f"{action}; AQA-7 has {known}")
    files.check()
    rows, were_hundredfold = _read_lists(root, files)
    for action in set(actions or ()) - {action for action, *_ in rows}:
        rows += [(action, number, "", math.nan) for number in _numbers(root, action)]
    present = {action for action, *_ in rows}
    wanted = actions or tuple(name for name in EXPERIMENT_ACTIONS if name in present)
    files.check_actions(present)
    videos = []
    for action, number, split, score in rows:
        if action in wanted and (path := files.find(*_places(action, number))):
            videos.append(Video(_key(action, number), path, action, split, score))
    form = "times 100, and were divided" if were_hundredfold else "plain"
    notes = (f"scores in the lists are {form}", *_counts(videos, present))
    none = "no sample of the six actions; name another"
    return files.dataset(videos, *notes, none=none)


AQA7 = Layout("the AQA-7 folder", _find, _read)


def _key(action: str, number: int) -> str:
    return f"{action}/{number:03d}"


def _list_path(root: Path, split: str) -> Path | None:
    names = (f"split_4_{split}_list.mat", f"consolidated_{split}_list.mat")
    for folder in (root / "Split_4", root):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def _read_lists(root: Path, files: Files) -> tuple[list[Row], bool]:
    """Read both lists; also return whether their scores were times 100."""
    tables, places = [], []
    for split in SPLITS:
        path = _list_path(root, split)
        if path is None:
            files.add(
                "missing list",
                f"expected Split_4/split_4_{split}_list.mat, or Split_4/"
                f"consolidated_{split}_list.mat; for unlabelled videos give a folder "
                "without this layout",
            )
            continue
        try:
            if not files.holds(path):
                raise AqaError(f"{path.name} is a link out of {root}")
            tables.append(read_split_list(path, f"consolidated_{split}_list"))
        except AqaError as error:
            files.add("unusable list", str(error))
            continue
        places += [(split, row + 1) for row in range(len(tables[-1]))]
    files.check()

    ids, numbers, scores = np.concatenate(tables).T
    valid = (ids % 1 == 0) & (1 <= ids) & (ids <= len(ACTIONS))
    valid &= (numbers % 1 == 0) & (1 <= numbers) & (numbers < 1e5)
    for index in np.flatnonzero(~valid).tolist():
        split, row = places[index]
        files.add(
            f"expected an action id 1-{len(ACTIONS)} and a sample number from 1",
            f"{split} row {row} has {ids[index]:g} and {numbers[index]:g}",
        )
    files.check()

    units, hundredfold, outside = in_judges_units(scores, ids.astype(np.int64))
    rows: list[Row] = []
    first: dict[str, str] = {}
    for index, (split, _) in enumerate(places):
        action, number = ACTIONS[int(ids[index]) - 1], int(numbers[index])
        key = _key(action.name, number)
        rows.append((action.name, number, split, float(units[index])))
        if outside[index]:
            low, high = action.score_range
            files.add(
                "score outside the action's range",
                f"{key} ({split}) has {scores[index]:g}, expected {low:g} to {high:g}, "
                "or that times 100",
            )
        if key in first:
            lists = (
                f"twice in the {split} list" if first[key] == split else "in both lists"
            )
            files.add(f"sample {lists}", key)
        first[key] = split
    times = int(hundredfold.sum())
    plain = len(rows) - times - int(outside.sum())
    if times and plain:
        files.add(
            "lists mix scores that are plain and times 100",
            f"{plain} plain, {times} times 100; expected one form in both lists",
        )
    return rows, times > 0


def read_split_list(path: Path, variable: str) -> npt.NDArray[np.float64]:
    """Return one list as written: (n, 3) of action id, sample number, score.

    Raises:
        AqaError: the file is no such list; says what it is.
    """
    rows = read_matrix(path, variable)
    if rows.ndim != 2 or rows.shape[1] != 3 or not 0 < len(rows) <= MAX_ROWS:
        raise AqaError(
            f"{path.name}: expected {variable} to be (n, 3) with at most {MAX_ROWS} "
            f"rows, found {rows.shape}"
        )
    return rows


def in_judges_units(
    scores: npt.NDArray[np.float64], ids: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return scores in judges' units; which were times 100; which fit neither form.

    `ids` are action ids 1-7, one per score. No range overlaps itself times 100.
    """
    low, high = np.array([action.score_range for action in ACTIONS])[ids - 1].T
    hundredth = np.round(scores / 100, DECIMALS)
    plain = np.round(scores, DECIMALS)
    is_hundredfold = (low <= hundredth) & (hundredth <= high)
    is_plain = (low <= plain) & (plain <= high)
    units = np.where(is_hundredfold, hundredth, plain)
    return units, is_hundredfold, ~is_hundredfold & ~is_plain


def _places(action: str, number: int) -> tuple[str, ...]:
    return (
        f"Actions/{action}/{number:03d}.avi",
        f"Actions/{action}/{number:03d}.mp4",
        f"Actions/{action}/frames/{number:03d}",
        f"{action}-out/{number:03d}",
    )


def _numbers(root: Path, action: str) -> list[int]:
    """Return the sample numbers of an action that have a video, listed or not."""
    folders = {(root / place).parent for place in _places(action, 0)}
    names = {path.name for folder in folders for path in folder.glob("[0-9]*")}
    stems = {name.removesuffix(".avi").removesuffix(".mp4") for name in names}
    numbers = {int(stem) for stem in stems if re.fullmatch("[0-9]{3,5}", stem)}
    return sorted(
        number
        for number in numbers - {0}
        if any((root / place).exists() for place in _places(action, number))
    )


def _counts(videos: list[Video], present: set[str]) -> Iterator[str]:
    """Yield notes: numbers per split, and how they differ from the release's."""
    counts = Counter((video.action, video.split) for video in videos)
    differing = []
    for action in ACTIONS:
        found = tuple(counts[action.name, split] for split in SPLITS)
        if any(found) and action.train and found != (action.train, action.test):
            differing.append(
                f"{action.name} {found[0]} train, {found[1]} test "
                f"(released: {action.train}, {action.test})"
            )
    unlisted = [video.action for video in videos if not video.split]
    if differing:
        yield f"{split_counts(videos)}; not as released: {'; '.join(differing)}"
    elif len(unlisted) < len(videos):
        yield f"{split_counts(videos)}, as released"
    if unlisted:
        yield (
            f"{len(unlisted)} videos in no list, unlabelled: "
            f"{', '.join(sorted(set(unlisted)))}; `aqa cache relabel` gives them labels"
        )
    left_out = present - {video.action for video in videos}
    if left_out:
        yield f"listed, but not asked for: {', '.join(sorted(left_out))}"
