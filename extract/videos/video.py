"""Decode a video file or picture folder: the frames that its clips need.

Conventions: frames uint8 (t, crop, crop, 3) RGB, in the order of showing, cropped and
turned as the file's metadata say; at most `config.length` of them, those that
`preprocessing.fit_length` keeps. `resize_crop` resizes: FFmpeg's own scaler filters
when shrinking, which C3D's training did not. Times are seconds on the clock that a
player shows, whatever the file's time stamps are: 0 is the first picture, or where
sound begins if that is at least `stream.SOUND_AHEAD` earlier.

A video is whole if it shows no sign of damage (`aqa.extract.videos.integrity`); any
other is refused, unless the caller allows it, and is then returned with the signs.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import numpy.typing as npt

from aqa.cache.errors import AqaError
from aqa.cache.processes import other_processors, process_outcomes
from aqa.extract.config import ClipConfig, Limits
from aqa.extract.datasets.dataset import Video
from aqa.extract.extractor import source_sha256
from aqa.extract.preprocessing import Preprocessing, kept_frames, resize_crop
from aqa.extract.videos.container import check_size, open_video
from aqa.extract.videos.frame_folder import FolderFrames
from aqa.extract.videos.integrity import Signs, VideoError, ffmpeg_log
from aqa.extract.videos.stream import Pixels, Seconds, StreamFrames

Read = TypeVar("Read")

Indices = npt.NDArray[np.int64]
#: (start, end) in seconds, end exclusive.
Span = tuple[float, float]

LIMITS = Limits()
#: Frame times are fractions of a second, bounds are decimals.
ROUNDING_SECONDS = 1e-6
#: A frame is at another rate if it is shown this much longer than the lower quartile;
#: a larger share of the time than this is said.
MANY_STEPS, UNEVEN_SHARE = 1.7, 0.2
#: Frames resized at once: torch's resize gains until here, memory pays for more.
BATCH_FRAMES = 16
BATCH_BYTES = 1 << 25


@dataclass(frozen=True)
class Decoded:
    """The kept frames of a video: at most `config.length` of `total`.

    `total` counts the decoded frames, or those of the resampled video where
    `config.fps` is set. `damage` is empty for a whole video. `source_sha256` is the
    digest of the file, or of a folder's pictures. `times` are seconds, one per kept
    frame; empty where the file has no times. `notes` say what was chosen where the
    file left a choice. `aspect` is width / height as the pictures are shown.
    """

    frames: Pixels
    total: int
    damage: tuple[str, ...]
    source_sha256: str
    times: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    aspect: float | None = None

    @property
    def rate(self) -> float | None:
        """Mean frames per second of the kept frames; None where there are no times."""
        if len(self.times) < 2 or self.times[-1] <= self.times[0]:
            return None
        return (len(self.times) - 1) / (self.times[-1] - self.times[0])


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

    `start` and `end` are seconds on the clock of a player; `total` then counts the
    frames between them, and only those are checked for damage. Of `limits`, pixels
    and frames apply here, time and memory in `decode_all`.

    Raises:
        VideoError: not a video, too large, damaged, or no frame left; or a span or
            `config.fps` where frames have no times.
    """
    path = Path(path)
    span = None
    if start is not None or end is not None:
        span = (start or 0.0, float("inf") if end is None else end)
        if not 0 <= span[0] < span[1]:
            raise VideoError(f"{path}: expected 0 <= start < end, found {span}")
    where = "" if span is None else f" between {span[0]:g} and {span[1]:g} seconds"
    decoded = _decode(path, pre, config, limits, span)
    _check(path, decoded.total, decoded.damage, allow_damaged, where)
    return decoded


def decode_all(
    videos: Iterable[Video],
    pre: Preprocessing,
    config: ClipConfig,
    *,
    workers: int | None = None,
    limits: Limits = LIMITS,
    decoder: Callable[..., Decoded] = decode,
    **options: Any,
) -> Generator[tuple[Video, Decoded | VideoError]]:
    """Decode videos in child processes, ahead; yield each with its frames, in order.

    In place of frames a video may have the reason why there are none; `workers`,
    `limits` and errors are as in `read_all`. `options` are those of `decode`, and so
    are the arguments of `decoder`.
    """
    function = partial(decoder, pre=pre, config=config, limits=limits, **options)
    ours, theirs = tee(videos)
    paths = (video.path for video in theirs)
    with closing(read_all(paths, function, workers, limits)) as results:
        yield from zip(ours, results, strict=False)


