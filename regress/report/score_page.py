"""The page of `aqa score --html`: frames of a video, and its course under them.

Conventions: a strip is uint8 (clips, h, w, 3), one frame of each clip; courses are in
judges' units. The page stands alone but for the videos, which play where they lie
beside it, whole or, by a link, from one second to another. Whatever comes from file
names is escaped.
"""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from aqa.cache.errors import printable
from aqa.cache.files import replacing
from aqa.regress.heads.scoring import Score
from aqa.regress.report.figures import BLUE, QUIET, VERMILION, draw

#: What browsers play.
PLAYABLE = {".mp4", ".m4v", ".mov", ".webm", ".ogv"}


@dataclass(frozen=True)
class Scored:
    """One video on the page."""

    video: Path
    score: Score
    strip: NDArray[np.uint8]


def write_score_page(path: Path, scored: Sequence[Scored]) -> Path:
    """Write the page; what was at `path` is replaced whole or not at all."""
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    template = (
        files("aqa.regress.report").joinpath("score_page.html.jinja").read_text("utf-8")
    )
    entries = [_entry(path, number, each) for number, each in enumerate(scored)]
    page = environment.from_string(template).render(videos=entries)
    with replacing(path) as descriptor, open(descriptor, "wb", closefd=False) as file:
        file.write(page.encode())
    return path


def _entry(page: Path, number: int, scored: Scored) -> dict[str, Any]:
    score = scored.score
    beside = Path(os.path.relpath(scored.video, page.parent)).as_posix()
    # A name need not be text: its bytes are what is quoted.
    source = quote(os.fsencode(beside))
    clips = [
        {
            "picture": _jpeg(frame),
            "course": _at(score.course, clip),
            "change": _at(score.changes, clip),
            "lost": _at(score.lost, clip),
            "worst": clip == score.worst_clip,
            "padding": clip < score.padding,
            "seconds": score.seconds[clip] if score.seconds else None,
        }
        for clip, frame in enumerate(scored.strip)
    ]
    return {
        "name": printable(scored.video.name),
        "source": source,
        "playable": scored.video.suffix.lower() in PLAYABLE,
        "action": score.action,
        "score": score.score,
        "interval": score.interval,
        "basis": score.calibration.words() if score.calibration else "",
        "scored": score.scored,
        "clips": clips,
        "picture": Markup(_course(f"course{number}", score)) if score.course else "",
    }


def _at(values: Sequence[float], clip: int) -> float | None:
    return values[clip] if values else None


def _jpeg(frame: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def _course(name: str, score: Score) -> str:
    """Draw the score as it stands after each clip, the worst clip marked."""
    clips = np.arange(1, len(score.course) + 1)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(clips, score.course, BLUE.line, marker=BLUE.marker, color=BLUE.colour)
        if score.worst_clip is not None:
            worst = score.worst_clip
            axes.axvspan(worst + 0.5, worst + 1.5, color=VERMILION.colour, alpha=0.12)
        if score.interval:
            axes.errorbar(
                clips[-1] + 0.25,
                sum(score.interval) / 2,
                (score.interval[1] - score.interval[0]) / 2,
                color=QUIET,
                capsize=3,
            )
        axes.set_xlim(0.5, clips[-1] + 0.5)
        axes.set_xticks(clips, [f"clip {clip}" for clip in clips])
        axes.set_ylabel("score so far")
        axes.grid(axis="y")

    return draw(name, (7.2, 2.1), paint)
