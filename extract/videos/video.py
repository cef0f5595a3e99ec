"""One video, decoded: the frames that its clips need, resized and cropped.

Conventions: frames uint8 (t, crop, crop, 3) RGB, in the order of showing, turned
upright as the file's metadata say; at most `config.length` of them, since of a
longer video `fit_length` would drop the others. FFmpeg converts to RGB at the size
it finds, without alpha; `resize_crop` does the rest. FFmpeg's own scaler is not
used: it filters when shrinking, which C3D's training did not. `watch` shows all
frames as they are, for whoever looks at more than clips.

A video is whole if it shows no sign of damage (`aqa.extract.videos.damage`); any other
is refused, unless the caller allows it, and is then handed out with the signs.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from aqa.extract.config import ClipConfig, Limits
from aqa.extract.preprocessing import Preprocessing, resize_crop
from aqa.extract.sources import source_sha256
from aqa.extract.videos.container import check_size
from aqa.extract.videos.damage import Signs, VideoError, ffmpeg_log
from aqa.extract.videos.picture_folder import open_folder
from aqa.extract.videos.video_file import Span, open_file

__all__ = ["Decoded", "VideoError", "Watched", "decode", "watch"]

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
    pixels and frames are heeded here, time and memory by `aqa.extract.videos.decoding`.

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
