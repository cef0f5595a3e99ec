"""One video's score in judges' units, with an interval, warnings and a trajectory.

Conventions: features of a video are float32 (copies, clips, D); the score is that of
copy 0, as in testing. LSTM heads give a trajectory: the prediction after each clip
(clips,), and the change that each clip brings, the first counted from 0. Only a model
trained with labels "incremental" predicts a score so far, of which clips can lose
some; with labels "final" each value is a guess at the final score. Seconds are those
of the video; a short video begins with clips of nothing but padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa.cache.errors import AqaError
from aqa.cache.samples import SIMILAR_RATES
from aqa.regress.data import Floats
from aqa.regress.heads.model_file import Calibration, Model
from aqa.regress.heads.plausibility import LEAST_SAMPLES

#: From and to.
Span = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """What a model predicts for one video.

    `calibration` is None in a model without. `course` and `changes` are empty for
    heads without a trajectory. `lost`, of models that localise only, is by how much
    each clip differs from what the trajectory before it predicts (see `surprises`),
    minus the same of the typical training video: most negative where most quality was
    lost. `seconds` holds the part of the video that each clip shows, None for the
    first `padding` clips, which show none; it is empty for features without times.
    `range` are the lowest and highest training score.
    """

    action: str
    score: float
    calibration: Calibration | None = None
    course: tuple[float, ...] = ()
    changes: tuple[float, ...] = ()
    lost: tuple[float, ...] = ()
    padding: int = 0
    seconds: tuple[Span | None, ...] = ()
    range: Span | None = None
    warnings: tuple[str, ...] = ()

    @property
    def interval(self) -> Span | None:
        """Interval that contains the judges' score with the calibration's level."""
        if self.calibration is None:
            return None
        return self.score + self.calibration.low, self.score + self.calibration.high

    @property
    def worst_clip(self) -> int | None:
        """The clip, counted from 0, that lost most; None where that is unknown."""
        compared = self.lost[self.padding :]
        return self.padding + int(np.argmin(compared)) if compared else None

    @property
    def scored(self) -> Span | None:
        """The seconds of the video that the score is based on, where known."""
        shown = [span for span in self.seconds if span]
        return (shown[0][0], shown[-1][1]) if shown else None

    @property
    def course_words(self) -> str:
        """What the values of the trajectory are."""
        if self.lost:
            return "score so far after each clip"
        return "guess at the final score after each clip"

    def record(self) -> dict[str, Any]:
        """Return everything as JSON values, the worst clip counted from 1."""
        known, worst = self.calibration, self.worst_clip
        return {
            "action": self.action,
            "score": self.score,
            "interval": self.interval,
            "interval_of": known
            and {"level": known.level, "videos": known.videos, "folds": known.folds},
            "range": self.range,
            "warnings": list(self.warnings),
            "course": self.course,
            "course_meaning": self.course_words if self.course else None,
            "changes": self.changes,
            "lost": self.lost,
            "padding": self.padding,
            "seconds": self.seconds,
            "scored_seconds": self.scored,
            "worst_clip": None if worst is None else worst + 1,
        }

    def describe(self) -> str:
        """Return score, interval and trajectory in one line; warnings are apart."""
        said = f"{self.action} {self.score:.2f}"
        if self.interval and self.calibration:
            low, high = self.interval
            said += f" ({low:.2f} to {high:.2f}: {self.calibration.words()})"
        if self.scored:
            said += "; scored from {:.1f} to {:.1f} s".format(*self.scored)
        if self.course:
            course = " ".join(f"{value:.1f}" for value in self.course)
            said += f"; {self.course_words} {course}"
        if self.worst_clip is not None:
            said += f"; most lost in {self.worst_clip + 1}"
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
    frames: int | None = None,
    rate: float | None = None,
    clips: int | None = None,
) -> Score:
    """Score the features of one video as an action of the model.

    x: (copies, clips, D), features of any kind that the model was made with; `padding`
    and `seconds` as in `Score`, `frames` is the length of the video, `rate` its frames
    per second, `clips` the number of real clips where the first ones are to be ignored.
    Raises `AqaError` as `action_of`, and for features of another shape.
    """
    name = action_of(model, action)
    if x.ndim != 3 or 0 in x.shape:
        raise AqaError(
            f"expected features (copies, clips, D) of one video; found {x.shape}"
        )
    if not np.isfinite(x).all():
        raise AqaError("features hold values that are not finite")
    real = None if clips is None else np.array([clips], np.int32)
    first = x[:1]
    final = float(model.predict(first, name, real)[0])
    outputs = model.head.course(first, real)[0]
    course = model.label_scale.to_units(outputs, name)
    known = model.calibration.get(name)
    lost = np.empty(0)
    if model.localises and known and len(known.typical) == len(course):
        offset = model.label_scale.offset[name]
        lost = surprises(course - offset) - surprises(np.array(known.typical) - offset)
    return Score(
        action=name,
        score=final,
        calibration=known,
        course=tuple(course.tolist()),
        changes=tuple(np.diff(course, prepend=0.0).tolist()),
        lost=tuple(lost.tolist()),
        padding=padding,
        seconds=tuple(seconds),
        range=model.ranges.get(name),
        warnings=tuple(_warnings(model, name, x, final, frames, rate, real)),
    )


def surprises(course: Floats) -> Floats:
    """Return how much each clip adds beyond what the trajectory predicts (clips,).

    A head with incremental labels has seen k / K of the score after clip k, and
    expects the next clip to be as good as those before. Linear in the course.
    """
    clips = np.arange(1, len(course) + 1)
    expected = np.concatenate([[0.0], course[:-1] * clips[1:] / clips[:-1]])
    return np.asarray(course - expected)


def _warnings(
    model: Model,
    action: str,
    x: NDArray[np.float32],
    score: float,
    frames: int | None,
    rate: float | None,
    clips: NDArray[np.int32] | None,
) -> list[str]:
    """Return the reasons to doubt a score."""
    found = []
    if model.plausibility is None or action not in model.plausibility.thresholds:
        found.append(
            f"not known whether this is {action} as in training: fewer than "
            f"{LEAST_SAMPLES} training videos of it to compare with"
        )
    else:
        distance = model.plausibility.distance(x[:1], action, clips)
        usual = model.plausibility.thresholds[action]
        if not distance <= usual:
            found.append(
                f"features unlike any training video of {action}: distance "
                f"{distance:.3g}, of training videos at most {usual:.3g}; is this "
                f"{action}, seen as in training? If not, neither the score nor the "
                "level of its interval holds"
            )
    if action in model.ranges:
        lowest, highest = model.ranges[action]
        if not lowest <= score <= highest:
            found.append(
                f"score outside the judges' range: training scores of {action} lie "
                f"from {lowest:g} to {highest:g}"
            )
    if frames is not None and action in model.frames:
        shortest, longest = model.frames[action]
        if not shortest / 2 <= frames <= 2 * longest:
            found.append(
                f"{frames} frames: training videos of {action} have {shortest} to "
                f"{longest}; cut the video to the action, or take the score with care"
            )
    usual_rate = model.rates.get(action)
    if rate and usual_rate:
        if max(rate / usual_rate, usual_rate / rate) > SIMILAR_RATES:
            found.append(
                f"{rate:.3g} frames per second: training videos of {action} have "
                f"{usual_rate:.3g}, so the frames that are scored show another stretch "
                f"of time; convert the video to {usual_rate:.3g} frames per second"
            )
    return found


def action_of(model: Model, action: str | None) -> str:
    """Return the action to score; None is the only action of a model of one.

    Raises `AqaError` for several actions, and for one that the model does not have.
    """
    known = ", ".join(model.actions)
    if action is None and len(model.actions) > 1:
        raise AqaError(f"which action? The model knows {known}: name one (--action)")
    if action is not None and action not in model.actions:
        raise AqaError(f"{action}: the model knows {known}")
    return action or model.actions[0]


@dataclass(frozen=True, eq=False)
class Scored:
    """A scored file; `strip` has a frame of each clip, uint8 (clips, h, w, 3)."""

    path: Path
    score: Score
    strip: NDArray[np.uint8] | None = None
