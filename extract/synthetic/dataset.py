"""Doing many independent pieces of work in processes, in order.

Conventions: `workers` None means one per processor; 1 works in this process. New
processes are spawned, never forked, so it is safe from any thread and with torch
loaded.

What a folder was commissioned to hold, so that a stopped rendering goes on.

Conventions: `commission.json` in the folder of a set is written first and says what
makes its bytes; whatever is found beside one that says the same was rendered by it.

The synthetic data set, in the layout of the released AQA-7.

Conventions: `AQA-7/Actions/<action>/NNN.avi` and the two lists of split 4, whose
rows are (action id, sample number, score times 100), as the author's are. Beside
them, which the release has not: `AQA-7/poses/<action>/NNN.json`, the joints, and
`AQA-7/truth.json`, what was planted. A video depends on the seed, its action and its
number alone, so its bytes are the same whichever process makes it.
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from scipy.io import savemat

from aqa.cache.actions import ACTIONS, BY_NAME, Action
from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.cache.files import make_folder, replacing
from aqa.extract.synthetic.drawing import draw_look
from aqa.extract.synthetic.film import film, write_poses, write_video
from aqa.extract.synthetic.judging import Verdict, judge
from aqa.extract.synthetic.performance import Performance, draw_performance


class Labelled(Protocol):
    """A piece of work that can say what it is."""

    @property
    def label(self) -> str:
        """What to show while it is done."""


Piece = TypeVar("Piece", bound=Labelled)
Result = TypeVar("Result")


def work_through(
    work: Callable[[Piece], Result],
    pieces: Sequence[Piece],
    workers: int | None,
    progress: Progress,
) -> list[Result]:
    """Return `work` of each piece, in the order of `pieces`."""
    total = len(pieces)
    workers = min(workers or len(os.sched_getaffinity(0)), total)
    if workers <= 1:
        results = []
        for done, piece in enumerate(pieces):
            progress(done, total, piece.label)
            results.append(work(piece))
        progress(total, total, "")
        return results
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(work, piece): piece for piece in pieces}
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            progress(done, total, futures[future].label)
        return [future.result() for future in futures]


NAME = "commission.json"


def commission(root: Path, **order: Any) -> None:
    """Give `root` to one set; AqaError if another set, or anything else, is there."""
    paper = root / NAME
    text = json.dumps(order, sort_keys=True) + "\n"
    if paper.exists():
        if (found := paper.read_text(encoding="utf-8")) != text:
            raise AqaError(
                f"{root} holds another set already, made as {found.strip()}; asked for "
                f"is {text.strip()}: remove it or name another folder"
            )
        return
    if root.exists() and any(root.iterdir()):
        raise AqaError(f"{root} holds something else already: name another folder")
    make_folder(root)
    with replacing(paper) as descriptor, open(descriptor, "w", closefd=False) as file:
        file.write(text)


#: Fewest videos of an action in each list, however small the scale.
FEWEST = 6
#: Share of trampoline's samples in the training list: the release lists none.
TRAMPOLINE_TRAIN = 0.75


@dataclass(frozen=True)
class Task:
    """One video to make: where, of what, for which list, from which seed."""

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
    """Render an AQA-7-shaped data set into `folder` and return its root, `AQA-7`.

    `scale` multiplies Table 1's numbers of videos, at least `fewest` a list; `actions`
    None means all seven; `workers` None means one process per processor. The same
    seed and scale give the same bytes, however many workers; a call that was stopped
    goes on when it is made again. Raises AqaError on an unknown action, a scale that
    is not positive, or a folder that holds something else.
    """
    wanted = list(BY_NAME) if actions is None else list(actions)
    unknown = sorted(set(wanted) - set(BY_NAME))
    if unknown or not wanted:
        raise AqaError(
            f"no such action: {', '.join(unknown) or 'none named'}; expected some of "
            f"{', '.join(BY_NAME)}"
        )
    if not scale > 0:
        raise AqaError(f"scale: expected a number above 0, found {scale}")
    root = Path(folder) / "AQA-7"
    commission(root, actions=wanted, fewest=fewest, scale=scale, seed=seed)
    truth = root / "truth.json"
    if truth.exists():
        return root
    tasks = []
    for action in (action for action in ACTIONS if action.name in wanted):
        for kind in ("Actions", "poses"):
            (root / kind / action.name).mkdir(parents=True, exist_ok=True)
        for number, split in enumerate(split_of(action, scale, seed, fewest), start=1):
            tasks.append(Task(root, action.name, number, split, seed))
    truths = work_through(make_video, tasks, workers, progress)
    _write_lists(root / "Split_4", tasks, [truth["score"] for truth in truths])
    named = {task.label: truth for task, truth in zip(tasks, truths, strict=True)}
    write_truth(truth, named, seed=seed, scale=scale)
    return root


def split_of(
    action: Action, scale: float, seed: int, fewest: int = FEWEST
) -> list[str]:
    """Which list each of an action's videos is in, by number."""
    train, test = action.train, action.test
    if not train:
        train = round(TRAMPOLINE_TRAIN * action.samples)
        test = action.samples - train
    sizes = [max(fewest, round(scale * size)) for size in (train, test)]
    rng = np.random.default_rng([seed, ACTIONS.index(action) + 1])
    shuffled: list[str] = rng.permutation(np.repeat(["train", "test"], sizes)).tolist()
    return shuffled


def make_video(task: Task) -> dict[str, Any]:
    """Render, encode and describe one video: what `truth.json` says of it."""
    rng = np.random.default_rng([task.seed, task.identity, task.number])
    performance, verdict = draw_judged(task.action, rng)
    video = task.folder / "Actions" / f"{task.label}.avi"
    poses = task.folder / "poses" / f"{task.label}.json"
    return {**record(video, poses, performance, verdict, rng), "split": task.split}


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
    """Film a performance into two files, unless they are there, and describe it."""
    look = draw_look(performance.action, rng)
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
    """Write what was planted in each video; a set that has this is whole."""
    with replacing(path) as descriptor, open(descriptor, "w", closefd=False) as file:
        json.dump({**settings, "videos": videos}, file, indent=1, sort_keys=True)
        file.write("\n")


def _write_lists(folder: Path, tasks: Sequence[Task], scores: Sequence[float]) -> None:
    """Write both lists as the release has them, without MATLAB's time stamp."""
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
