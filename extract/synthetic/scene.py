"""The scene of a video: its appearance, drawing on images, and the painted venue.

Conventions: positions in metres as in `moves`, `scale` in pixels per metre, `yaw` in
radians about the vertical with 0 for an exact side view, colours RGB from 0 to 255.
Nothing in the appearance depends on quality. Dives and trampoline keep one view, vault
and big air vary it. A canvas covers the part of the world that the camera sees, which
cuts a 320 x 240 view out of it at whole pixels. Drawing functions change an image in
place and clip to it; pixels are x right, y down, from the centre of the first one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aqa.cache.actions import BY_NAME
from aqa.extract.synthetic.athlete import Array
from aqa.extract.synthetic.moves import (
    BOARD,
    LANDING_X,
    MAT,
    MAT_X,
    PLATFORM,
    TABLE,
    snow,
)

WIDTH, HEIGHT = 320, 240

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
    left = max(int(min(ax, bx) - reach), 0)
    right = min(int(max(ax, bx) + reach) + 2, width)
    top = max(int(min(ay, by) - reach), 0)
    bottom = min(int(max(ay, by) + reach) + 2, height)
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
    patch = image[top:bottom, left:right]
    mixed = np.array(colour, np.float32) - patch
    mixed *= along[:, :, None]
    mixed += patch
    patch[...] = mixed


def drops(image: Image, x: Array, y: Array, size: int, colour: Colour) -> None:
    """Draw discs of one radius `size` at positions x (n,), y (n,)."""
    reach = np.arange(-size, size + 1)
    dx, dy = np.meshgrid(reach, reach)
    inside = dx**2 + dy**2 <= size * size + 1
    columns = (np.round(x).astype(int)[:, None] + dx[inside]).ravel()
    rows = (np.round(y).astype(int)[:, None] + dy[inside]).ravel()
    height, width = image.shape[:2]
    seen = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    image[rows[seen], columns[seen]] = np.array(colour, np.uint8)


@dataclass(frozen=True)
class Appearance:
    """View, camera and colours of one video."""

    venue: str
    scale: float
    yaw: float
    mirrored: bool
    #: Offset of the picture and standard deviation of the camera shake, pixels.
    frame: tuple[float, float]
    shake: float
    skin: Colour
    hair: Colour
    suit: Colour
    accent: Colour
    sleeves: Colour
    legs: Colour
    wall: Colour
    ground: Colour
    seed: int

    @property
    def wet(self) -> bool:
        """Whether there is water below y = 0."""
        return self.venue in ("tower", "springboard")


VENUES = {
    "diving": "tower",
    "gym_vault": "gym",
    "ski_big_air": "mountain",
    "snowboard_big_air": "stadium",
    "sync_diving_3m": "springboard",
    "sync_diving_10m": "tower",
    "trampoline": "hall",
}
_SCALE = {"sync_diving_3m": 54.0, "sync_diving_10m": 52.0, "trampoline": 58.0}

_SKIN = ((236, 190, 160), (214, 160, 124), (168, 116, 84), (120, 80, 58))
_HAIR = ((40, 30, 26), (90, 60, 30), (20, 20, 24), (176, 140, 80))
_SUIT = ((200, 40, 50), (30, 60, 150), (30, 120, 80), (230, 150, 30), (110, 40, 120))
_ACCENT = ((250, 240, 230), (250, 220, 60), (30, 30, 40))
#: Pairs of wall and ground (or water, or snow) per venue.
_VENUE: dict[str, tuple[tuple[Colour, Colour], ...]] = {
    "tower": (((176, 196, 208), (44, 126, 170)),),
    "springboard": (((120, 168, 140), (36, 150, 160)),),
    "gym": (
        ((92, 96, 130), (150, 120, 96)),
        ((150, 134, 120), (70, 110, 150)),
        ((64, 84, 84), (128, 92, 120)),
        ((172, 176, 180), (90, 130, 100)),
    ),
    "mountain": (
        ((110, 170, 226), (236, 242, 248)),
        ((170, 196, 214), (222, 232, 240)),
        ((226, 196, 170), (240, 232, 226)),
    ),
    "stadium": (
        ((24, 28, 60), (176, 190, 222)),
        ((44, 26, 54), (196, 190, 214)),
        ((18, 40, 50), (170, 200, 206)),
    ),
    "hall": (((140, 130, 150), (60, 80, 130)), ((120, 140, 150), (70, 70, 110))),
}


def draw_appearance(action: str, rng: np.random.Generator) -> Appearance:
    """Sample the appearance of one video of an action."""
    return vary(
        VENUES[action],
        BY_NAME[action].view_variation,
        rng,
        scale=_SCALE.get(action, 62.0),
        second="sync" in action,
    )


def vary(
    venue: str,
    variation: str,
    rng: np.random.Generator,
    scale: float = 60.0,
    second: bool = False,
) -> Appearance:
    """Sample an appearance at a venue.

    `variation` is "negligible", "small" or "large", as in the paper's Table 1; `second`
    turns the view so that two athletes are seen.
    """
    spread = {"negligible": 0.03, "small": 0.25, "large": 1.0}[variation]
    large = variation == "large"
    palettes = _VENUE[venue]
    wall, ground = palettes[int(rng.integers(len(palettes)))]
    tint = rng.normal(0, 4 + 14 * spread, 3)
    dressed = venue in ("mountain", "stadium")
    suit, accent = _choose(_SUIT, rng), _choose(_ACCENT[dressed:], rng)
    if large:
        suit = _tinted(suit, rng.normal(0, 30, 3))
    skin = _choose(_SKIN, rng)
    legs = _tinted(_choose(_SUIT, rng), rng.normal(-20, 20, 3)) if dressed else skin
    return Appearance(
        venue=venue,
        scale=scale * float(1 + 0.16 * spread * rng.uniform(-1, 1)),
        yaw=float(rng.uniform(-0.6, 0.6) * spread) + (0.25 if second else 0.12),
        mirrored=bool(large and rng.random() < 0.5),
        frame=(float(rng.normal(0, 9 * spread)), float(rng.normal(0, 6 * spread))),
        shake=0.3 + 1.0 * spread,
        skin=skin,
        hair=_choose(_SUIT if dressed else _HAIR, rng),
        suit=suit,
        accent=accent,
        sleeves=_tinted(suit, (-12, -12, -12)) if dressed else skin,
        legs=legs,
        wall=_tinted(wall, tint),
        ground=_tinted(ground, tint / 2),
        seed=int(rng.integers(2**31)),
    )


def _choose(colours: tuple[Colour, ...], rng: np.random.Generator) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _tinted(colour: Colour, tint: np.ndarray | tuple[float, ...]) -> Colour:
    red, green, blue = np.clip(np.array(colour) + tint, 0, 255)
    return float(red), float(green), float(blue)


class Canvas:
    """The background of a venue, over all views of a moving camera."""

    def __init__(self, look: Appearance, corners: Array) -> None:
        """Paint the background for views whose top left corners are `corners`.

        `corners` (T, 2) are whole pixels right of and below x = y = 0.
        """
        right, below = corners.max(axis=0) + (WIDTH, HEIGHT)
        origin = corners.min(axis=0)
        self._corners = (corners - origin).astype(int)
        self._zero_column, self._zero_row = (-origin).tolist()
        self.scale = look.scale
        width, height = int(right - origin[0]), int(below - origin[1])
        self.left, self.right = origin[0] / self.scale, right / self.scale
        self.bottom, self.top = -below / self.scale, -origin[1] / self.scale
        share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
        above = np.array(_shade(look.wall, 1.12), np.float32)
        below = np.array(_shade(look.wall, 0.85), np.float32)
        rows = (above * (1 - share) + below * share).astype(np.uint8)
        self.image: Image = np.repeat(rows, width, axis=1)
        _PAINTERS[look.venue](self, look, np.random.default_rng(look.seed))

    def view(self, frame: int) -> Image:
        """Return a copy of the view (240, 320, 3) in a frame."""
        column, row = self._corners[frame].tolist()
        return self.image[row : row + HEIGHT, column : column + WIDTH].copy()

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return the column and row of a position in metres."""
        return x * self.scale + self._zero_column, self._zero_row - y * self.scale

    def box(
        self, left: float, bottom: float, right: float, top: float, c: Colour
    ) -> None:
        """Fill the pixels whose centres lie in a rectangle given in metres."""
        (x0, y0), (x1, y1) = self.pixel(left, top), self.pixel(right, bottom)
        rows = slice(max(round(y0), 0), max(round(y1), 0))
        columns = slice(max(round(x0), 0), max(round(x1), 0))
        self.image[rows, columns] = np.array(c, np.uint8)

    def every(self, step: float) -> Array:
        """Return the visible multiples of `step` along x."""
        first = np.floor(self.left / step)
        return step * np.arange(first, self.right / step)

    def crowd(
        self, bottom: float, top: float, rng: np.random.Generator, dim: float
    ) -> None:
        """Draw a blurred crowd in a horizontal band."""
        height, width = self.image.shape[:2]
        (_, y1), (_, y0) = self.pixel(0, bottom), self.pixel(0, top)
        for _ in range(6):
            count = int(width * max(y1 - y0, 0) / 900)
            place = rng.uniform((0, y0), (width, y1), (count, 2)).T
            colour = tuple(dim * rng.uniform(60, 200, 3))
            drops(self.image, place[0], place[1], 2, colour)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255.0, part * factor) for part in colour)
    return red, green, blue


