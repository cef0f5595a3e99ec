"""One video's score in judges' units, with an interval, and its course over the clips.

Conventions: features of a video are float32 (copies, clips, D); the score is that of
copy 0, as in testing. Courses exist for LSTM heads: the score as it stands after each
clip (clips,), and the change that each clip brings, the first counted from nothing.
Seconds are those of the video; a short video begins with clips of nothing but padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa.cache.errors import AqaError
from aqa.regress.evaluation.metrics import Floats
from aqa.regress.heads import lstm
from aqa.regress.heads.lstm import LstmHead
from aqa.regress.heads.model_file import Calibration, Model

#: From and to.
Span = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """What a model says of one video.

    `calibration` is None in a model without. `course`, `changes` and `lost` are empty
    for heads without a course. `lost` is by how much each clip surprised (see
    `surprises`), less what it does in the typical training video: the lowest marks
    where quality was lost. `seconds` holds what each clip shows of the video, None for
    the first clips, `padding` in number, that show none of it; it is empty where the
    video has no times.
    """

    action: str
    score: float
    calibration: Calibration | None = None
    course: tuple[float, ...] = ()
    changes: tuple[float, ...] = ()
    lost: tuple[float, ...] = ()
    padding: int = 0
    seconds: tuple[Span | None, ...] = ()

    @property
    def interval(self) -> Span | None:
        """Between what the judges' score is expected."""
        if self.calibration is None:
            return None
        return self.score + self.calibration.low, self.score + self.calibration.high

    @property
    def worst_clip(self) -> int | None:
        """The clip, counted from 0, that lost most; None without a course."""
        compared = (self.lost or self.changes)[self.padding :]
        return self.padding + int(np.argmin(compared)) if compared else None

    @property
    def scored(self) -> Span | None:
        """The seconds of the video that the score rests on, where they are known."""
        shown = [span for span in self.seconds if span]
        return (shown[0][0], shown[-1][1]) if shown else None

    def record(self) -> dict[str, Any]:
        """Everything as JSON values, the worst clip counted from 1."""
        known, worst = self.calibration, self.worst_clip
        return {
            "action": self.action,
            "score": self.score,
            "interval": self.interval,
            "interval_of": known and known.basis(),
            "course": self.course,
            "changes": self.changes,
            "lost": self.lost,
            "padding": self.padding,
            "seconds": self.seconds,
            "scored_seconds": self.scored,
            "worst_clip": None if worst is None else worst + 1,
        }

    def describe(self) -> str:
        """Say the score, its interval and its course in one line."""
        said = f"{self.action} {self.score:.2f}"
        if self.interval and self.calibration:
            low, high = self.interval
            said += f" ({low:.2f} to {high:.2f}: {self.calibration.words()})"
        if self.scored:
            said += "; scored from {:.1f} to {:.1f} s".format(*self.scored)
        if self.worst_clip is not None:
            course = " ".join(f"{value:.1f}" for value in self.course)
            said += f"; after each clip {course}; most lost in {self.worst_clip + 1}"
            if self.seconds and (span := self.seconds[self.worst_clip]):
                said += " ({:.1f} to {:.1f} s)".format(*span)
        return said


def score(
    model: Model,
    x: NDArray[np.float32],
    action: str | None = None,
    *,
    padding: int = 0,
    seconds: Sequence[Span | None] = (),
) -> Score:
    """Score the features of one video as an action that the model knows.

    `padding` and `seconds` are as in `Score`. `AqaError` as in `action_of`, and for
    features of another shape.
    """
    name = action_of(model, action)
    if x.ndim != 3:
        raise AqaError(
            f"expected features (copies, clips, D) of one video; found {x.shape}"
        )
    unit = model.deviations[name]
    known = model.calibration.get(name)
    if isinstance(model.head, LstmHead):
        course = unit * lstm.course(model.head.parameters, x[:1])[0].astype(float)
        changes = np.diff(course, prepend=0.0)
        incremental = model.settings.get("labels") == "incremental"
        final = float(course[-1])
        lost = np.empty(0)
        if known and len(known.typical) == len(course):
            typical = np.array(known.typical)
            lost = surprises(course - typical, incremental)
    else:
        final = unit * float(model.head.predict(x[:1])[0])
        course = changes = lost = np.empty(0)
    return Score(
        action=name,
        score=final,
        calibration=known,
        course=tuple(course.tolist()),
        changes=tuple(changes.tolist()),
        lost=tuple(lost.tolist()),
        padding=padding,
        seconds=tuple(seconds),
    )


def surprises(course: Floats, incremental: bool) -> Floats:
    """What each clip brings beyond what the course before it led to expect.

    (clips,) -> (clips,). A head with final labels guesses the same score after every
    clip and expects no change; one with incremental labels has seen k / K of the
    score after clip k, and expects the next as good as those before. Linear.
    """
    clips = np.arange(1, len(course) + 1)
    growth = clips[1:] / clips[:-1] if incremental else np.ones(len(course) - 1)
    expected = np.concatenate([[0.0], course[:-1] * growth])
    return np.asarray(course - expected)


def length_warning(model: Model, action: str, frames: int) -> str:
    """Say so where a video is far from all lengths the model learnt; "" where not.

    Far is less than half the shortest or more than twice the longest, in frames.
    """
    if action not in model.frames:
        return ""
    shortest, longest = model.frames[action]
    if shortest / 2 <= frames <= 2 * longest:
        return ""
    return (
        f"{frames} frames: the model learnt {action} from videos of {shortest} to "
        f"{longest}; cut the video to the action, or take the score with care"
    )


def action_of(model: Model, action: str | None) -> str:
    """The action to score: it may be left out where the model knows one only.

    `AqaError` otherwise, and for an action that the model does not know.
    """
    known = ", ".join(model.actions)
    if action is None and len(model.actions) > 1:
        raise AqaError(f"which action? The model knows {known}; name one")
    if action is not None and action not in model.actions:
        raise AqaError(f"{action}: the model knows {known}")
    return action or model.actions[0]