def read_all(
    paths: Iterable[Path],
    function: Callable[[Path], Read],
    workers: int | None,
    limits: Limits,
) -> Generator[Read | VideoError]:
    """Yield `function(path)` of each video in order, from child processes, ahead.

    A video that crashes its process or exceeds a limit costs itself only: in its place
    comes an error that names it. `workers` None or 0: one fewer than the usable
    processors, at least one. Closing the iterator ends the processes.

    Raises:
        AqaError: processes die before they do anything, whatever the video.
    """
    ours, theirs = tee(paths)
    outcomes = process_outcomes(
        function,
        theirs,
        workers or other_processors(),
        seconds=limits.seconds,
        memory=limits.memory,
    )
    with closing(outcomes):
        for path, outcome in zip(ours, outcomes, strict=False):
            if isinstance(outcome, VideoError) or not isinstance(outcome, AqaError):
                yield outcome
            else:
                yield VideoError(f"{path}: {outcome}")


def watch(
    path: str | Path,
    see: Callable[[Pixels], None],
    *,
    limits: Limits = LIMITS,
    allow_damaged: bool = False,
) -> Decoded:
    """Call `see` with every frame in order, uint8 (H, W, 3) RGB, at its own size.

    What is returned has no frames.

    Damage is known at the end: drop what `see` collected of a video that is refused.

    Raises:
        VideoError: as `decode`.
    """
    path = Path(path)
    total = 0
    with open_frames(path, limits) as source:
        for picture in source:
            _check_count(path, total, limits)
            check_size(path, picture.width, picture.height, limits)
            see(picture.rgb())
            total += 1
        damage = source.damage(total)
        digest = source_sha256(path)
    _check(path, total, damage, allow_damaged)
    nothing = np.empty((0, 0, 0, 3), np.uint8)
    return Decoded(nothing, total, damage, digest, notes=source.notes)


@dataclass(frozen=True)
class _Choice:
    """Which frames of a video are kept.

    `indices` (t,), ascending, of the kept frames among all that are decoded; one may
    be repeated; `times` (t,), where they are known before. They stand for a video of
    `total` frames. Frames `first` to `last` (None: all) were asked for; `sought`: they
    are counted from where `seek` leads.
    """

    indices: Indices
    total: int
    times: Seconds | None = None
    first: int = 0
    last: int | None = None
    sought: bool = False


def _decode(
    path: Path,
    pre: Preprocessing,
    config: ClipConfig,
    limits: Limits,
    span: Span | None,
) -> Decoded:
    """Choose the frames to keep, then decode them.

    The choice depends on how many frames there are and when they are shown, and only
    chosen frames are worth converting. For a whole video the container's count is
    believed first; where it is wrong, the second pass knows the right one.
    """
    whole = span is None and config.fps is None
    choice = None if whole else _survey(path, config, limits, span)
    for _ in range(2):
        with open_frames(path, limits) as source:
            if choice is None:
                total = source.promised or 0
                choice = _Choice(np.array(kept_frames(total, config), int), total)
            if choice.sought and span and isinstance(source, StreamFrames):
                source.seek(span[0])
            pixels, count, aspect = _read(path, source, choice, pre, limits)
            times = source.times() if whole else choice.times
            damage = source.damage(None if span else count)
            notes = source.notes
            digest = source_sha256(path)
        if whole and choice.total != count:
            choice = _Choice(np.array(kept_frames(count, config), int), count)
            continue
        if choice.last is None or count > choice.last:
            break
    else:
        raise VideoError(f"{path}: decodes differently each time")
    if whole and times is not None:
        times = times[choice.indices]
    seconds = () if times is None else tuple(times.tolist())
    if config.fps is None and times is not None and is_uneven(times):
        notes += ("the frame rate varies within the video; --fps resamples",)
    return Decoded(pixels, choice.total, damage, digest, seconds, notes, aspect)


