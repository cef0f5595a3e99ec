"""Videos with one error in one known clip, to test what finds errors.

Conventions: a clip is one of copy 0 of the fitted video, as extraction cuts it; the
error is bent knees, as bad as it gets, inside one clip of the flight and nowhere
else; every other fault is slight. `manifest.csv` lists the videos, all for testing,
`truth.json` says which clip and which frames.
"""

import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.actions import ACTIONS, BY_NAME
from aqa.cache.errors import AqaError
from aqa.cache.progress import Progress, silent
from aqa.cache.replacement import replacing
from aqa.extract.config import ClipConfig
from aqa.extract.synthetic.commission import commission
from aqa.extract.synthetic.crew import work_through
from aqa.extract.synthetic.judging import judge
from aqa.extract.synthetic.performance import Fault, Performance
from aqa.extract.synthetic.release import record, write_truth
from aqa.extract.synthetic.repertoire import REPERTOIRES, draw_performance

#: What is left of all other faults.
SLIGHT = 0.15
#: Fewest frames of the flight that a clip must hold to be planted in.
FEWEST = 9


@dataclass(frozen=True)
class PlantTask:
    """One video to make."""

    folder: Path
    action: str
    number: int
    seed: int

    @property
    def label(self) -> str:
        """The video's path below the manifest."""
        return f"videos/{self.action}/{self.number:03d}.avi"


def plant(
    folder: Path | str,
    action: str = "diving",
    videos: int = 50,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Render videos with bent knees in one known clip each; return `manifest.csv`.

    A call that was stopped goes on when it is made again. Raises AqaError for a sport
    that does not mind bent knees, and a folder that holds something else.
    """
    able = [name for name, r in REPERTOIRES.items() if "bent_knees" in r.faults]
    if action not in able:
        raise AqaError(f"bent knees are no fault in {action!r}; expected one of {able}")
    root = Path(folder)
    manifest = root / "manifest.csv"
    commission(root, action=action, planted=videos, seed=seed)
    if manifest.exists():
        return manifest
    for kind in ("videos", "poses"):
        (root / kind / action).mkdir(parents=True, exist_ok=True)
    tasks = [PlantTask(root, action, number, seed) for number in range(1, videos + 1)]
    truths = work_through(make_planted, tasks, workers, progress)
    named = {task.label: truth for task, truth in zip(tasks, truths, strict=True)}
    write_truth(root / "truth.json", named, seed=seed)
    with (
        replacing(manifest) as descriptor,
        open(descriptor, "w", newline="", closefd=False) as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["video", "action", "score", "split"])
        for name, truth in named.items():
            rows.writerow([name, action, truth["score"], "test"])
    return manifest


def make_planted(task: PlantTask) -> dict[str, Any]:
    """Render one video and say where its error is."""
    identity = ACTIONS.index(BY_NAME[task.action]) + 1
    rng = np.random.default_rng([task.seed, 103, identity, task.number])
    low, high = BY_NAME[task.action].score_range
    score = math.inf
    while not low <= score <= high:  # the readers take AQA-7's scores for what they are
        performance, clip, frames = draw_planted(task.action, rng)
        verdict = judge(performance, rng)
        score = verdict.score
    video = task.folder / task.label
    poses = task.folder / "poses" / task.action / f"{task.number:03d}.json"
    truth = record(video, poses, performance, verdict, rng)
    return {**truth, "clip": clip, "clip_frames": list(frames)}


def draw_planted(
    action: str, rng: np.random.Generator
) -> tuple[Performance, int, tuple[int, int]]:
    """Draw a performance with the error, its clip, and the frames it lies in."""
    drawn = draw_performance(action, rng)
    elements = tuple(
        replace(element, position="pike") if element.position == "tuck" else element
        for element in drawn.elements
    )
    drawn = replace(drawn, elements=elements, lag=SLIGHT * drawn.lag)
    candidates = clips_in_flight(drawn)
    clip = list(candidates)[int(rng.integers(len(candidates)))]
    return bend_in(drawn, *candidates[clip]), clip, candidates[clip]


def clips_in_flight(performance: Performance) -> dict[int, tuple[int, int]]:
    """What each clip shows of the flight, in frames of the video, if it is enough."""
    clips = ClipConfig()
    first = performance.frames - clips.length  # the last frames are kept
    shown = {}
    for clip in range(clips.clips):
        start = max(first + clip * clips.stride, performance.take_off() + 1)
        end = min(first + clip * clips.stride + clips.clip, performance.touch_down())
        if end - start >= FEWEST:
            shown[clip] = (start, end)
    return shown


def bend_in(performance: Performance, start: int, end: int) -> Performance:
    """The same performance, all but faultless, with knees bent in [start, end)."""
    slight = [
        replace(fault, amount=round(SLIGHT * fault.amount, 3))
        for fault in performance.faults
        if fault.kind != "bent_knees"
    ]
    planted = [
        Fault("bent_knees", 1.0, start, end, a) for a in range(performance.athletes)
    ]
    return replace(performance, faults=(*slight, *planted))
