"""How pictures are shown: which pixels, and turned or mirrored how.

Conventions: pixels are uint8 (H, W, 3) RGB. A display matrix is that of MP4 and of
FFmpeg: it moves the point (x, y) of the coded picture to (a x + c y, b x + d y). Alpha
is dropped, and interlaced video is not deinterlaced.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

Pixels = npt.NDArray[np.uint8]
#: (a, b, c, d), of which only the signs and what is zero matter.
Matrix = tuple[int, int, int, int]
#: By quarter turns counterclockwise.
_TURNS = ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))


@dataclass(slots=True)
class Picture:
    """One frame; `rgb` converts it as it is shown. Sizes are of the coded picture."""

    width: int
    height: int
    rgb: Callable[[], Pixels]


def orient(pixels: Pixels, matrix: Matrix) -> Pixels:
    """Turn and mirror pixels as a display matrix says, by the nearest quarter turn."""
    a, b, c, d = matrix
    if abs(a) + abs(d) < abs(b) + abs(c):
        # The point (x, y) moves to (c y, b x): rows become columns.
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def display_matrix(frame: VideoFrame) -> Matrix:
    """Return the display matrix of a frame."""
    side_data: Any = frame.side_data  # of which PyAV's stubs say too little
    try:
        found = side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV cannot list side data of kinds unknown to it
        return _TURNS[round(frame.rotation / 90) % 4]
    if found is None:
        return _TURNS[0]
    a, b, _, c, d = np.frombuffer(found, np.int32)[:5].tolist()
    return a, b, c, d


def is_quarter_turn(matrix: Matrix) -> bool:
    """Return whether a matrix only mirrors and turns by quarter turns."""
    a, b, c, d = map(abs, matrix)
    return (b, c) == (0, 0) and a == d > 0 or (a, d) == (0, 0) and b == c > 0
