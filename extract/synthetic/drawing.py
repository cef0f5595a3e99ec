"""Drawing on images with NumPy: capsules, boxes and drops, edges smoothed.

Conventions: images are uint8 (height, width, 3) RGB and changed in place; positions
are pixels, x right, y down, the middle of the first pixel is (0, 0); what lies
outside the image is cut off.

How a video looks, apart from what is performed: view, colours, camera.

Conventions: colours are RGB, 0 to 255; `scale` in pixels per metre; `yaw` in radians
about the vertical, 0 for an exact side view. Nothing here tells of quality. The
dives and the trampoline are always seen alike, the vault and big air from anywhere.

An athlete's body as it is drawn: parts, colours, order in depth.

Conventions: points are (T, points, 3) with image positions in pixels and depth in
metres, nearer is larger; the nearer part covers the farther one, far limbs are in
the shade, and chest and back of the head have colours of their own, so that twists
are seen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aqa.cache.actions import BY_NAME
from aqa.extract.synthetic.athlete import POINT, Array

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
    """Draw a limb from start to end, its radius going from the one to the other."""
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
    # The distance from the axis, squared; then how far within the radius that is.
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
    """Paint `colour` where `cover` (height, width) is 1, mix it in where it is less."""
    mixed = np.array(colour, np.float32) - patch
    mixed *= cover[:, :, None]
    mixed += patch
    patch[...] = mixed


def box(
    image: Image, left: float, top: float, right: float, bottom: float, colour: Colour
) -> None:
    """Fill the pixels whose middles lie in a rectangle."""
    height, width = image.shape[:2]
    rows = slice(min(max(round(top), 0), height), min(max(round(bottom), 0), height))
    columns = slice(min(max(round(left), 0), width), min(max(round(right), 0), width))
    image[rows, columns] = np.array(colour, np.uint8)


def gradient(height: int, width: int, above: Colour, below: Colour) -> Image:
    """Make an image that fades from one colour to another."""
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
    """Draw many small discs of one size at once."""
    reach = np.arange(-size, size + 1)
    dx, dy = np.meshgrid(reach, reach)
    inside = dx**2 + dy**2 <= size * size + 1
    columns = (np.round(x).astype(int)[:, None] + dx[inside]).ravel()
    rows = (np.round(y).astype(int)[:, None] + dy[inside]).ravel()
    height, width = image.shape[:2]
    seen = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    image[rows[seen], columns[seen]] = np.array(colour, np.uint8)


WIDTH, HEIGHT = 320, 240


@dataclass(frozen=True)
class Look:
    """One video's appearance."""

    venue: str
    scale: float
    yaw: float
    mirrored: bool
    #: Offset of the picture and size of the camera's tremble, pixels.
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
    #: "skis", "board" or "".
    gear: str
    seed: int


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
_GEAR = {"mountain": "skis", "stadium": "board"}

_SKIN = ((236, 190, 160), (214, 160, 124), (168, 116, 84), (120, 80, 58))
_HAIR = ((40, 30, 26), (90, 60, 30), (20, 20, 24), (176, 140, 80))
_SUIT = ((200, 40, 50), (30, 60, 150), (30, 120, 80), (230, 150, 30), (110, 40, 120))
_ACCENT = ((250, 240, 230), (250, 220, 60), (30, 30, 40))
#: Wall and ground (or water, or snow) of each venue; "negligible" variation stays
#: near the first.
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


def draw_look(action: str, rng: np.random.Generator) -> Look:
    """Draw the appearance of one video of an action."""
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
) -> Look:
    """Draw an appearance at a venue: "negligible", "small" or "large" variation."""
    spread = {"negligible": 0.03, "small": 0.25, "large": 1.0}[variation]
    large = variation == "large"
    palettes = _VENUE[venue]
    wall, ground = palettes[int(rng.integers(len(palettes)))]
    tint = rng.normal(0, 4 + 14 * spread, 3)
    dressed = venue in _GEAR
    suit, accent = _choose(_SUIT, rng), _choose(_ACCENT[dressed:], rng)
    if large:
        suit = _tinted(suit, rng.normal(0, 30, 3))
    skin = _choose(_SKIN, rng)
    legs = _tinted(_choose(_SUIT, rng), rng.normal(-20, 20, 3)) if dressed else skin
    return Look(
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
        gear=_GEAR.get(venue, ""),
        seed=int(rng.integers(2**31)),
    )


