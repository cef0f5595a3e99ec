"""Filming a performance: the camera, the pictures, and the joints in them.

Conventions: pictures are uint8 (240, 320, 3) RGB; image positions in pixels, x
right, y down, as COCO's keypoints. Bodies are drawn from exactly the positions that
are handed out, rounded to a tenth of a pixel, so the truth beside a video is the
truth in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from aqa.extract.synthetic.athlete import COCO, MIRRORED, POINT, Array
from aqa.extract.synthetic.body import Body
from aqa.extract.synthetic.choreography import choreograph
from aqa.extract.synthetic.drawing import Image
from aqa.extract.synthetic.look import HEIGHT, WIDTH, Look
from aqa.extract.synthetic.performance import Performance
from aqa.extract.synthetic.scenery import Canvas
from aqa.extract.synthetic.spray import Spray, draw_spray, sprays

#: Distance between two athletes in the picture, metres.
ABREAST = 1.25
#: Lowest height that the camera follows to, metres.
LOWEST = {"tower": 1.0, "springboard": 1.0, "hall": 0.8, "gym": 1.0}


@dataclass(frozen=True)
class Shot:
    """A filmed performance: positions are final, pictures are made on demand."""

    look: Look
    canvas: Canvas
    corner: NDArray[np.int64]  # (T, 2): column and row of the view in the canvas
    athletes: tuple[Array, ...]  # each (T, points, 3): pixels, depth in metres
    sprays: tuple[Spray, ...]

    @property
    def wet(self) -> bool:
        """Whether there is water below y = 0."""
        return self.look.venue in ("tower", "springboard")

    @property
    def surface(self) -> NDArray[np.int64]:
        """Row of y = 0 in each picture: (T,)."""
        row = round(self.canvas.pixel(0.0, 0.0)[1])
        return row - self.corner[:, 1]

    def keypoints(self) -> Array:
        """COCO keypoints with scores, as seen: (T, athletes, 17, 3).

        The score is 1, or 0 for a joint under water or outside the picture.
        """
        joints = np.stack([points[:, : len(COCO)] for points in self.athletes], axis=1)
        x, y = joints[..., 0], joints[..., 1]
        seen = (x >= 0) & (x <= WIDTH - 1) & (y >= 0) & (y <= HEIGHT - 1)
        if self.wet:
            seen &= y < self.surface[:, None, None]
        joints[..., 2] = seen
        if self.look.mirrored:
            joints[..., 0] = np.round(WIDTH - 1 - x, 1)
            joints = joints[:, :, MIRRORED]
        return joints

    def pictures(self, start: int = 0, end: int | None = None) -> Iterator[Image]:
        """Draw the pictures from `start` up to `end`."""
        bodies = [Body(points, self.look) for points in self.athletes]
        for frame in range(len(self.corner))[start:end]:
            column, row = self.corner[frame].tolist()
            image = self.canvas.view(column, row)
            water = image[self.surface[frame] :].copy() if self.wet else image[:0]
            for body in reversed(bodies):
                body.draw(image, frame)
            if water.size:
                below = image[self.surface[frame] :]
                below[...] = (
                    below.astype(np.uint16) + 3 * water.astype(np.uint16)
                ) // 4
            for spray in self.sprays:
                x, y = self.canvas.pixel(spray.x, spray.y)
                place = (x - column, y - row)
                draw_spray(
                    image, spray, place, self.look.scale, frame, self.look.seed + 2
                )
            yield image[:, ::-1] if self.look.mirrored else image


def film(performance: Performance, look: Look) -> Shot:
    """Perform before a camera that follows the athletes."""
    canvas = Canvas(look)
    athletes = [_seen_from(p, look.yaw) for p in choreograph(performance)]
    for index, points in enumerate(athletes):
        points[..., 0] += index * ABREAST
    middle = np.mean([points[:, POINT["pelvis"], :2] for points in athletes], axis=0)
    column, row = canvas.pixels(_followed(middle, look))
    height, width = canvas.image.shape[:2]
    corner = np.stack(
        [
            np.clip(np.round(column - WIDTH / 2), 0, width - WIDTH),
            np.clip(np.round(row - HEIGHT / 2), 0, height - HEIGHT),
        ],
        axis=1,
    )
    seen: list[Array] = []
    for points in athletes:
        x, y = canvas.pixels(points)
        x, y = x - corner[:, :1], y - corner[:, 1:]
        pixels: Array = np.stack([x, y, points[..., 2]], axis=-1)
        seen.append(pixels.round(1))
    return Shot(
        look,
        canvas,
        corner.astype(np.int64),
        tuple(seen),
        tuple(sprays(performance, athletes)),
    )


def _seen_from(points: Array, yaw: float) -> Array:
    """Turn a body about its own vertical, as a camera aside sees it."""
    pivot = points[:, POINT["pelvis"], None, :] * np.array([1.0, 0.0, 1.0])
    x, y, z = np.moveaxis(points - pivot, -1, 0)
    across = x * np.cos(yaw) + z * np.sin(yaw)
    depth = z * np.cos(yaw) - x * np.sin(yaw)
    return np.stack([across, y, depth], axis=-1) + pivot


def _followed(target: Array, look: Look) -> Array:
    """Where the camera points: after the athletes, smoothly, with a tremble."""
    rng = np.random.default_rng(look.seed + 1)
    window = 7
    tremble = rng.normal(0, 2 * look.shake / look.scale, (len(target) + window - 1, 2))
    edge = ((window // 2, window // 2), (0, 0))
    wide = np.pad(target, edge, mode="edge") + tremble
    mean: Array = sliding_window_view(wide, window, axis=0).mean(axis=2)  # (T, 2)
    path: Array = mean + np.array(look.frame) / look.scale
    path[:, 1] = np.maximum(path[:, 1], LOWEST.get(look.venue, -np.inf))
    return path