def _pool(canvas: Canvas, look: Appearance, rng: np.random.Generator) -> None:
    left, right, bottom, top = canvas.left, canvas.right, canvas.bottom, canvas.top
    for x in canvas.every(1.6):
        canvas.box(x, 2.2, x + 0.12, top, _shade(look.wall, 0.94))
    canvas.box(left, 2.0, right, 2.2, _shade(look.wall, 0.7))
    canvas.crowd(0.9, 2.0, rng, 0.8)
    canvas.box(left, 0.0, right, 0.3, (214, 214, 206))
    canvas.box(left, bottom, right, 0.0, look.ground)
    for depth in np.arange(0.08, -bottom, 0.16):
        for _ in range(5):
            x = rng.uniform(left, right)
            light = rng.uniform(1.04, 1.16)
            canvas.box(x, -depth - 0.04, x + 1.2, -depth, _shade(look.ground, light))


def _tower(canvas: Canvas, look: Appearance, rng: np.random.Generator) -> None:
    _pool(canvas, look, rng)
    canvas.box(-3.6, 0.0, -2.2, 14.0, (150, 150, 152))
    canvas.box(-3.6, PLATFORM - 0.35, 1.15, PLATFORM - 0.06, (120, 122, 128))
    canvas.box(-3.6, PLATFORM - 0.3, 0.0, PLATFORM, (196, 198, 200))
    canvas.box(-3.6, PLATFORM - 0.3, 0.0, PLATFORM - 0.25, (90, 92, 98))