def _survey(
    path: Path, config: ClipConfig, limits: Limits, span: Span | None
) -> _Choice:
    """Decode once to see when frames are shown, and choose by that."""
    start, end = span or (0.0, float("inf"))
    sought = start > 0
    while True:
        with open_frames(path, limits) as source:
            if isinstance(source, FolderFrames):
                raise VideoError(f"{path}: a folder of pictures has no frame times")
            sought = sought and source.seek(start)
            for index, _ in enumerate(source):
                _check_count(path, index, limits)
                if source.passed(end):
                    break
            times = source.times()
        if times is None:
            raise VideoError(f"{path}: its frames have no times to choose by")
        if not sought or (len(times) and times.min() <= start):
            break
        sought = False  # the index is of no use
    asked = np.flatnonzero(
        (times >= start - ROUNDING_SECONDS) & (times < end - ROUNDING_SECONDS)
    )
    chosen = asked
    if config.fps and len(asked):
        chosen = asked[resample(times[asked], config.fps, limits.frames)]
        _check_count(path, len(chosen) - 1, limits)
    kept = kept_frames(len(chosen), config)
    indices = chosen[kept.start : kept.stop]
    return _Choice(
        indices=indices,
        total=len(chosen),
        times=times[indices],
        first=int(asked.min(initial=len(times))),
        last=int(asked.max(initial=0)) if span else None,
        sought=sought,
    )


def resample(times: Seconds, fps: float, most: int) -> Indices:
    """Return the indices of the frames nearest to the ticks of an even clock.

    Ticks are 1 / `fps` apart and begin with the first frame; the last frame is shown as
    long as frames usually are. Of two frames equally near, the earlier is taken. No
    more than `most` + 1 indices are returned.
    """
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    usual = float(np.median(np.diff(ordered))) if len(ordered) > 1 else 0.0
    count = max(round((ordered[-1] - ordered[0] + usual) * fps), 1)
    ticks = ordered[0] + np.arange(min(count, most + 1)) / fps
    later = np.searchsorted(ordered, ticks).clip(max=len(ordered) - 1)
    earlier = np.maximum(later - 1, 0)
    is_later = ordered[later] - ticks < ticks - ordered[earlier] - ROUNDING_SECONDS
    return np.asarray(order[np.where(is_later, later, earlier)], np.int64)


def is_uneven(times: Seconds) -> bool:
    """Return whether much of the time is shown at another rate than is usual.

    Pulldown, dropped frames and times rounded to milliseconds do not count.
    """
    steps = np.diff(np.sort(times))
    if len(steps) < 2:
        return False
    other = steps > MANY_STEPS * np.percentile(steps, 25)
    return bool(steps[other].sum() > UNEVEN_SHARE * steps.sum())


def _read(
    path: Path,
    source: StreamFrames | FolderFrames,
    choice: _Choice,
    pre: Preprocessing,
    limits: Limits,
) -> tuple[Pixels, int, float | None]:
    """Decode the chosen frames.

    Returns them, (t, crop, crop, 3); how many frames were decoded; and the width /
    height of the pictures as they are shown.
    """
    wanted, repeats = np.unique(choice.indices, return_inverse=True)
    remaining = set(wanted.tolist())
    kept = np.empty((len(wanted), pre.crop, pre.crop, 3), np.uint8)
    filled = count = 0
    batch: list[Pixels] = []
    aspect: float | None = None

    def resize() -> None:
        nonlocal filled
        if batch:
            kept[filled : filled + len(batch)] = resize_crop(np.stack(batch), pre)
            filled += len(batch)
            batch.clear()

    for picture in source:
        _check_count(path, count, limits)
        if count in remaining:
            check_size(path, *pre.size(picture.height, picture.width), limits)
            check_size(path, picture.width, picture.height, limits)
            pixels = picture.rgb()
            most = min(BATCH_FRAMES, BATCH_BYTES // pixels.nbytes)
            if len(batch) >= most or (batch and batch[0].shape != pixels.shape):
                resize()
            batch.append(pixels)
            aspect = pixels.shape[1] / pixels.shape[0] * source.pixel_aspect
        elif count < choice.first:
            source.signs.clear()  # nobody asked for these frames
        count += 1
        if choice.last is not None and count > choice.last:
            break
    resize()
    if len(wanted) < len(choice.indices) and filled == len(wanted):
        kept, filled = kept[repeats], len(repeats)
    return kept[:filled], count, aspect


@contextmanager
def open_frames(
    path: Path, limits: Limits = LIMITS
) -> Iterator[StreamFrames | FolderFrames]:
    """Open a video file or a picture folder; iterating gives its pictures in order.

    Raises:
        VideoError: not a video, or too large; also for what FFmpeg or the system
            refuses within the block.
    """
    try:
        with ffmpeg_log() as log:
            signs = Signs(log)
            if path.is_dir():
                yield FolderFrames(path, limits, signs)
            else:
                with open_video(path, limits, signs) as video:
                    yield StreamFrames(video, path, signs)
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


def _check_count(path: Path, total: int, limits: Limits) -> None:
    if total == limits.frames:
        raise VideoError(f"{path}: expected at most {total} frames, found more")
