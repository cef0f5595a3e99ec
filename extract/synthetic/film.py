"""Filming a performance: bodies, splashes, camera, pictures, joints, and their files.

Conventions: pictures are uint8 (240, 320, 3) RGB; image positions in pixels, x right,
y down; points (T, points, 3) hold image positions and depth in metres, nearer is
larger. Bodies are drawn from the positions that are written, rounded to 0.1 pixel.
Videos are MPEG-4 in AVI at 25 frames per second, like UCF-101's; the same pictures
give the same bytes (one encoding thread, no version strings).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from aqa.cache.files import replacing, write_file
from aqa.extract.synthetic.athlete import COCO, MIRRORED, POINT, Array
from aqa.extract.synthetic.moves import GRAVITY, choreograph
from aqa.extract.synthetic.performance import RATE, Performance
from aqa.extract.synthetic.scene import (
    HEIGHT,
    WIDTH,
    Appearance,
    Canvas,
    Colour,
    Image,
    capsule,
    drops,
)

#: Body parts: start, end, radii in metres, and the field of `Appearance` of the colour.
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
    """One athlete in all frames; nearer parts cover farther ones, far limbs are darker.

    Chest and back of the head have colours of their own, so that twists are visible.
    """

    def __init__(self, points: Array, look: Appearance) -> None:
        """Compute all parts from points (T, points, 3)."""
        scale = look.scale
        head, nose = points[:, POINT["head"]], points[:, POINT["nose"]]
        back = head + 0.45 * (head - nose)
        parts: list[tuple[Array, Array, float, float, Colour]] = [
            (points[:, POINT[a]], points[:, POINT[b]], wide, narrow, getattr(look, c))
            for a, b, wide, narrow, c in PARTS
        ]
        parts.append((*_chest(points, scale), 0.07, 0.09, look.accent))
        parts.append((back, back, 0.1, 0.1, look.hair))
        for ends in _gear(points, look.venue):
            parts.append((*ends, 0.04, 0.04, look.accent))
        self.start = np.stack([part[0] for part in parts], axis=1)
        self.end = np.stack([part[1] for part in parts], axis=1)
        self.radii = [(scale * part[2], scale * part[3]) for part in parts]
        depth = (self.start[..., 2] + self.end[..., 2]) / 2
        self.order = np.argsort(depth, axis=1, kind="stable")
        light = np.clip(0.92 + 0.5 * depth, 0.72, 1.08)
        colours = np.array([part[4] for part in parts])
        self.colours = np.minimum(colours * light[..., None], 255.0)

    def draw(self, image: Image, frame: int) -> None:
        """Draw the athlete in one frame."""
        start, end = self.start[frame].tolist(), self.end[frame].tolist()
        colours = self.colours[frame]
        for part in self.order[frame].tolist():
            capsule(
                image, start[part][:2], end[part][:2], self.radii[part], colours[part]
            )


def _chest(points: Array, scale: float) -> tuple[Array, Array]:
    """Return the ends of a panel in front of the trunk."""
    metric = np.array([1 / scale, -1 / scale, 1.0])
    pelvis, neck = points[:, POINT["pelvis"]], points[:, POINT["neck"]]
    across = points[:, POINT["shoulder_r"]] - points[:, POINT["shoulder_l"]]
    front = np.cross((neck - pelvis) * metric, across * metric)
    front *= 0.09 / np.maximum(np.linalg.norm(front, axis=1, keepdims=True), 1e-6)
    front /= metric
    return 0.7 * pelvis + 0.3 * neck + front, 0.1 * pelvis + 0.9 * neck + front


def _gear(points: Array, venue: str) -> list[tuple[Array, Array]]:
    """Return the ends of two skis, one board, or nothing."""
    left, right = points[:, POINT["ankle_l"]], points[:, POINT["ankle_r"]]
    if venue == "stadium":
        along = right - left
        return [(left - 0.45 * along, right + 0.45 * along)]
    if venue == "mountain":
        feet = points[:, POINT["toe_l"]] - left, points[:, POINT["toe_r"]] - right
        ankles = zip((left, right), feet, strict=True)
        return [(ankle - 3.2 * foot, ankle + 5.0 * foot) for ankle, foot in ankles]
    return []


FOAM: Colour = (244, 250, 252)


@dataclass(frozen=True)
class Splash:
    """Water or snow thrown up at `frame` of a shot from the position (x, y)."""

    frame: int
    x: float
    y: float
    amount: float

    def draw(
        self, image: Image, look: Appearance, frame: int, corner: tuple[int, int]
    ) -> None:
        """Draw the splash in one frame, of which `corner` is the top left corner."""
        age = frame - self.frame
        life = 10 + 20 * self.amount if look.wet else 6 + 14 * self.amount  # frames
        if not 0 <= age < life:
            return
        scale = look.scale
        x, y = self.x * scale - corner[0], -self.y * scale - corner[1]
        rise = 0.15 + (1.7 if look.wet else 0.9) * self.amount  # metres
        if look.wet:
            share = (age + 1) / life
            wide = (0.1 + 0.5 * self.amount) * scale
            top = y - 0.8 * rise * scale * 4 * share * (1 - share)
            capsule(image, (x, y), (x, top), (0.5 * wide, 0.35 * wide), FOAM, 0.85)
            ring = (0.3 + share) * wide
            capsule(image, (x - ring, y), (x + ring, y), (3.0, 3.0), FOAM, 0.9)
        rng = np.random.default_rng(look.seed + 2)
        count = int(12 + 150 * self.amount)
        up = np.sqrt(2 * GRAVITY * rise) * rng.uniform(0.25, 1.05, count)
        aside = rng.normal(0 if look.wet else 0.9, 0.25 + 0.9 * self.amount, count)
        seconds = (age + 0.5) / RATE
        px = x + scale * aside * seconds
        py = y - scale * (up * seconds - 0.5 * GRAVITY * seconds**2)
        aloft = py < y
        large = aloft & (np.arange(count) % 3 == 0)
        drops(image, px[aloft], py[aloft], 1, FOAM)
        drops(image, px[large], py[large], 2, FOAM)


def splashes_of(
    performance: Performance, athletes: Sequence[Array], look: Appearance, start: int
) -> list[Splash]:
    """Return one splash per athlete of a dive or big air jump, else none.

    `athletes` are their points in all frames, of which the shot begins at `start`.
    """
    if look.venue in ("gym", "hall"):
        return []
    thrown = []
    for athlete, points in enumerate(athletes):
        frame = performance.touch_down() + round(athlete * performance.lag)
        where = points[min(frame, len(points) - 1)]
        x = float(where[POINT["hand_r" if look.wet else "ankle_r"], 0])
        y = 0.0 if look.wet else float(where[:, 1].min())
        amount = performance.amount("splash" if look.wet else "landing", athlete)
        thrown.append(Splash(frame - start, x, y, amount))
    return thrown


#: Distance between two athletes in metres.
ABREAST = 1.25
#: Lowest height that the camera follows to, in metres.
LOWEST = {"tower": 1.0, "springboard": 1.0, "hall": 0.8, "gym": 1.0}


@dataclass(frozen=True)
class Shot:
    """A filmed performance: positions are final, pictures are drawn on demand."""

    look: Appearance
    canvas: Canvas
    corners: NDArray[np.int64]  # (T, 2): of the views, pixels from x = y = 0
    athletes: tuple[Array, ...]  # each (T, points, 3): pixels, depth in metres
    splashes: tuple[Splash, ...]

    def keypoints(self) -> Array:
        """Return COCO keypoints (x, y, score) as seen, (T, athletes, 17, 3).

        The score is 1, or 0 for a joint under water or outside the picture.
        """
        joints = np.stack([points[:, : len(COCO)] for points in self.athletes], axis=1)
        x, y = joints[..., 0], joints[..., 1]
        seen = (x >= 0) & (x <= WIDTH - 1) & (y >= 0) & (y <= HEIGHT - 1)
        if self.look.wet:
            seen &= y < -self.corners[:, 1, None, None]
        joints[..., 2] = seen
        if self.look.mirrored:
            joints[..., 0] = np.round(WIDTH - 1 - x, 1)
            joints = joints[:, :, MIRRORED]
        return joints

    def pictures(self) -> Iterator[Image]:
        """Yield the pictures in order."""
        bodies = [Body(points, self.look) for points in self.athletes]
        for frame, corner in enumerate(self.corners.tolist()):
            image = self.canvas.view(frame)
            water = image[max(-corner[1], 0) :] if self.look.wet else image[:0]
            clear = water.copy()
            for body in reversed(bodies):
                body.draw(image, frame)
            if water.size:
                water[...] = (
                    water.astype(np.uint16) + 3 * clear.astype(np.uint16)
                ) // 4
            for splash in self.splashes:
                splash.draw(image, self.look, frame, corner)
            yield image[:, ::-1] if self.look.mirrored else image


def film(
    performance: Performance, look: Appearance, start: int = 0, end: int | None = None
) -> Shot:
    """Film frames [start, end) of a performance with a camera that follows it."""
    athletes = [_seen_from(p, look.yaw) for p in choreograph(performance)]
    for index, points in enumerate(athletes):
        points[..., 0] += index * ABREAST
    thrown = splashes_of(performance, athletes, look, start)
    middle = np.mean([points[:, POINT["pelvis"], :2] for points in athletes], axis=0)
    place = _followed(middle, look)[start:end] * (look.scale, -look.scale)
    corners = np.round(place - (WIDTH / 2, HEIGHT / 2))  # (T, 2)
    seen: list[Array] = []
    for points in athletes:
        pixels = points[start:end] * (look.scale, -look.scale, 1.0)
        pixels[..., :2] -= corners[:, None]
        seen.append(pixels.round(1))
    canvas = Canvas(look, corners)
    return Shot(look, canvas, corners.astype(np.int64), tuple(seen), tuple(thrown))


def _seen_from(points: Array, yaw: float) -> Array:
    """Rotate a body about its own vertical by `yaw`."""
    pivot = points[:, POINT["pelvis"], None, :] * np.array([1.0, 0.0, 1.0])
    x, y, z = np.moveaxis(points - pivot, -1, 0)
    across = x * np.cos(yaw) + z * np.sin(yaw)
    depth = z * np.cos(yaw) - x * np.sin(yaw)
    turned: Array = np.stack([across, y, depth], axis=-1) + pivot
    return turned


def _followed(target: Array, look: Appearance) -> Array:
    """Return the camera path (T, 2): the target smoothed, with shake."""
    rng = np.random.default_rng(look.seed + 1)
    window = 7
    tremble = rng.normal(0, 2 * look.shake / look.scale, (len(target) + window - 1, 2))
    edge = ((window // 2, window // 2), (0, 0))
    wide = np.pad(target, edge, mode="edge") + tremble
    mean: Array = sliding_window_view(wide, window, axis=0).mean(axis=2)  # (T, 2)
    path: Array = mean + np.array(look.frame) / look.scale
    path[:, 1] = np.maximum(path[:, 1], LOWEST.get(look.venue, -np.inf))
    return path


#: MPEG-4 quantiser, 1 to 31: no visible blocks.
QUANTISER = 4


def write_video(path: Path, pictures: Iterable[Image]) -> None:
    """Encode pictures, each uint8 (240, 320, 3) RGB, replacing `path` atomically."""
    with (
        replacing(path) as bare,
        av.open(bare, "w", format="avi", options={"fflags": "+bitexact"}) as file,
    ):
        stream = file.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context = stream.codec_context
        context.codec_tag = "XVID"
        context.thread_count = 1
        context.flags |= Flags.bitexact
        context.qmin = context.qmax = QUANTISER
        for picture in pictures:
            pixels = np.ascontiguousarray(picture)
            frame = av.VideoFrame.from_numpy_buffer(pixels, format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def write_poses(path: Path, keypoints: Array) -> None:
    """Write keypoints (T, people, 17, 3) as JSON, like a pose detector's output.

    A list of frames, each a list of people `{"keypoints": [x, y, score, ...],
    "score": ...}` in COCO's order; positions in pixels.
    """
    people = keypoints.reshape(*keypoints.shape[:2], 3 * len(COCO))
    frames = [
        [
            {
                "keypoints": person.tolist(),
                "score": round(float(person[2::3].mean()), 3),
            }
            for person in frame
        ]
        for frame in people
    ]
    write_file(path, json.dumps(frames, separators=(",", ":")))
