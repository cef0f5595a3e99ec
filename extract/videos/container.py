"""Opening a local file as a video: known containers, known codecs, nothing else.

Conventions: FFmpeg decides by content what a file is, never by its name. A container
or codec that is not listed here is refused before it is read or decoded: playlists
and scripts, which name other files or addresses, and formats too rare to be tried
against hostile input. No file but the one asked for is opened.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from aqa.extract.config import Limits
from aqa.extract.videos.integrity import Signs, VideoError, one_line

#: FFmpeg's names of demuxers.
CONTAINERS = "avi mov mp4 m4a 3gp 3g2 mj2 matroska webm gif mpeg mpegts flv asf".split()
#: FFmpeg's names of decoders.
CODECS = (
    "h264 hevc av1 libdav1d vp8 vp9 mpeg4 msmpeg4 msmpeg4v1 msmpeg4v2 mpeg1video "
    "mpeg2video h263 flv wmv1 wmv2 wmv3 vc1 mjpeg png gif prores dnxhd dvvideo "
    "ffv1 huffyuv ffvhuff rawvideo".split()
)
CONVERT = "convert it, as in: ffmpeg -i IN -c:v libx264 OUT.mp4"


@contextmanager
def open_video(
    path: Path, limits: Limits, signs: Signs
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The open container and its video stream, ready to decode on one thread.

    Raises:
        VideoError: not a file, not a video, not a known one, or frames too large.
    """
    _check_file(path)
    try:
        container = av.open(
            os.path.abspath(path),
            container_options={
                "protocol_whitelist": "file",
                "format_whitelist": ",".join(CONTAINERS),
                "codec_whitelist": ",".join(CODECS),
            },
            metadata_errors="replace",
        )
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(
            f"{path}: expected a video in a known container, found none: "
            f"{_reason(error)}; if a player can show it, {CONVERT}"
        ) from error
    with container:
        stream = _pictures(container, path)
        codec = stream.codec_context
        if codec is None or codec.name not in CODECS:
            found = "an unknown codec" if codec is None else codec.name
            raise VideoError(
                f"{path}: expected one of the codecs {', '.join(CODECS)}, found "
                f"{found}; {CONVERT}"
            )
        check_size(path, codec.width, codec.height, limits)
        codec.thread_count = 1
        codec.options = {"max_pixels": str(limits.pixels)}
        signs.speakers |= {container.format.name, codec.name}
        yield container, stream


def check_size(path: Path, width: int, height: int, limits: Limits) -> None:
    """Refuse frames of more pixels than `limits` allow.

    Raises:
        VideoError: they have more.
    """
    if width * height > limits.pixels:
        raise VideoError(
            f"{path}: expected frames of at most {limits.pixels} pixels, found "
            f"{width} x {height}"
        )


def _check_file(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise VideoError(f"{path}: cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise VideoError(f"{path}: expected a file, found a pipe, device or socket")
    if found.st_size == 0:
        raise VideoError(f"{path}: expected a video, found an empty file")


def _pictures(container: InputContainer, path: Path) -> VideoStream:
    """The video stream that FFmpeg finds best; a cover picture is none."""
    videos = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    best = container.streams.best("video")
    if best in videos:
        videos = [best]
    if not videos:
        kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
        raise VideoError(f"{path}: expected a video stream, found only {kinds}")
    return videos[0]


def _reason(error: Exception) -> str:
    """What FFmpeg said last, or else the name of its error."""
    _, speaker, text = getattr(error, "log", None) or (0, "", "")
    if "not on whitelist" in text:
        return f"this is {speaker}"
    return one_line(text) or getattr(error, "strerror", "") or str(error)
