"""Anti-aliased drawing on images with NumPy: capsules, boxes, gradients and drops.

Conventions: images are uint8 (height, width, 3) RGB and changed in place; positions in
pixels, x right, y down, the centre of the first pixel at (0, 0); clipped to the image.
"""

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Colour = tuple[float, float, float]

_COLUMN = np.arange(4096, dtype=np.float32)


def capsule(
    image: Image,
    start: tuple[float, float],
    end: tuple[float, float],
    radius: tuple[float, float],
    colour: Colour,
    opacity: float = 1.0,
) -> None:
    """Draw a limb from start to end, with the radius interpolated between its ends."""
    (ax, ay), (bx, by), (ra, rb) = start, end, radius
    height, width = image.shape[:2]
    reach = max(ra, rb) + 1.0
    left, right = (
        max(int(min(ax, bx) - reach), 0),
        min(int(max(ax, bx) + reach) + 2, width),
    )
    top, bottom = (
        max(int(min(ay, by) - reach), 0),
        min(int(max(ay, by) + reach) + 2, height),
    )
    if left >= right or top >= bottom:
        return
    dx, dy = bx - ax, by - ay
    x = _COLUMN[left:right] - ax
    y = (_COLUMN[top:bottom] - ay)[:, None]
    square = max(dx * dx + dy * dy, 1e-6)
    along = x * (dx / square) + y * (dy / square)  # 0 at the start, 1 at the end
    np.maximum(along, 0, out=along)
    np.minimum(along, 1, out=along)
    # Squared distance from the axis, then the coverage within the radius.
    x, y = x - along * dx, y - along * dy
    x *= x
    y *= y
    x += y
    np.sqrt(x, out=x)
    along *= rb - ra
    along -= x
    along += ra + 0.5
    np.maximum(along, 0, out=along)
    np.minimum(along, 1, out=along)
    if opacity < 1:
        along *= opacity
    blend(image[top:bottom, left:right], along, colour)


def blend(patch: Image, cover: NDArray[np.float32], colour: Colour) -> None:
    """Blend `colour` into a patch with opacity `cover` (height, width)."""
    mixed = np.array(colour, np.float32) - patch
    mixed *= cover[:, :, None]
    mixed += patch
    patch[...] = mixed


def box(
    image: Image, left: float, top: float, right: float, bottom: float, colour: Colour
) -> None:
    """Fill the pixels whose centres lie in a rectangle."""
    height, width = image.shape[:2]
    rows = slice(min(max(round(top), 0), height), min(max(round(bottom), 0), height))
    columns = slice(min(max(round(left), 0), width), min(max(round(right), 0), width))
    image[rows, columns] = np.array(colour, np.uint8)


def gradient(height: int, width: int, above: Colour, below: Colour) -> Image:
    """Return an image with a vertical gradient from one colour to another."""
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    rows = (
        np.array(above, np.float32) * (1 - share) + np.array(below, np.float32) * share
    )
    return np.repeat(rows.astype(np.uint8), width, axis=1)


def drops(
    image: Image,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    size: int,
    colour: Colour,
) -> None:
    """Draw discs of one radius `size` at positions x (n,), y (n,)."""
    reach = np.arange(-size, size + 1)
    dx, dy = np.meshgrid(reach, reach)
    inside = dx**2 + dy**2 <= size * size + 1
    columns = (np.round(x).astype(int)[:, None] + dx[inside]).ravel()
    rows = (np.round(y).astype(int)[:, None] + dy[inside]).ravel()
    height, width = image.shape[:2]
    seen = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    image[rows[seen], columns[seen]] = np.array(colour, np.uint8)
