"""How a video looks, apart from what is performed: view, colours, camera.

Conventions: colours are RGB, 0 to 255; `scale` in pixels per metre; `yaw` in radians
about the vertical, 0 for an exact side view. Nothing here tells of quality. The
dives and the trampoline are always seen alike, the vault and big air from anywhere.
"""

from dataclasses import dataclass

import numpy as np

from aqa.cache.actions import BY_NAME
from aqa.extract.synthetic.drawing import Colour

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
