"""The synthetic data set, in the layout of the released AQA-7.

Conventions: `AQA-7/Actions/<action>/NNN.avi` and the two lists of split 4 with rows
(action id, sample number, 100 x score), as in the release. In addition
`AQA-7/poses/<action>/NNN.json` holds the joints, `AQA-7/truth.json` what was rendered,
`AQA-7/manifest.json` the settings, written first so that a stopped rendering can be
continued. A video depends only on the seed, its action and its number, so its bytes do
not depend on the number of processes.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.actions import ACTIONS, BY_NAME, Action
from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.cache.files import make_folder, write_file
from aqa.cache.processes import process_map
from aqa.extract.synthetic.film import film, write_poses, write_video
from aqa.extract.synthetic.performance import (
    Performance,
    Verdict,
    draw_performance,
    judge,
)
from aqa.extract.synthetic.scene import draw_appearance

#: Smallest number of videos per action and list, at any scale.
FEWEST = 6
#: Share of trampoline videos in the training list; the release lists none.
TRAMPOLINE_TRAIN = 0.75


@dataclass(frozen=True)
class VideoTask:
    """One video to render; `split` is its list, "train" or "test"."""

    folder: Path
    action: str
    number: int
    split: str
    seed: int

    @property
    def identity(self) -> int:
        """The action's id in the lists."""
        return ACTIONS.index(BY_NAME[self.action]) + 1

    @property
    def label(self) -> str:
        """The sample's key."""
        return f"{self.action}/{self.number:03d}"


def synthesise(
    folder: Path | str,
    scale: float = 1.0,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = silent,
    actions: Sequence[str] | None = None,
    fewest: int = FEWEST,
) -> Path:
    """Render a data set of AQA-7's shape into `folder` and return its root, `AQA-7`.

    Args:
        folder: where `AQA-7` is created, or continued after an interrupted call.
        scale: factor on the numbers of videos in the paper's Table 1.
        seed: same seed and scale, same bytes.
        workers: processes; None for one per usable processor.
        progress: called with (done, total, label).
        actions: names; None for all seven.
        fewest: smallest number of videos per action and list.

    Raises:
        AqaError: unknown action, scale not positive, or other content in the folder.
    """
    wanted = list(BY_NAME) if actions is None else list(actions)
    unknown = sorted(set(wanted) - set(BY_NAME))
    if unknown or not wanted:
        raise AqaError(
            f"no such action: {', '.join(unknown) or 'none named'}; expected some of "
            f"{', '.join(BY_NAME)}"
        )
    if not 0 < scale < math.inf:
        raise AqaError(f"scale: expected a number above 0, found {scale}")
    root = Path(folder) / "AQA-7"
    write_manifest(root, actions=wanted, fewest=fewest, scale=scale, seed=seed)
    truth = root / "truth.json"
    if truth.exists():
        return root
    tasks = []
    for action in (action for action in ACTIONS if action.name in wanted):
        for kind in ("Actions", "poses"):
            (root / kind / action.name).mkdir(parents=True, exist_ok=True)
        for number, split in enumerate(split_of(action, scale, seed, fewest), start=1):
            tasks.append(VideoTask(root, action.name, number, split, seed))
    # Longest videos first, so that all processes finish at about the same time.
    ordered = sorted(tasks, key=lambda task: -BY_NAME[task.action].mean_length)
    made = process_map(make_video, ordered, workers, progress, lambda task: task.label)
    named = {task.label: video for task, video in zip(ordered, made, strict=True)}
    scores = [named[task.label]["score"] for task in tasks]
    _write_lists(root / "Split_4", tasks, scores)
    write_truth(truth, named, seed=seed, scale=scale)
    return root


def write_manifest(root: Path, **settings: Any) -> None:
    """Reserve `root` for the data set that `settings` describe.

    Raises:
        AqaError: the folder holds a data set of other settings, or something else.
    """
    path = root / "manifest.json"
    text = json.dumps(settings, sort_keys=True) + "\n"
    if path.exists():
        if (found := path.read_text(encoding="utf-8")) != text:
            raise AqaError(
                f"{root} holds another data set, made with {found.strip()}; expected "
                f"{text.strip()}: remove it or name another folder"
            )
        return
    if root.exists() and any(root.iterdir()):
        raise AqaError(
            f"{root}: expected an empty folder, found other files: name another folder"
        )
    make_folder(root)
    write_file(path, text)


def split_of(
    action: Action, scale: float, seed: int, fewest: int = FEWEST
) -> list[str]:
    """Return the list ("train" or "test") of each video of an action, by number."""
    train, test = action.train, action.test
    if not train:
        train = round(TRAMPOLINE_TRAIN * action.samples)
        test = action.samples - train
    sizes = [max(fewest, round(scale * size)) for size in (train, test)]
    rng = np.random.default_rng([seed, ACTIONS.index(action) + 1])
    shuffled: list[str] = rng.permutation(np.repeat(["train", "test"], sizes)).tolist()
    return shuffled


def make_video(task: VideoTask) -> dict[str, Any]:
    """Render one video and its poses; return its entry in `truth.json`."""
    rng = np.random.default_rng([task.seed, task.identity, task.number])
    performance, verdict = draw_judged(task.action, rng)
    video = task.folder / "Actions" / f"{task.label}.avi"
    poses = task.folder / "poses" / f"{task.label}.json"
    return {**record(video, poses, performance, verdict, rng), "split": task.split}


def draw_judged(action: str, rng: np.random.Generator) -> tuple[Performance, Verdict]:
    """Sample a performance whose score lies in the range of Table 1."""
    low, high = BY_NAME[action].score_range
    while True:
        performance = draw_performance(action, rng)
        verdict = judge(performance, rng)
        if low <= verdict.score <= high:
            return performance, verdict


def record(
    video: Path,
    poses: Path,
    performance: Performance,
    verdict: Verdict,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Render a performance into two files, unless they exist, and describe it."""
    look = draw_appearance(performance.action, rng)
    if not poses.exists():
        shot = film(performance, look)
        write_video(video, shot.pictures())
        write_poses(poses, shot.keypoints())
    return {
        **asdict(verdict),
        "frames": performance.frames,
        "take_off": performance.take_off(),
        "touch_down": performance.touch_down(len(performance.elements) - 1),
        "performance": asdict(performance),
        "look": {"mirrored": look.mirrored, "scale": look.scale, "yaw": look.yaw},
    }


def write_truth(path: Path, videos: dict[str, dict[str, Any]], **settings: Any) -> None:
    """Write what each video shows; this file marks a finished data set."""
    found = {**settings, "videos": videos}
    write_file(path, json.dumps(found, indent=1, sort_keys=True) + "\n")


def _write_lists(
    folder: Path, tasks: Sequence[VideoTask], scores: Sequence[float]
) -> None:
    """Write both lists as in the release, without MATLAB's time stamp."""
    from scipy.io import savemat  # not needed by the processes that render

    folder.mkdir(exist_ok=True)
    order = np.random.default_rng([tasks[0].seed, 77]).permutation(len(tasks))
    for split in ("train", "test"):
        rows = [
            (tasks[i].identity, tasks[i].number, round(100 * scores[i]))
            for i in order
            if tasks[i].split == split
        ]
        path = folder / f"split_4_{split}_list.mat"
        savemat(path, {f"consolidated_{split}_list": np.array(rows, float)})
        header = b"MATLAB 5.0 MAT-file, synthetic AQA-7".ljust(116)
        path.write_bytes(header + path.read_bytes()[116:])