def _choose(colours: tuple[Colour, ...], rng: np.random.Generator) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _tinted(colour: Colour, tint: np.ndarray | tuple[float, ...]) -> Colour:
    red, green, blue = np.clip(np.array(colour) + tint, 0, 255)
    return float(red), float(green), float(blue)


#: From, to, radii in metres, and the field of `Look` that colours it.
PARTS = (
    ("pelvis", "neck", 0.125, 0.15, "suit"),
    ("head", "head", 0.115, 0.115, "skin"),
    *(
        part
        for side in ("_l", "_r")
        for part in (
            (f"hip{side}", f"knee{side}", 0.095, 0.07, "legs"),
            (f"knee{side}", f"ankle{side}", 0.066, 0.045, "legs"),
            (f"ankle{side}", f"toe{side}", 0.045, 0.03, "legs"),
            (f"shoulder{side}", f"elbow{side}", 0.056, 0.047, "sleeves"),
            (f"elbow{side}", f"hand{side}", 0.046, 0.03, "skin"),
        )
    ),
)


class Body:
    """One athlete throughout a video, ready to be drawn in any frame."""

    def __init__(self, points: Array, look: Look) -> None:
        """Lay out all parts, frame by frame."""
        scale = look.scale
        pieces = [(points[:, POINT[p[0]]], points[:, POINT[p[1]]]) for p in PARTS]
        radii = [(p[2], p[3]) for p in PARTS]
        colours: list[Colour] = [getattr(look, p[4]) for p in PARTS]
        pieces += [_chest(points, scale), _hair(points)]
        radii += [(0.07, 0.09), (0.1, 0.1)]
        colours += [look.accent, look.hair]
        gear = _gear(points, look.gear)
        pieces += gear
        radii += [(0.04, 0.04)] * len(gear)
        colours += [look.accent] * len(gear)
        self.start = np.stack([start for start, _ in pieces], axis=1)
        self.end = np.stack([end for _, end in pieces], axis=1)
        self.radii = [(scale * a, scale * b) for a, b in radii]
        depth = (self.start[..., 2] + self.end[..., 2]) / 2
        self.order = np.argsort(depth, axis=1, kind="stable")
        light = np.clip(0.92 + 0.5 * depth, 0.72, 1.08)
        self.colours = np.minimum(np.array(colours) * light[..., None], 255.0)

    def draw(self, image: Image, frame: int) -> None:
        """Draw the athlete on one picture."""
        start, end = self.start[frame].tolist(), self.end[frame].tolist()
        colours = self.colours[frame]
        for part in self.order[frame].tolist():
            capsule(
                image, start[part][:2], end[part][:2], self.radii[part], colours[part]
            )


def _chest(points: Array, scale: float) -> tuple[Array, Array]:
    """A panel in front of the trunk."""
    metric = np.array([1 / scale, -1 / scale, 1.0])
    pelvis, neck = points[:, POINT["pelvis"]], points[:, POINT["neck"]]
    across = points[:, POINT["shoulder_r"]] - points[:, POINT["shoulder_l"]]
    front = np.cross((neck - pelvis) * metric, across * metric)
    front *= 0.09 / np.maximum(np.linalg.norm(front, axis=1, keepdims=True), 1e-6)
    front /= metric
    return 0.7 * pelvis + 0.3 * neck + front, 0.1 * pelvis + 0.9 * neck + front


def _hair(points: Array) -> tuple[Array, Array]:
    """The back of the head, or a helmet."""
    head, nose = points[:, POINT["head"]], points[:, POINT["nose"]]
    back = head + 0.45 * (head - nose)
    return back, back


def _gear(points: Array, gear: str) -> list[tuple[Array, Array]]:
    """Two skis along the feet, one board across them, or nothing."""
    ankles = [points[:, POINT[f"ankle_{side}"]] for side in ("l", "r")]
    toes = [points[:, POINT[f"toe_{side}"]] for side in ("l", "r")]
    if gear == "board":
        along = ankles[1] - ankles[0]
        return [(ankles[0] - 0.45 * along, ankles[1] + 0.45 * along)]
    if gear == "skis":
        feet = [(a, toe - a) for a, toe in zip(ankles, toes, strict=True)]
        return [(ankle - 3.2 * foot, ankle + 5.0 * foot) for ankle, foot in feet]
    return []
