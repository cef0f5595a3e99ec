"""Filming a performance: the camera, the pictures, and the joints in them.

Conventions: pictures are uint8 (240, 320, 3) RGB; image positions in pixels, x
right, y down, as COCO's keypoints. Bodies are drawn from exactly the positions that
are handed out, rounded to a tenth of a pixel, so the truth beside a video is the
truth in it.

Writing what was filmed: the video, and the joints beside it.

Conventions: videos are 320x240 MPEG-4 in AVI at 25 frames a second, as UCF-101's
are; the same pictures give the same bytes (one encoding thread, no version strings).
A file is there whole or not at all.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from aqa.cache.files import replacing
from aqa.extract.synthetic.athlete import COCO, MIRRORED, POINT, Array
from aqa.extract.synthetic.drawing import HEIGHT, WIDTH, Body, Image, Look
from aqa.extract.synthetic.moves import RATE, choreograph
from aqa.extract.synthetic.performance import Performance
from aqa.extract.synthetic.scene import Canvas, Spray, draw_spray, sprays

#: Distance between two athletes in the picture, metres.
ABREAST = 1.25
#: Lowest height that the camera follows to, metres.
LOWEST = {"tower": 1.0, "springboard": 1.0, "hall": 0.8, "gym": 1.0}


@dataclass(frozen=True)
class Shot:
    """A filmed performance: positions are final, pictures are made on demand."""

    look: Look
    canvas: Canvas
    corners: NDArray[np.int64]  # (T, 2): of the views, pixels from x = y = 0
    athletes: tuple[Array, ...]  # each (T, points, 3): pixels, depth in metres
    sprays: tuple[Spray, ...]

    @property
    def wet(self) -> bool:
        """Whether there is water below y = 0."""
        return self.look.venue in ("tower", "springboard")

    def keypoints(self) -> Array:
        """COCO keypoints with scores, as seen: (T, athletes, 17, 3).

        The score is 1, or 0 for a joint under water or outside the picture.
        """
        joints = np.stack([points[:, : len(COCO)] for points in self.athletes], axis=1)
        x, y = joints[..., 0], joints[..., 1]
        seen = (x >= 0) & (x <= WIDTH - 1) & (y >= 0) & (y <= HEIGHT - 1)
        if self.wet:
            seen &= y < -self.corners[:, 1, None, None]
        joints[..., 2] = seen
        if self.look.mirrored:
            joints[..., 0] = np.round(WIDTH - 1 - x, 1)
            joints = joints[:, :, MIRRORED]
        return joints

    def pictures(self) -> Iterator[Image]:
        """Draw the pictures, one by one."""
        bodies = [Body(points, self.look) for points in self.athletes]
        scale, seed = self.look.scale, self.look.seed + 2
        for frame, (column, row) in enumerate(self.corners.tolist()):
            image = self.canvas.view(frame)
            water = image[max(-row, 0) :] if self.wet else image[:0]
            clear = water.copy()
            for body in reversed(bodies):
                body.draw(image, frame)
            if water.size:
                water[...] = (
                    water.astype(np.uint16) + 3 * clear.astype(np.uint16)
                ) // 4
            for spray in self.sprays:
                place = spray.x * scale - column, -spray.y * scale - row
                draw_spray(image, spray, place, scale, frame, seed)
            yield image[:, ::-1] if self.look.mirrored else image


def film(
    performance: Performance, look: Look, start: int = 0, end: int | None = None
) -> Shot:
    """Film a performance, from `start` up to `end`, by a camera that follows it."""
    athletes = [_seen_from(p, look.yaw) for p in choreograph(performance)]
    for index, points in enumerate(athletes):
        points[..., 0] += index * ABREAST
    thrown = [
        replace(spray, frame=spray.frame - start)
        for spray in sprays(performance, athletes)
    ]
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
    """Turn a body about its own vertical, as a camera aside sees it."""
    pivot = points[:, POINT["pelvis"], None, :] * np.array([1.0, 0.0, 1.0])
    x, y, z = np.moveaxis(points - pivot, -1, 0)
    across = x * np.cos(yaw) + z * np.sin(yaw)
    depth = z * np.cos(yaw) - x * np.sin(yaw)
    turned: Array = np.stack([across, y, depth], axis=-1) + pivot
    return turned


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


#: MPEG-4's quantiser, 1 to 31: small steps, no visible blocks.
QUANTISER = 4


def write_video(path: Path, pictures: Iterable[Image]) -> None:
    """Encode pictures, each uint8 (240, 320, 3) RGB."""
    with (
        replacing(path) as descriptor,
        open(descriptor, "wb", closefd=False) as bare,
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
    """Write keypoints (T, people, 17, 3) as a pose detector would.

    A list of frames, each a list of people `{"keypoints": [x, y, score, ...],
    "score": ...}` in COCO's order of joints; positions in pixels.
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
    with replacing(path) as descriptor, open(descriptor, "w", closefd=False) as file:
        json.dump(frames, file, separators=(",", ":"))
