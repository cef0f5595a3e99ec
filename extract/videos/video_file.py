"""Frames of one video file, in the order in which they are shown.

Conventions: frames as FFmpeg decodes them, not yet converted; interlaced video is
not deinterlaced. A span is (start, end) in seconds from the first frame, end
exclusive.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from aqa.extract.config import Limits
from aqa.extract.videos.container import open_video
from aqa.extract.videos.damage import Signs, VideoError
from aqa.extract.videos.file_end import is_cut_short
from aqa.extract.videos.frame_count import promised_frames

Span = tuple[float, float]
#: Containers with an index to jump by; others are decoded from their beginning.
INDEXED = ("mov", "matroska", "avi")
#: A frame is shown earlier than the one before it by at most this: H.264 in AVI.
DISORDER_SECONDS = 1.0
#: Frame times are fractions, bounds are floats.
ROUNDING_SECONDS = 1e-6


@contextmanager
def open_file(
    path: Path, limits: Limits, signs: Signs, span: Span | None
) -> Iterator[tuple[int | None, Iterator[VideoFrame]]]:
    """How many frames are promised, if known, and the frames; `signs` fill up.

    Raises:
        VideoError: as `open_video`; or frames without times, where a span is asked.
    """
    with open_video(path, limits, signs) as (container, stream):
        if span is not None:
            yield None, _cut(container, stream, signs, span, path)
            return
        if is_cut_short(path, container.format.name):
            signs.notes.append("the file ends too early")
        promised = promised_frames(container, stream, path)
        yield promised, _decoded(container, stream, signs)


def _decoded(
    container: InputContainer, stream: VideoStream, signs: Signs
) -> Iterator[VideoFrame]:
    """All frames from where the container stands; damage is noted and passed over."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            signs.corrupt_packets += packet.is_corrupt
            frames = packet.decode()
        except StopIteration:
            return
        except MemoryError:
            raise
        except av.FFmpegError as error:
            signs.refuse(error)
            continue
        for frame in frames:
            signs.corrupt_frames += frame.is_corrupt
            yield frame


def _cut(
    container: InputContainer,
    stream: VideoStream,
    signs: Signs,
    span: Span,
    path: Path,
) -> Iterator[VideoFrame]:
    """The frames shown within a span, by a jump to the key frame before it."""
    base, zero = stream.time_base or Fraction(1), stream.start_time or 0
    start, end = (float(zero * base) + edge - ROUNDING_SECONDS for edge in span)

    def timed() -> Iterator[tuple[float, VideoFrame]]:
        for frame in _decoded(container, stream, signs):
            if frame.pts is None:
                raise VideoError(f"{path}: no frame times, so no part can be cut out")
            yield float(frame.pts * base), frame

    frames = timed()
    if span[0] > 0 and container.format.name.startswith(INDEXED):
        container.seek(int(start / base), stream=stream)
        first = list(itertools.islice(frames, 1))
        if not first or first[0][0] > start:  # the index was of no use
            container.seek(zero, stream=stream)
            first, frames = [], timed()
        frames = itertools.chain(first, frames)
    for seconds, frame in frames:
        if seconds < start:
            signs.forget()
        elif seconds < end:
            yield frame
        elif seconds >= end + DISORDER_SECONDS:
            return
