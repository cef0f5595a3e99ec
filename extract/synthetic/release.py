"""The synthetic data set, in the layout of the released AQA-7.

Conventions: `AQA-7/Actions/<action>/NNN.avi` and the two lists of split 4, whose
rows are (action id, sample number, score times 100), as the author's are. Beside
them, which the release has not: `AQA-7/poses/<action>/NNN.json`, the joints, and
`AQA-7/truth.json`, what was planted. A video depends on the seed, its action and its
number alone, so its bytes are the same whichever process makes it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from aqa.cache.actions import ACTIONS, BY_NAME, Action
from aqa.cache.errors import AqaError
from aqa.cache.progress import Progress, silent
from aqa.extract.synthetic.crew import work_through
from aqa.extract.synthetic.filming import film
from aqa.extract.synthetic.judging import Verdict, judge
from aqa.extract.synthetic.look import draw_look
from aqa.extract.synthetic.performance import Performance
from aqa.extract.synthetic.recording import write_poses, write_video
from aqa.extract.synthetic.repertoire import draw_performance

#: Fewest videos of an action in each list, however small the scale.
FEWEST = 6
#: Share of trampoline's samples in the training list: the release lists none.
TRAMPOLINE_TRAIN = 0.75


@dataclass(frozen=True)
class Task:
    """One video to make: where, of what, from which seed."""

    folder: Path
    action: str
    number: int
    seed: int

    @property
    def label(self) -> str:
        """The sample's key."""
        return f"{self.action}/{self.number:03d}"

    def path(self, kind: str, suffix: str) -> Path:
        """Where a file of this video goes."""
        return self.folder / kind / self.action / f"{self.number:03d}{suffix}"


def synthesise(
    folder: Path | str,
    scale: float = 1.0,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = silent,
    actions: Sequence[str] | None = None,
) -> Path:
    """Render an AQA-7-shaped data set into `folder` and return its root, `AQA-7`.

    `scale` multiplies Table 1's numbers of videos, at least six a list; `actions`
    None means all seven; `workers` None means one process per processor. The same
    seed and scale give the same bytes, however many workers. Raises AqaError on an
    unknown action, a scale that is not positive, or a folder already in use.
    """
    names = [action.name for action in ACTIONS]
    wanted = names if actions is None else list(actions)
    if unknown := sorted(set(wanted) - set(names)):
        raise AqaError(f"no such action: {', '.join(unknown)}; there are {names}")
    if not scale > 0:
        raise AqaError(f"scale must be above 0, found {scale}")
    root = Path(folder) / "AQA-7"
    if (root / "Actions").exists():
        raise AqaError(f"{root} holds a data set already: remove it or name another")

    chosen = [action for action in ACTIONS if action.name in wanted]
    splits = {action.name: _split(action, scale, seed) for action in chosen}
    tasks = [
        Task(root, action.name, number, seed)
        for action in chosen
        for number in range(1, len(splits[action.name]) + 1)
    ]
    for action in chosen:
        for kind in ("Actions", "poses"):
            (root / kind / action.name).mkdir(parents=True)
    truths = work_through(make_video, tasks, workers, progress)

    rows = [
        (ACTIONS.index(BY_NAME[task.action]) + 1, task.number, truth["score"])
        for task, truth in zip(tasks, truths, strict=True)
    ]
    for task, truth in zip(tasks, truths, strict=True):
        truth["split"] = splits[task.action][task.number - 1]
    order = np.random.default_rng([seed, 77]).permutation(len(tasks))
    for split in ("train", "test"):
        listed = [rows[i] for i in order if truths[i]["split"] == split]
        _write_list(root / "Split_4", split, listed)
    write_truth(
        root / "truth.json",
        {t.label: truth for t, truth in zip(tasks, truths, strict=True)},
        seed=seed,
        scale=scale,
    )
    return root


def make_video(task: Task) -> dict[str, Any]:
    """Render, encode and describe one video: what `truth.json` says of it."""
    identity = ACTIONS.index(BY_NAME[task.action]) + 1
    rng = np.random.default_rng([task.seed, identity, task.number])
    performance, verdict = draw_judged(task.action, rng)
    video, poses = task.path("Actions", ".avi"), task.path("poses", ".json")
    return record(video, poses, performance, verdict, rng)


def draw_judged(action: str, rng: np.random.Generator) -> tuple[Performance, Verdict]:
    """Draw a performance whose score lies in Table 1's range."""
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
    """Film a performance into two files and describe it."""
    look = draw_look(performance.action, rng)
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
    """Write what was planted in each video."""
    text = json.dumps({**settings, "videos": videos}, indent=1, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def _split(action: Action, scale: float, seed: int) -> list[str]:
    """Which list each of an action's videos is in, by number."""
    train, test = action.train, action.test
    if not train:
        train = round(TRAMPOLINE_TRAIN * action.samples)
        test = action.samples - train
    sizes = [max(FEWEST, round(scale * size)) for size in (train, test)]
    names = np.repeat(["train", "test"], sizes)
    identity = ACTIONS.index(action) + 1
    shuffled = np.random.default_rng([seed, identity]).permutation(names)
    return [str(name) for name in shuffled]


def _write_list(
    folder: Path, split: str, rows: Sequence[tuple[int, int, float]]
) -> None:
    """Write one list as the release has it, without MATLAB's time stamp."""
    folder.mkdir(exist_ok=True)
    table = np.array(rows, float).reshape(-1, 3)
    table[:, 2] = np.round(100 * table[:, 2])
    path = folder / f"split_4_{split}_list.mat"
    savemat(path, {f"consolidated_{split}_list": table})
    header = b"MATLAB 5.0 MAT-file, synthetic AQA-7".ljust(116)
    path.write_bytes(header + path.read_bytes()[116:])
