"""Writing what was filmed: the video, and the joints beside it.

Conventions: videos are 320x240 MPEG-4 in AVI at 25 frames a second, as UCF-101's
are; the same pictures give the same bytes (one encoding thread, no version strings).
A file is there whole or not at all.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags

from aqa.cache.replacement import replacing
from aqa.extract.synthetic.athlete import COCO, Array
from aqa.extract.synthetic.drawing import Image
from aqa.extract.synthetic.look import HEIGHT, WIDTH
from aqa.extract.synthetic.motion import RATE

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
