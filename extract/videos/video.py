"""Frames of one video file, in the order in which they are shown.

Conventions: frames as FFmpeg decodes them, not yet converted; interlaced video is
not deinterlaced. A span is (start, end) in seconds from the first frame, end
exclusive.

One video, decoded: the frames that its clips need, resized and cropped.

Conventions: frames uint8 (t, crop, crop, 3) RGB, in the order of showing, turned
upright as the file's metadata say; at most `config.length` of them, since of a
longer video `fit_length` would drop the others. FFmpeg converts to RGB at the size
it finds, without alpha; `resize_crop` does the rest. FFmpeg's own scaler is not
used: it filters when shrinking, which C3D's training did not. `watch` shows all
frames as they are, for whoever looks at more than clips.

A video is whole if it shows no sign of damage (`aqa.extract.videos.integrity`); any
other is refused, unless the caller allows it, and is then handed out with the signs.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from aqa.extract.config import ClipConfig, Limits
from aqa.extract.preprocessing import Preprocessing, resize_crop
from aqa.extract.source import source_sha256
from aqa.extract.videos.container import check_size, open_video
from aqa.extract.videos.frame_folder import open_folder
from aqa.extract.videos.integrity import (
    Signs,
    VideoError,
    ffmpeg_log,
    is_cut_short,
    promised_frames,
)

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


LIMITS = Limits()
#: Frames resized at once: torch's resize gains until here, memory pays for more.
BATCH_FRAMES = 16
BATCH_BYTES = 1 << 25


@dataclass(frozen=True)
class Watched:
    """What is said of a video: how many frames there were, and its digest.

    `damage` is empty for a whole video; `source_sha256` is of the file, or of a
    folder's pictures.
    """

    total: int
    damage: tuple[str, ...]
    source_sha256: str


@dataclass(frozen=True)
class Decoded:
    """What remains of a video: at most `config.length` frames of `total` decoded.

    `times` are the seconds at which a player shows them; empty where the file has no
    times. The rest is as in `Watched`.
    """

    frames: npt.NDArray[np.uint8]
    total: int
    damage: tuple[str, ...]
    source_sha256: str
    times: tuple[float, ...] = ()


def decode(
    path: str | Path,
    pre: Preprocessing,
    *,
    config: ClipConfig,
    limits: Limits = LIMITS,
    allow_damaged: bool = False,
    start: float | None = None,
    end: float | None = None,
) -> Decoded:
    """Decode a video file or a folder of pictures, in this process.

    `start` and `end` are seconds from the first frame; `total` then counts the
    frames between them, and only what lies between them is checked. Of `limits`,
    pixels and frames are heeded here, time and memory by `aqa.extract.videos.pool`.

    Raises:
        VideoError: not a video, too large, damaged, or no frame left.
    """
    path = Path(path)
    span = None
    if start is not None or end is not None:
        span = (start or 0.0, float("inf") if end is None else end)
        if not 0 <= span[0] < span[1]:
            raise VideoError(f"{path}: expected 0 <= start < end, found {span}")
    with _reading(path) as signs:
        frames, total, damage, times = _decode(path, pre, config, limits, span, signs)
        digest = source_sha256(path)
    where = "" if span is None else f" between {span[0]:g} and {span[1]:g} seconds"
    _check(path, total, damage, allow_damaged, where)
    return Decoded(frames, total, damage, digest, times)


def watch(
    path: str | Path,
    see: Callable[[npt.NDArray[np.uint8]], None],
    *,
    limits: Limits = LIMITS,
    allow_damaged: bool = False,
) -> Watched:
    """Show `see` every frame in order, uint8 (H, W, 3) RGB, as large as it is.

    Whether a video is damaged is known at its end: what `see` gathered of one that
    is refused then is to be dropped.

    Raises:
        VideoError: as `decode`.
    """
    path = Path(path)
    convert = VideoReformatter()
    total = 0
    with _reading(path) as signs:
        with _open(path, limits, signs, None) as (promised, source):
            for frame in source:
                _check_count(path, total, limits)
                check_size(path, frame.width, frame.height, limits)
                see(_upright(frame, convert))
                total += 1
        damage = signs.found(promised, total)
        digest = source_sha256(path)
    _check(path, total, damage, allow_damaged)
    return Watched(total, damage, digest)


@contextmanager
def _reading(path: Path) -> Iterator[Signs]:
    """Gather signs of damage; what FFmpeg or the system refuses gets a name."""
    try:
        with ffmpeg_log() as log:
            yield Signs(log)
    except MemoryError as error:
        raise VideoError(f"{path}: needs more memory than it may take") from error
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be read: {error}") from error


def _check(
    path: Path, total: int, damage: tuple[str, ...], allowed: bool, where: str = ""
) -> None:
    if not total:
        signs = f" ({'; '.join(damage)})" if damage else ""
        raise VideoError(f"{path}: expected frames{where}, found none{signs}")
    if damage and not allowed:
        raise VideoError(
            f"{path}: expected a whole video, found damage: {'; '.join(damage)} "
            "(--allow-damaged takes it as it is)"
        )


def _decode(
    path: Path,
    pre: Preprocessing,
    config: ClipConfig,
    limits: Limits,
    span: Span | None,
    signs: Signs,
) -> tuple[npt.NDArray[np.uint8], int, tuple[str, ...], tuple[float, ...]]:
    """Kept frames, how many there were, signs of damage, times of the kept ones.

    Which frames are kept depends on how many there are, and only those are worth
    converting. The header's count is believed first; where it is wrong or missing,
    a second pass knows better.
    """
    total = None
    for _ in range(2):
        signs.forget()
        with _open(path, limits, signs, span) as (promised, source):
            believed = promised if total is None else total
            wanted = range(0) if believed is None else _kept(believed, config)
            frames, total, times = _gather(path, source, wanted, pre, limits)
        if wanted == _kept(total, config):
            return frames, total, signs.found(promised, total), times
    raise VideoError(f"{path}: decodes differently each time")


def _open(
    path: Path, limits: Limits, signs: Signs, span: Span | None
) -> AbstractContextManager[tuple[int | None, Iterator[VideoFrame]]]:
    if not path.is_dir():
        return open_file(path, limits, signs, span)
    if span is not None:
        raise VideoError(f"{path}: a folder of pictures has no times to cut by")
    return open_folder(path, limits, signs)


def _kept(total: int, config: ClipConfig) -> range:
    """Indices of the frames that `fit_length` would keep of `total`."""
    spare = max(total - config.length, 0)
    first = {"first": 0, "middle": spare // 2, "last": spare}[config.keep]
    return range(first, min(first + config.length, total))


def _gather(
    path: Path,
    source: Iterator[VideoFrame],
    wanted: range,
    pre: Preprocessing,
    limits: Limits,
) -> tuple[npt.NDArray[np.uint8], int, tuple[float, ...]]:
    """Wanted frames, (t, crop, crop, 3), the number of all, and the wanted's times."""
    convert = VideoReformatter()
    kept = np.empty((len(wanted), pre.crop, pre.crop, 3), np.uint8)
    filled = total = 0
    batch: list[npt.NDArray[np.uint8]] = []
    times: list[float] = []

    def resize() -> None:
        nonlocal filled
        if batch:
            kept[filled : filled + len(batch)] = resize_crop(np.stack(batch), pre)
            filled += len(batch)
            batch.clear()

    for frame in source:
        _check_count(path, total, limits)
        if total in wanted:
            check_size(path, *pre.size(frame.height, frame.width), limits)
            check_size(path, frame.width, frame.height, limits)
            picture = _upright(frame, convert)
            most = min(BATCH_FRAMES, BATCH_BYTES // picture.nbytes)
            if len(batch) >= most or (batch and batch[0].shape != picture.shape):
                resize()
            batch.append(picture)
            if frame.time is not None:
                times.append(frame.time)
        total += 1
    resize()
    return kept[:filled], total, tuple(times) if len(times) == filled else ()


def _check_count(path: Path, total: int, limits: Limits) -> None:
    if total == limits.frames:
        raise VideoError(f"{path}: expected at most {total} frames, found more")


def _upright(frame: VideoFrame, convert: VideoReformatter) -> npt.NDArray[np.uint8]:
    """Pixels (H, W, 3), RGB, turned by the quarter turns that metadata ask for."""
    rgb = convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return np.rot90(rgb, round(frame.rotation / 90))
