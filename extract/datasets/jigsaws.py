"""JIGSAWS: trials of three surgical tasks by eight surgeons, with rating scores.

A task's folder has `meta_file_<Task>.txt`, one trial per line: name (`Suturing_B001`),
self-proclaimed skill (E, I, N), global rating score, six element scores; and
`video/Suturing_B001_capture1.avi` and `..._capture2.avi`. The data set is the folder
of one task or of several.

Conventions: keys are `suturing/Suturing_B001`; the first capture is used. Surgeon,
trial and skill are kept as `Video.extra`, and no trial is assigned to a split: the
usual folds leave a trial number or a surgeon out.

Source: Gao et al., "JHU-ISI Gesture and Skill Assessment Working Set", 2014.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from aqa.extract.datasets.dataset import (
    Dataset,
    Files,
    Layout,
    Request,
    Video,
)

_TRIAL = re.compile(r"(\w+)_([A-Z])(\d{3})")


def _meta_files(path: Path) -> list[Path]:
    return sorted({*path.glob("meta_file_*.txt"), *path.glob("*/meta_file_*.txt")})


def _read(request: Request) -> Dataset:
    root = request.path
    files = Files(root, request)
    videos, present = [], set()
    for meta in _meta_files(root):
        folder = meta.parent.relative_to(root)
        for trial, (task, surgeon, number), skill, score in _trials(meta, files):
            present.add(action := task.lower())
            places = [
                str(folder / f"{below}{trial}_capture1.avi") for below in ("video/", "")
            ]
            if files.asked(action) and (path := files.find(*places)):
                extra = {"surgeon": surgeon, "trial": number, "skill": skill}
                key = f"{action}/{trial}"
                videos.append(Video(key, path, action, "", score, extra))
    files.check_actions(present)
    actions = ", ".join(sorted({video.action for video in videos}))
    note = (
        f"JIGSAWS: {len(videos)} trials of {actions}, the first of two captures of "
        "each; no split: use --folds trial or --leave-one-out surgeon"
    )
    return files.dataset("jigsaws", videos, note)


JIGSAWS = Layout("jigsaws", "JIGSAWS", lambda path: bool(_meta_files(path)), _read)


def _trials(
    meta: Path, files: Files
) -> Iterator[tuple[str, tuple[str, ...], str, float]]:
    """Yield name, (task, surgeon, trial number), skill and score of each trial."""
    for number, line in enumerate(meta.read_text("utf-8-sig").splitlines(), start=1):
        words = line.split()
        match = _TRIAL.fullmatch(words[0]) if words else None
        if match and len(words) >= 3 and words[1] in "EIN" and words[2].isdecimal():
            yield words[0], match.groups(), words[1], float(words[2])
        elif words:
            files.problems.add(
                "expected a trial (Suturing_B001), a skill E, I or N, and a score",
                f"{meta.name} line {number} has {line.strip()!r}",
            )