def _springboard(canvas: Canvas, look: Appearance, rng: np.random.Generator) -> None:
    _pool(canvas, look, rng)
    for x, shade in ((1.15, 0.75), (0.0, 1.0)):
        canvas.box(-7, BOARD - 0.1, x, BOARD, _shade((222, 226, 230), shade))
        canvas.box(x - 2.6, 0.0, x - 2.2, BOARD - 0.1, _shade((140, 150, 160), shade))


def _gym(canvas: Canvas, look: Appearance, rng: np.random.Generator) -> None:
    left, right, bottom = canvas.left, canvas.right, canvas.bottom
    canvas.crowd(1.4, 3.6, rng, 0.7)
    canvas.box(left, 0.7, right, 1.3, _shade(look.wall, 0.65))
    for x in canvas.every(3.1):
        canvas.box(x, 0.75, x + 1.6, 1.25, _shade(look.suit, 0.8))
    canvas.box(left, bottom, right, 0.35, _shade(look.ground, 0.9))
    canvas.box(left, -0.35, -1.2, 0.03, _shade(look.ground, 1.25))
    canvas.box(-2.1, 0.0, -1.3, 0.2, (220, 200, 150))
    canvas.box(-0.25, 0.0, 0.25, TABLE, (90, 90, 96))
    canvas.box(-0.7, TABLE - 0.28, 0.65, TABLE, (206, 170, 120))
    canvas.box(MAT_X - 1.7, -0.4, MAT_X + 3.4, MAT, _shade(look.ground, 1.5))


