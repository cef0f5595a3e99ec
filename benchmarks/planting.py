"""Videos with one error in one known clip, to test what finds errors.

Conventions: a clip is one of copy 0 of the fitted video, as extraction cuts it; the
error is as bad as it gets and every other fault is slight. Bent knees lie inside one
clip of the flight and nowhere else. A splash, or a fall at the landing, begins where
the flight ends, which is moved about so that it is not always the same clip; the clip
is that which shows most of it. `manifest.csv` lists the videos, all for testing,
`truth.json` says which clip and which frames.
"""

import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.actions import ACTIONS, BY_NAME
from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.cache.files import replacing
from aqa.cache.processes import process_map
from aqa.extract.config import ClipConfig
from aqa.extract.synthetic.dataset import record, write_manifest, write_truth
from aqa.extract.synthetic.performance import (
    REPERTOIRES,
    Fault,
    Performance,
    draw_performance,
    judge,
)

#: What can be planted.
ERRORS = ("bent_knees", "splash", "landing")
#: What is left of all other faults.
SLIGHT = 0.15
#: Fewest frames of the flight that a clip must hold to be planted in.
FEWEST = 9
#: Frames that an error at the end of the flight takes, and that a video then goes on.
LASTS, AFTER = 16, (14, 50)

#: First frame, and the one after the last.
Span = tuple[int, int]


@dataclass(frozen=True)
class PlantTask:
    """One video to make."""

    folder: Path
    action: str
    error: str
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
    error: str = "bent_knees",
) -> Path:
    """Render videos with an error in one known clip each; return `manifest.csv`.

    A call that was stopped goes on when it is made again. Raises AqaError for a sport
    that does not mind the error, and a folder that holds something else.
    """
    able = [name for name, r in REPERTOIRES.items() if error in r.faults]
    if error not in ERRORS or action not in able:
        raise AqaError(
            f"{error} cannot be planted in {action!r}; expected one of "
            f"{', '.join(ERRORS)} that is a fault there; found one of {able}"
        )
    root = Path(folder)
    manifest = root / "manifest.csv"
    write_manifest(root, action=action, error=error, planted=videos, seed=seed)
    if manifest.exists():
        return manifest
    for kind in ("videos", "poses"):
        (root / kind / action).mkdir(parents=True, exist_ok=True)
    tasks = [
        PlantTask(root, action, error, number, seed) for number in range(1, videos + 1)
    ]
    truths = process_map(
        make_planted, tasks, workers, progress, lambda task: task.label
    )
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
        performance, clip, frames = draw_planted(task.action, task.error, rng)
        verdict = judge(performance, rng)
        score = verdict.score
    video = task.folder / task.label
    poses = task.folder / "poses" / task.action / f"{task.number:03d}.json"
    truth = record(video, poses, performance, verdict, rng)
    return {**truth, "clip": clip, "clip_frames": list(frames)}


def draw_planted(
    action: str, error: str, rng: np.random.Generator
) -> tuple[Performance, int, Span]:
    """Draw a performance with the error, its clip, and the frames it lies in."""
    drawn = draw_performance(action, rng)
    drawn = replace(drawn, lag=SLIGHT * drawn.lag)
    if error != "bent_knees":
        after = int(rng.integers(*AFTER))
        drawn = replace(drawn, phases=replace(drawn.phases, after=after))
        end = drawn.touch_down()
        clips = shown(drawn, end, end + LASTS)
        most = max(clips, key=lambda clip: clips[clip][1] - clips[clip][0])
        return go_wrong(drawn, error, end, end + LASTS), most, (end, end + LASTS)
    elements = tuple(
        replace(element, position="pike") if element.position == "tuck" else element
        for element in drawn.elements
    )
    drawn = replace(drawn, elements=elements)
    flight = shown(drawn, drawn.take_off() + 1, drawn.touch_down())
    candidates = {k: span for k, span in flight.items() if span[1] - span[0] >= FEWEST}
    clip = list(candidates)[int(rng.integers(len(candidates)))]
    return go_wrong(drawn, error, *candidates[clip]), clip, candidates[clip]


def shown(performance: Performance, start: int, end: int) -> dict[int, Span]:
    """What each clip shows of the frames [start, end) of the video, if anything."""
    clips = ClipConfig()
    first = performance.frames - clips.length  # the last frames are kept
    found = {}
    for clip in range(clips.clips):
        begin = first + clip * clips.stride
        span = max(begin, start), min(begin + clips.clip, end)
        if span[0] < span[1]:
            found[clip] = span
    return found


def go_wrong(performance: Performance, error: str, start: int, end: int) -> Performance:
    """The same performance, all but faultless, with the error in [start, end)."""
    slight = [
        replace(fault, amount=round(SLIGHT * fault.amount, 3))
        for fault in performance.faults
        if fault.kind != error
    ]
    planted = [Fault(error, 1.0, start, end, a) for a in range(performance.athletes)]
    return replace(performance, faults=(*slight, *planted))
