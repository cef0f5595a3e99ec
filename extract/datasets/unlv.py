"""UNLV-Dive and UNLV-Vault, the predecessors of AQA-7: numbered videos and scores.

A folder has `diving_overall_scores.mat` (`overall_scores`, one per video), beside it
`diving_difficulty_level.mat`, `diving_samples_len_ori/001.avi` or such, and
`split_300_70/{training,testing}_idx.mat` with numbers from 1; vault likewise.

Conventions: keys are `diving/001` and `gym_vault/001`; videos of the original length
are preferred. The difficulty is kept as `Video.extra`.

Source: Parmar and Morris, "Learning to Score Olympic Events", CVPR workshops 2017.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from aqa.cache.errors import AqaError
from aqa.cache.matlab import read_matrix
from aqa.extract.datasets.dataset import (
    Dataset,
    Files,
    Layout,
    Problems,
    Request,
    Video,
    check_actions,
)

#: Action, and what names of its files begin with.
ACTIONS = {"diving": "diving", "gym_vault": "gym_vault"}
_SCORES = "_overall_scores.mat"


def _matches(path: Path) -> bool:
    return any((path / f"{name}{_SCORES}").is_file() for name in ACTIONS.values())


def _read(request: Request) -> Dataset:
    root = request.path
    problems = Problems(root)
    files = Files(root, request, problems)
    videos: list[Video] = []
    for action, name in ACTIONS.items():
        if (root / f"{name}{_SCORES}").is_file():
            videos += _read_action(root, action, name, files)
    check_actions(request.actions, {video.action for video in videos}, problems)
    problems.check()
    videos = [v for v in videos if v.action in (request.actions or ACTIONS)]
    count = Counter(video.split for video in videos)
    note = f"UNLV: {count['train']} train, {count['test']} test"
    return Dataset(root, LAYOUT.name, tuple(videos), (note, *files.notes()))


LAYOUT = Layout("unlv", "UNLV-Dive or UNLV-Vault", _matches, _read)


def _read_action(root: Path, action: str, name: str, files: Files) -> list[Video]:
    scores = read_matrix(root / f"{name}{_SCORES}", "overall_scores").ravel()
    levels = None
    if (path := root / f"{name}_difficulty_level.mat").is_file():
        levels = read_matrix(path, "difficulty_level").ravel()
    splits: dict[int, str] = {}
    folders = sorted(path.parent for path in root.glob("split*/training_idx.mat"))
    if len(folders) > 1:
        found = ", ".join(folder.name for folder in folders)
        raise AqaError(f"{root}: expected one split, found {found}; remove the others")
    for folder in folders:
        for split, listed in (("train", "training"), ("test", "testing")):
            numbers = read_matrix(folder / f"{listed}_idx.mat", f"{listed}_idx").ravel()
            if not np.isin(numbers, np.arange(1, len(scores) + 1)).all():
                raise AqaError(
                    f"{folder.name}: expected numbers 1 to {len(scores)}, found others"
                )
            splits |= dict.fromkeys(numbers.astype(int).tolist(), split)
    samples = sorted(
        (path.name for path in root.glob(f"{name}_samples_len_*")),
        key=lambda folder: (not folder.endswith("_ori"), folder),
    )
    videos = []
    for number, score in enumerate(scores.tolist(), start=1):
        places = [f"{folder}/{number:03d}.avi" for folder in samples]
        extra = {} if levels is None else {"difficulty": f"{levels[number - 1]:g}"}
        if place := files.find(*places, f"{name}_samples_len_ori/{number:03d}.avi"):
            labels = action, splits.get(number, ""), score, extra
            videos.append(Video(f"{action}/{number:03d}", place, *labels))
    return videos
