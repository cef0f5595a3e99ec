"""Render videos with one error in one known clip, to test error localisation.

Conventions: a clip is one of copy 0 of the fitted video, as extraction cuts it; the
error has amount 1 and all other faults are slight. Bent knees lie inside one clip of
the flight. A splash or a fall begins where the flight ends, which varies, so that its
clip, the one that shows most of it, is not always the same. `manifest.csv` lists the
videos, all for testing; `truth.json` gives the clip and the frames.
"""

import csv
import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.actions import ACTIONS, BY_NAME
from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.cache.files import write_file
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

#: Errors that can be planted.
ERRORS = ("bent_knees", "splash", "landing")
#: Factor on the amounts of all other faults.
SLIGHT = 0.15
#: Fewest frames of the flight that a clip must show to be chosen.
FEWEST = 9
#: Frames of an error at the end of the flight, and range of frames after the flight.
LASTS, AFTER = 16, (14, 50)

#: Frames [start, end).
Span = tuple[int, int]


@dataclass(frozen=True)
class PlantTask:
    """One video to render."""

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

    An interrupted call is continued by the same call.

    Raises:
        AqaError: an action in which the error is no fault, or other files in `folder`.
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
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["video", "action", "score", "split"])
    for name, truth in named.items():
        rows.writerow([name, action, truth["score"], "test"])
    write_file(manifest, text.getvalue())
    return manifest


def make_planted(task: PlantTask) -> dict[str, Any]:
    """Render one video; return its entry in `truth.json`."""
    identity = ACTIONS.index(BY_NAME[task.action]) + 1
    rng = np.random.default_rng([task.seed, 103, identity, task.number])
    low, high = BY_NAME[task.action].score_range
    score = math.inf
    while not low <= score <= high:  # readers check AQA-7's ranges
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
    """Sample a performance with the error; return it, the clip and the frames."""
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
    """Return the part of the frames [start, end) that each clip shows, if any."""
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
    """Return the performance with slight faults and the error in [start, end)."""
    slight = [
        replace(fault, amount=round(SLIGHT * fault.amount, 3))
        for fault in performance.faults
        if fault.kind != error
    ]
    planted = [Fault(error, 1.0, start, end, a) for a in range(performance.athletes)]
    return replace(performance, faults=(*slight, *planted))