def _slope(canvas: Canvas, look: Appearance, rng: np.random.Generator) -> None:
    height, width = canvas.image.shape[:2]
    # Half resolution for speed: no detail here is finer.
    column = np.arange(0, width, 2, dtype=np.int32)
    rows = np.arange(0, height, 2, dtype=np.int32)[:, None]
    x = canvas.left + column / canvas.scale  # (columns,)
    layer = np.zeros((len(rows), len(column)), np.uint8)
    for base, steep in ((1.0, 2.4), (-1.5, 1.7)):
        phase = rng.uniform(0, 6, 2)
        ridge = base + steep * np.abs(np.sin(0.21 * x + phase[0]))
        ridge = ridge + 0.5 * np.sin(0.9 * x + phase[1]) - 0.22 * x
        layer += rows > ((canvas.top - ridge) * canvas.scale).astype(np.int32)
    depth = rows - ((canvas.top - snow(x)) * canvas.scale).astype(np.int32)
    layer[depth >= 0] = 3
    layer[(depth >= 3) & ((depth < 8) | ((rows + column // 3) % 23 >= 2))] = 4
    rock = 0.55 * np.array(look.wall) + 0.45 * np.array(look.ground)
    snowy = np.array(look.ground)
    colours = np.stack([rock, rock * 0.82, rock * 0.9, snowy * 0.9, snowy])
    painted = np.clip(colours, 0, 255).astype(np.uint8)[layer]
    sky = layer == 0
    painted[sky] = canvas.image[::2, ::2][sky]
    painted = painted.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    canvas.image = painted
    for flag in canvas.every(2.5):
        if flag < LANDING_X - 4:
            continue
        y = float(snow(np.array(flag)))
        canvas.box(flag, y, flag + 0.06, y + 0.9, (60, 60, 70))
        canvas.box(flag, y + 0.55, flag + 0.5, y + 0.9, _shade(look.accent, 0.9))


def _stadium(canvas: Canvas, look: Appearance, rng: np.random.Generator) -> None:
    height, width = canvas.image.shape[:2]
    stars = rng.uniform((0, 0), (width, 0.5 * height), (60, 2)).T
    drops(canvas.image, stars[0], stars[1], 1, (190, 190, 200))
    _slope(canvas, look, rng)
    for x in canvas.every(4.0):
        foot = float(snow(np.array(x)))
        half = 1 / canvas.scale
        canvas.box(x - half, foot, x + half, foot + 4.4, (70, 70, 90))
        column, row = canvas.pixel(x, foot + 4.4)
        drops(canvas.image, np.array([column]), np.array([row]), 7, (255, 244, 200))


def _hall(canvas: Canvas, look: Appearance, rng: np.random.Generator) -> None:
    left, right, bottom, top = canvas.left, canvas.right, canvas.bottom, canvas.top
    for y in np.arange(2.5, top, 1.5):
        canvas.box(left, y, right, y + 0.1, _shade(look.wall, 0.93))
    for x in canvas.every(2.2):
        canvas.box(x, 7.4, x + 1.2, 7.6, (250, 248, 230))
    canvas.crowd(0.4, 1.6, rng, 0.75)
    canvas.box(left, bottom, right, -0.9, look.ground)
    canvas.box(-2.4, -0.12, 2.4, 0.02, (40, 60, 140))
    canvas.box(-1.9, -0.06, 1.9, 0.0, (230, 230, 236))
    for x in (-2.3, -1.0, 0.9, 2.2):
        canvas.box(x, -1.2, x + 0.1, -0.1, (70, 70, 80))


_PAINTERS: dict[str, Callable[[Canvas, Appearance, np.random.Generator], None]] = {
    "tower": _tower,
    "springboard": _springboard,
    "gym": _gym,
    "mountain": _slope,
    "stadium": _stadium,
    "hall": _hall,
}
