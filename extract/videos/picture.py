"""How a decoded frame is shown: cropped, turned or mirrored, and in RGB.

Conventions: pixels are uint8 (H, W, 3) RGB. A display matrix is that of MP4 and of
FFmpeg: nine integers a b u / c d v / x y w, which move the point (x, y) of the coded
picture to (a x + c y, b x + d y). Alpha is dropped, interlaced video is not
deinterlaced, and pixels that are not square stay as they are coded: `aspect` tells.
"""

from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

Pixels = npt.NDArray[np.uint8]


class Picture(Protocol):
    """One frame of a video or of a picture folder; `rgb` decodes and converts."""

    @property
    def width(self) -> int:
        """Columns of the coded picture."""

    @property
    def height(self) -> int:
        """Rows of the coded picture."""

    def rgb(self) -> Pixels:
        """Return the picture as it is shown, (H, W, 3)."""

    def aspect(self) -> float:
        """Width / height as it is shown; call it after `rgb`."""


@dataclass(frozen=True)
class Display:
    """How a video's container says to show its pictures.

    `crop` is the part to show, as (top, bottom, left, right) rows and columns, end
    exclusive, of a picture of `size` (width, height); None: all of it. `pixel_aspect`
    is width / height of a pixel.
    """

    size: tuple[int, int]
    crop: tuple[int, int, int, int] | None = None
    pixel_aspect: float = 1.0


@dataclass(slots=True)
class VideoPicture:
    """A decoded frame of a video; FFmpeg converts it to RGB at the size it finds."""

    frame: VideoFrame
    convert: VideoReformatter
    display: Display

    @property
    def width(self) -> int:
        """Columns of the coded picture."""
        return self.frame.width

    @property
    def height(self) -> int:
        """Rows of the coded picture."""
        return self.frame.height

    def rgb(self) -> Pixels:
        """Return the picture as it is shown, (H, W, 3)."""
        frame = self.convert.reformat(self.frame, format="rgb24", threads=1)
        pixels = cast(Pixels, frame.to_ndarray())
        if self._crop:
            top, bottom, left, right = self._crop
            pixels = pixels[top:bottom, left:right]
        return orient(pixels, *_matrix(self.frame))

    def aspect(self) -> float:
        """Width / height as it is shown."""
        top, bottom, left, right = self._crop or (0, self.height, 0, self.width)
        aspect = (right - left) / (bottom - top) * self.display.pixel_aspect
        return 1 / aspect if _is_turned(*_matrix(self.frame)) else aspect

    @property
    def is_upright_or_quarter_turn(self) -> bool:
        """Whether the display matrix only mirrors and turns by quarter turns."""
        a, b, c, d = _matrix(self.frame)
        return (a, abs(b)) == (0, abs(c)) if not d else (b, c, abs(a)) == (0, 0, abs(d))

    @property
    def _crop(self) -> tuple[int, int, int, int] | None:
        # Where the size changes in mid-stream, the container's crop says nothing.
        same = self.display.size == (self.width, self.height)
        return self.display.crop if same else None


def _is_turned(a: float, b: float, c: float, d: float) -> bool:
    return abs(a) + abs(d) < abs(b) + abs(c)


def orient(pixels: Pixels, a: float, b: float, c: float, d: float) -> Pixels:
    """Turn and mirror a picture as the display matrix (a, b, c, d) says.

    Other angles than quarter turns are taken for the nearest.
    """
    if _is_turned(a, b, c, d):
        # The point (x, y) moves to (c y, b x): rows become columns.
        pixels = pixels.transpose(1, 0, 2)
        a, d = c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _matrix(frame: VideoFrame) -> tuple[float, float, float, float]:
    side_data: Any = frame.side_data  # of which PyAV's stubs say too little
    try:
        found = side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV cannot list side data of kinds unknown to it
        found = None
    if found is not None:
        values = np.frombuffer(found, np.int32)
        a, b, _, c, d = values[:5].tolist()
        return a, b, c, d
    # Counterclockwise, as FFmpeg tells it.
    turns = {0: (1, 0, 0, 1), 1: (0, -1, 1, 0), 2: (-1, 0, 0, -1), 3: (0, 1, -1, 0)}
    return turns[round(frame.rotation / 90) % 4]
