"""Open a local file as a video: known containers and codecs only.

FFmpeg identifies a file by its content, never by its name. A container or codec that is
not listed here is refused before it is read: playlists and scripts, which name other
files or addresses, and formats too rare to have been tested with hostile input. No
other file than the given one is opened.

A file may hold several streams of pictures. The film is the one with the most frames.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.logging
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from aqa.cache.errors import brief
from aqa.extract.config import Limits
from aqa.extract.videos.integrity import Signs, VideoError

#: FFmpeg's names of demuxers.
CONTAINERS = (
    "avi mov mp4 m4a 3gp 3g2 mj2 matroska webm gif apng mpeg mpegts flv asf".split()
)
#: FFmpeg's names of decoders.
CODECS = (
    "h264 hevc av1 libdav1d vp8 vp9 mpeg4 msmpeg4 msmpeg4v1 msmpeg4v2 mpeg1video "
    "mpeg2video h263 flv wmv1 wmv2 wmv3 vc1 mjpeg png apng gif prores dnxhd dvvideo "
    "ffv1 huffyuv ffvhuff rawvideo".split()
)
CONVERT = "convert it, as in: ffmpeg -i IN -c:v libx264 OUT.mp4"
#: Streams that accompany the film.
_STILLS = Disposition.attached_pic | Disposition.timed_thumbnails
#: Streams with at least this share of the most frames count as equally long.
_AS_LONG = 0.9
#: FFmpeg's description of a stream: columns and rows to cut off at each side.
_CROPPING = re.compile(r"^ +Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class OpenVideo:
    """An open file and its film.

    `crop` is the part of a coded picture to show, as (top, bottom, left, right) rows
    and columns, end exclusive. `notes` say what was chosen where there was a choice.
    """

    container: InputContainer
    stream: VideoStream
    crop: tuple[int, int, int, int] | None
    notes: tuple[str, ...]


@contextmanager
def open_video(path: Path, limits: Limits, signs: Signs) -> Iterator[OpenVideo]:
    """Open a file, ready to be decoded on one thread.

    Raises:
        VideoError: not a file, not a video, an unknown format, or frames too large.
    """
    _check_file(path)
    with ExitStack() as opened:
        container = opened.enter_context(_open(path))
        films = _films(container, path)
        counts = {}
        if len(films) > 1:
            counts = _count_packets(container, films, limits)
            opened.close()
            signs.clear()
            container = opened.enter_context(_open(path))
            films = _films(container, path)
        stream, notes = _choose(films, counts)
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
        signs.components |= {container.format.name, codec.name}
        yield OpenVideo(container, stream, _crop(container, stream), notes)


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


#: PyAV 19 replaces metadata that is not UTF-8 and has no such option any more.
_OLD = int(av.__version__.split(".")[0]) < 19
_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if _OLD else {}


def _open(path: Path) -> InputContainer:
    try:
        container: InputContainer = av.open(
            os.path.abspath(path),
            container_options={
                "protocol_whitelist": "file",
                "format_whitelist": ",".join(CONTAINERS),
                "codec_whitelist": ",".join(CODECS),
            },
            **_METADATA,
        )
        return container
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(
            f"{path}: expected a video in a known container, found none: "
            f"{_reason(error)}; if a player can show it, {CONVERT}"
        ) from error


def _check_file(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise VideoError(f"{path}: cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise VideoError(f"{path}: expected a file, found a pipe, device or socket")
    if found.st_size == 0:
        raise VideoError(f"{path}: expected a video, found an empty file")


def _films(container: InputContainer, path: Path) -> list[VideoStream]:
    """Return the streams of pictures, covers and thumbnails left out."""
    films = [s for s in container.streams.video if not s.disposition & _STILLS]
    if not films:
        kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
        raise VideoError(f"{path}: expected a video stream, found only {kinds}")
    return films


def _count_packets(
    container: InputContainer, streams: list[VideoStream], limits: Limits
) -> dict[int, int]:
    """Read the file to its end and count the coded frames per stream index.

    Half of the containers state no length in their header.
    """
    counts = dict.fromkeys((stream.index for stream in streams), 0)
    packets = container.demux(streams)
    for _ in range(limits.frames * len(streams)):
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            break
        counts[packet.stream_index] += packet.size > 0
    return counts


def _choose(
    films: list[VideoStream], counts: dict[int, int]
) -> tuple[VideoStream, tuple[str, ...]]:
    """Take the stream with the most frames; among equals the default, the larger."""
    if len(films) == 1:
        return films[0], ()
    most = max(counts.values())

    def rank(stream: VideoStream) -> tuple[bool, bool, int, int]:
        codec = stream.codec_context
        pixels = codec.width * codec.height if codec else 0
        is_default = bool(stream.disposition & Disposition.default)
        as_long = counts[stream.index] >= _AS_LONG * most
        return as_long, is_default, pixels, -stream.index

    def describe(stream: VideoStream) -> str:
        codec = stream.codec_context
        kind = f"{codec.name} {codec.width} x {codec.height}" if codec else "unknown"
        return f"#{stream.index} ({kind}, {counts[stream.index]} frames)"

    best, *others = sorted(films, key=rank, reverse=True)
    left_out = ", ".join(map(describe, others))
    note = f"{len(films)} video streams: took {describe(best)}, left out {left_out}"
    return best, (note,)


def _crop(
    container: InputContainer, stream: VideoStream
) -> tuple[int, int, int, int] | None:
    """Read the clean aperture (MP4's `clap`, Matroska's PixelCrop) of a stream.

    PyAV has no access to it but FFmpeg's description of the file.
    """
    described: Any = container  # PyAV's stubs lack the method
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        description = described.dumps_format()
    finally:
        av.logging.set_level(level)
    parts = re.split(r"^  Stream #0:(\d+)", description, flags=re.MULTILINE)
    mine = dict(zip(parts[1::2], parts[2::2], strict=True)).get(str(stream.index), "")
    found = _CROPPING.search(mine)
    if found is None:
        return None
    left, right, top, bottom = map(int, found.groups())
    codec = stream.codec_context
    crop = (top, codec.height - bottom, left, codec.width - right)
    return crop if crop[0] < crop[1] and crop[2] < crop[3] else None


def _reason(error: Exception) -> str:
    """Return what FFmpeg logged last, or the name of its error."""
    _, component, text = getattr(error, "log", None) or (0, "", "")
    if "not on whitelist" in text:
        return f"this is {component}"
    return brief(text, 160) or getattr(error, "strerror", "") or str(error)
