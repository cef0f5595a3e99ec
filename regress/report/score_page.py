"""The page of `aqa score --html`: score, warnings, frames and trajectory of each file.

Conventions: a strip is uint8 (clips, h, w, 3), one frame per clip as the network sees
it; scores are in judges' units. Frames and trajectory share one grid of `clips` equal
columns, so that a clip's point stands under its frame at any width. The page is one
file without scripts or requests; videos are played from where they lie. Whatever comes
from file names is escaped.
"""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from aqa.cache.errors import printable
from aqa.cache.files import write_file
from aqa.regress.heads.scoring import Score, Scored

#: What browsers play.
PLAYABLE = {".mp4", ".m4v", ".mov", ".webm", ".ogv"}
#: Units of the drawing: width of a clip's column, height, and margin above and below.
COLUMN, HEIGHT, MARGIN = 100, 150, 25


def write_score_page(
    path: Path, scored: Sequence[Scored], made_with: Mapping[str, str]
) -> Path:
    """Write the page whole or not at all; `made_with` is shown at its end."""
    page = render(
        "score_page.html.jinja",
        files=[_entry(path, each) for each in scored],
        made_with={name: printable(text) for name, text in made_with.items()},
    )
    write_file(path, page)
    return path


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder; whatever is no `Markup` is escaped."""
    environment = Environment(
        loader=PackageLoader("aqa.regress", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(template).render(values)


def _entry(page: Path, scored: Scored) -> dict[str, Any]:
    score = scored.score
    beside = Path(os.path.relpath(scored.path, page.parent)).as_posix()
    count = max(len(score.course), 0 if scored.strip is None else len(scored.strip))
    return {
        "name": printable(scored.path.name),
        # A name need not be text: its bytes are what is quoted.
        "source": quote(os.fsencode(beside)),
        "playable": scored.path.suffix.lower() in PLAYABLE,
        "score": score,
        "level": round(100 * score.calibration.level) if score.calibration else None,
        "has_frames": scored.strip is not None,
        "clips": [
            {
                "picture": None if scored.strip is None else jpeg(scored.strip[clip]),
                "course": _at(score.course, clip),
                "change": _at(score.changes, clip),
                "lost": _at(score.lost, clip),
                "worst": clip == score.worst_clip,
                "padding": clip < score.padding,
                "seconds": score.seconds[clip] if score.seconds else None,
            }
            for clip in range(count)
        ],
        "trajectory": Markup(_trajectory(score)) if score.course else "",
        "has_typical": bool(_typical(score)),
    }


def _at(values: Sequence[float], clip: int) -> float | None:
    return values[clip] if values else None


def jpeg(frame: NDArray[np.uint8]) -> str:
    """Return a picture (h, w, 3) as JPEG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def _typical(score: Score) -> tuple[float, ...]:
    typical = score.calibration.typical if score.calibration else ()
    return typical if len(typical) == len(score.course) else ()


def _trajectory(score: Score) -> str:
    """Return an SVG element: the typical trajectory behind that of the video."""
    typical = _typical(score)
    values = np.array([*score.course, *typical])
    low, high = values.min(), values.max()
    room = (HEIGHT - 2 * MARGIN) / max(high - low, 1e-9)

    def points(course: Sequence[float]) -> list[tuple[float, float]]:
        return [
            (COLUMN * (clip + 0.5), HEIGHT - MARGIN - room * (value - low))
            for clip, value in enumerate(course)
        ]

    def line(course: Sequence[float], name: str) -> str:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points(course))
        return f'<polyline class="{name}" points="{path}"/>'

    drawn = [line(typical, "typical")] if typical else []
    drawn.append(line(score.course, "course"))
    for (x, y), value in zip(points(score.course), score.course, strict=True):
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        drawn.append(f'<text x="{x:.1f}" y="{y - 9:.1f}">{value:.1f}</text>')
    width = COLUMN * len(score.course)
    return (
        f'<svg viewBox="0 0 {width} {HEIGHT}" role="img" '
        f'aria-label="{score.course_words}">{"".join(drawn)}</svg>'
    )
