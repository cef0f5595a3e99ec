"""The released AQA-7 folder: its lists, its videos, or frames unpacked from them.

Conventions: keys are `diving/001`; only listed samples are taken, since a video
without a list has no label and no part. The lists say nothing of trampoline: an action
that is asked for by name and in no list comes whole, unlabelled. A sample NNN of an
action lies at one of

    Actions/<action>/NNN.avi            as released
    Actions/<action>/frames/NNN/*.jpg   frames, as some repositories unpack them
    <action>-out/NNN/img_00001.jpg      frames, as most do

and the lists are Split_4/split_4_{train,test}_list.mat, or bear the names of the
variables inside them.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from aqa.cache.actions import ACTIONS, BY_NAME, EXPERIMENT_ACTIONS
from aqa.cache.errors import AqaError
from aqa.extract.datasets.dataset import (
    Dataset,
    DatasetError,
    Problems,
    Tree,
    Video,
    chosen,
)
from aqa.extract.datasets.split_list import in_judges_units, read_split_list

SPLITS = ("train", "test")


def find_release(path: Path) -> Path | None:
    """The release at `path` or at `path`/AQA-7; None where neither looks like one."""
    for root in (path, path / "AQA-7"):
        folders = [root / f"{action.name}-out" for action in ACTIONS]
        folders += [root / "Actions" / action.name for action in ACTIONS]
        lists = (_list_path(root, split) for split in SPLITS)
        if any(lists) or any(map(Path.is_dir, folders)):
            return root
    return None


def read_release(root: Path, actions: tuple[str, ...] | None) -> Dataset:
    """The listed samples of `actions`, by default the six of the experiments.

    Raises:
        DatasetError: names every list, row and video that is not as it should be.
    """
    problems = Problems(root)
    for action in actions or ():
        if action not in BY_NAME:
            known = ", ".join(BY_NAME)
            problems.add("unknown action", f"{action}; AQA-7 has {known}")
    problems.check()
    samples, is_hundredfold = _listed(root, problems)
    for action in set(actions or ()) - {action for action, _, _, _ in samples}:
        samples += [(action, number, "", math.nan) for number in _numbers(root, action)]
    present = {action for action, _, _, _ in samples}
    wanted = chosen(
        actions or tuple(name for name in EXPERIMENT_ACTIONS if name in present),
        present,
        problems,
    )
    tree = Tree(root)
    videos = []
    for action, number, split, score in samples:
        if wanted(action) and (path := _find_video(tree, action, number, problems)):
            key = f"{action}/{number:03d}"
            videos.append(Video(key, path, action, split, score))
    problems.check()
    if not videos:
        raise DatasetError(f"{root}: no sample of the six actions; name another")
    videos.sort(key=lambda video: video.key)
    notes = _notes(videos, is_hundredfold, present)
    return Dataset(root, "aqa-7", tuple(videos), tuple(notes))


def _list_path(root: Path, split: str) -> Path | None:
    names = (f"split_4_{split}_list.mat", f"consolidated_{split}_list.mat")
    for folder in (root / "Split_4", root):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def _listed(
    root: Path, problems: Problems
) -> tuple[list[tuple[str, int, str, float]], bool]:
    """All samples (action, number, split, score), and whether scores were times 100."""
    rows, splits = [], []
    for split in SPLITS:
        path = _list_path(root, split)
        if path is None:
            problems.add(
                "missing list",
                f"expected Split_4/split_4_{split}_list.mat, or Split_4/"
                f"consolidated_{split}_list.mat; for unlabelled videos give a folder "
                "without this layout",
            )
            continue
        try:
            if not Tree(root).holds(str(path)):
                raise AqaError(f"{path.name} is a link out of {root}")
            found = read_split_list(path, f"consolidated_{split}_list")
        except AqaError as error:
            problems.add("unusable list", str(error))
            continue
        rows.append(found)
        splits += [(split, row + 1) for row in range(len(found))]
    problems.check()

    table = np.concatenate(rows)
    ids, numbers, scores = table.T
    good = (ids % 1 == 0) & (1 <= ids) & (ids <= len(ACTIONS))
    good &= (numbers % 1 == 0) & (1 <= numbers) & (numbers < 1e5)
    for index in np.flatnonzero(~good).tolist():
        split, row = splits[index]
        problems.add(
            f"expected an action id 1-{len(ACTIONS)} and a sample number from 1",
            f"{split} row {row} has {ids[index]:g} and {numbers[index]:g}",
        )
    problems.check()

    whole = ids.astype(np.int64)
    units, hundredfold, strange = in_judges_units(scores, whole)
    samples = []
    for index, (split, _) in enumerate(splits):
        action = ACTIONS[whole[index] - 1]
        number, score = int(numbers[index]), float(units[index])
        samples.append((action.name, number, split, score))
        if strange[index]:
            low, high = action.score_range
            problems.add(
                "score outside the action's range",
                f"{action.name}/{number:03d} ({split}) has {scores[index]:g}, expected "
                f"{low:g} to {high:g}, or that times 100",
            )
    times = int(hundredfold.sum())
    plain = len(table) - times - int(strange.sum())
    if times and plain:
        problems.add(
            "lists mix scores that are plain and times 100",
            f"{plain} plain, {times} times 100; expected one form in both lists",
        )
    _check_repeats(samples, problems)
    return samples, times > 0


def _check_repeats(
    samples: list[tuple[str, int, str, float]], problems: Problems
) -> None:
    seen: dict[tuple[str, int], str] = {}
    for action, number, split, _ in samples:
        before = seen.setdefault((action, number), "")
        if before == split:
            problems.add(f"sample twice in the {split} list", f"{action}/{number:03d}")
        elif before:
            problems.add("sample in both lists", f"{action}/{number:03d}")
        seen[action, number] = split


def _find_video(
    tree: Tree, action: str, number: int, problems: Problems
) -> Path | None:
    """Where a sample lies; notes a problem and gives None if nowhere."""
    places = list(_places(action, number))
    for place in places:
        try:
            if tree.has(place):
                return tree.root / place
        except AqaError as error:
            problems.add("video outside the data set", str(error))
            return None
    problems.add("missing video", places[0])
    return None


def _places(action: str, number: int) -> Iterator[str]:
    yield f"Actions/{action}/{number:03d}.avi"
    yield f"Actions/{action}/frames/{number:03d}"
    yield f"{action}-out/{number:03d}"


def _numbers(root: Path, action: str) -> list[int]:
    """Sample numbers of an action whose video lies somewhere, listed or not."""
    folders = {(root / place).parent for place in _places(action, 0)}
    names = {path.name for folder in folders for path in folder.glob("[0-9]*")}
    stems = {name.removesuffix(".avi") for name in names}
    numbers = {int(stem) for stem in stems if re.fullmatch("[0-9]{3,5}", stem)}
    return sorted(
        number
        for number in numbers - {0}
        if any((root / place).exists() for place in _places(action, number))
    )


def _notes(
    videos: list[Video], is_hundredfold: bool, present: set[str]
) -> Iterator[str]:
    form = "times 100, and were divided" if is_hundredfold else "plain"
    yield f"scores in the lists are {form}"
    counts = Counter((video.action, video.split) for video in videos)
    by_split = Counter(video.split for video in videos)
    differing = []
    for action in ACTIONS:
        found = tuple(counts[action.name, split] for split in SPLITS)
        if any(found) and action.train and found != (action.train, action.test):
            differing.append(
                f"{action.name} {found[0]} train, {found[1]} test "
                f"(released: {action.train}, {action.test})"
            )
    train, test, rest = (by_split[split] for split in (*SPLITS, ""))
    total = f"{train} train, {test} test"
    if differing:
        yield f"{total}; not as released: {'; '.join(differing)}"
    elif train or test:
        yield f"{total}, as released"
    if rest:
        unlisted = sorted({video.action for video in videos if not video.split})
        yield (
            f"{rest} videos in no list, unlabelled: {', '.join(unlisted)}; "
            "`aqa cache relabel` gives them labels"
        )
    left_out = present - {video.action for video in videos}
    if left_out:
        yield f"listed, but not asked for: {', '.join(sorted(left_out))}"
