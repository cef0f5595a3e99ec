"""Decode every form of video that can be made here, and check what comes out.

Usage: python benchmarks/video_matrix.py [--every N] [CONTAINER ...]

Cells are {container} x {codec} x {orientation} x {start time} x {frame rate} x {extra
streams}. Each is encoded with PyAV and decoded as extraction would; frames carry their
number and a mark in one corner. A cell is right if all frames come in order, turned as
the display matrix says, at the times that were put in (on a clock from 0), and if a
part cut out by those times holds just its frames. With --every N only each N-th cell
is tried.
"""

import argparse
import struct
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import NamedTuple, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

from aqa.extract.config import ClipConfig
from aqa.extract.preprocessing import PRESETS
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.video import decode, watch

FRAMES, WIDTH, HEIGHT = 24, 176, 128
B_FRAMES = {"bf": "2", "b_strategy": "0", "sc_threshold": "1000000000"}
#: Name -> encoder, pixel format, options.
CODECS = {
    "h264": ("libx264", "yuv420p", {"x264-params": "bframes=3:b-adapt=0:log-level=-1"}),
    "hevc": ("libx265", "yuv420p", {"x265-params": "log-level=none"}),
    "mpeg4": ("mpeg4", "yuv420p", B_FRAMES),
    "mpeg2": ("mpeg2video", "yuv420p", {"bf": "2", "sc_threshold": "1000000000"}),
    "vp9": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "mjpeg": ("mjpeg", "yuvj420p", {}),
    "png": ("png", "rgb24", {}),
    "ffv1": ("ffv1", "bgr0", {}),
    "prores": ("prores_ks", "yuv422p10le", {}),
    "wmv2": ("wmv2", "yuv420p", {}),
    "flv1": ("flv", "yuv420p", {}),
    "gif": ("gif", "rgb8", {}),
}
#: Container -> its codecs, and the codec of its sound.
CONTAINERS = {
    "mp4": ("h264 hevc mpeg4 mpeg2 vp9 mjpeg png".split(), "aac"),
    "mov": ("h264 hevc mpeg4 prores png mjpeg".split(), "aac"),
    "mkv": ("h264 hevc mpeg4 mpeg2 vp9 mjpeg ffv1".split(), "aac"),
    "webm": ("vp9".split(), "libopus"),
    "avi": ("h264 mpeg4 mpeg2 mjpeg png ffv1".split(), "pcm_s16le"),
    "ts": ("h264 hevc mpeg4 mpeg2".split(), "aac"),
    "mpg": ("mpeg2".split(), "mp2"),
    "flv": ("h264 flv1".split(), "aac"),
    "wmv": ("wmv2".split(), "wmav2"),
    "gif": ("gif".split(), None),
}
#: Display matrices (a, b, c, d) of the eight orientations.
ORIENTATIONS = {
    "as coded": (1, 0, 0, 1),
    "clockwise": (0, 1, -1, 0),
    "half turn": (-1, 0, 0, -1),
    "counterclockwise": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "anti-transposed": (0, -1, -1, 0),
}
STARTS = (0, 10)
#: Frames per second; "variable": 25 with every third frame shown twice as long.
RATES = ("25", "30000/1001", "60", "variable")
EXTRAS = ("none", "sound", "sound first", "picture track", "cover")
#: Seconds that the sound of "sound first" is ahead.
AHEAD = 0.4
SOUND_RATE = 48000


class Cell(NamedTuple):
    """One form of video."""

    container: str
    codec: str
    orientation: str
    start: int
    rate: str
    extra: str


class Unsupported(Exception):
    """A cell that the container, or FFmpeg's muxer, cannot express."""


def cells(containers: Sequence[str] = tuple(CONTAINERS)) -> Iterator[Cell]:
    """All cells; orientations vary fastest."""
    for container in containers:
        codecs = CONTAINERS[container][0]
        turns = ORIENTATIONS if container in ("mp4", "mov") else ["as coded"]
        for codec, start, rate, extra in product(codecs, STARTS, RATES, EXTRAS):
            for turn in turns:
                yield Cell(container, codec, turn, start, rate, extra)


def picture(number: int) -> np.ndarray:
    """Frame: its number in six blocks of bits, a mark in the upper left corner."""
    pixels = np.full((HEIGHT, WIDTH, 3), 70, np.uint8)
    for bit in range(6):
        left = 22 + 24 * bit
        pixels[52:84, left : left + 18] = 235 if number >> bit & 1 else 15
    pixels[4:36, 4:52] = 235, 235, 235
    return pixels


def number_of(pixels: np.ndarray) -> int:
    """Read the number of an upright frame, -1 if its corner mark is elsewhere."""
    grey = pixels.mean(2)
    marks = grey[12:28, 12:44], grey[12:28, -44:-12], grey[-28:-12, 12:44]
    if not marks[0].mean() > 150 > max(mark.mean() for mark in marks[1:]):
        return -1
    blocks = [grey[58:78, 26 + 24 * bit : 36 + 24 * bit].mean() for bit in range(6)]
    return sum(int(block > 125) << bit for bit, block in enumerate(blocks))


def times_of(rate: str) -> list[Fraction]:
    """Seconds of each frame from the first."""
    if rate != "variable":
        return [number / Fraction(rate) for number in range(FRAMES)]
    return [Fraction(number + number // 3, 25) for number in range(FRAMES)]


def make(path: Path, cell: Cell) -> list[float]:
    """Write a cell; returns the times of its frames on a player's clock.

    Raises:
        Unsupported: it cannot be written.
    """
    fixed = cell.container in ("avi", "mpg", "gif")
    if fixed and (cell.rate == "variable" or cell.start):
        raise Unsupported("no times of its own")
    if cell.container == "gif" and cell.rate != "25":
        raise Unsupported("times in hundredths")
    if cell.codec == "mpeg2" and cell.rate == "variable":
        raise Unsupported("constant rate only")
    times = times_of(cell.rate)
    ahead = AHEAD if cell.extra == "sound first" else 0.0
    if ahead and fixed:
        raise Unsupported("streams begin together")
    try:
        _write(path, cell, times, ahead)
    except (av.FFmpegError, ValueError, NotImplementedError) as error:
        raise Unsupported(str(error)[:60]) from error
    if cell.orientation != "as coded":
        path.write_bytes(turned(path.read_bytes(), ORIENTATIONS[cell.orientation]))
    return [float(time) + ahead for time in times]


def _write(path: Path, cell: Cell, times: list[Fraction], ahead: float) -> None:
    encoder, pixel_format, options = CODECS[cell.codec]
    rate = Fraction(25) if cell.rate == "variable" else Fraction(cell.rate)
    sound_codec = CONTAINERS[cell.container][1]
    with av.open(str(path), "w") as out:
        still = None
        if cell.extra in ("picture track", "cover"):
            if cell.container not in ("mp4", "mov", "mkv", "avi"):
                raise Unsupported("no second picture")
            still = out.add_stream("mjpeg", rate=rate)
            still.width, still.height, still.pix_fmt = 640, 480, "yuvj420p"
            if cell.extra == "cover":
                still.disposition = av.stream.Disposition.attached_pic
        film = cast(VideoStream, out.add_stream(encoder, rate=rate, options=options))
        film.width, film.height, film.pix_fmt = WIDTH, HEIGHT, pixel_format
        film.codec_context.thread_count = 1
        if cell.rate == "variable":
            film.codec_context.time_base = Fraction(1, 1000)
        if cell.extra.startswith("sound"):
            if sound_codec is None:
                raise Unsupported("no sound")
            sound = cast(AudioStream, out.add_stream(sound_codec, rate=SOUND_RATE))
            sound.bit_rate = 128_000
            length = float(times[-1]) + ahead
            _add_sound(out, sound, cell.start, length)
        if still is not None:
            grey = np.full((480, 640, 3), 128, np.uint8)
            image = av.VideoFrame.from_ndarray(grey, format="rgb24")
            out.mux(still.encode(image))
            out.mux(still.encode())
        base = film.codec_context.time_base or 1 / rate
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            at = time + cell.start + Fraction(ahead).limit_denominator(1000)
            frame.pts, frame.time_base = round(at / base), base
            out.mux(film.encode(frame))
        out.mux(film.encode())


def _add_sound(
    out: OutputContainer, stream: AudioStream, start: int, seconds: float
) -> None:
    size = stream.codec_context.frame_size or 1024
    kind = stream.codec_context.format.name
    for number in range(int(seconds * SOUND_RATE / size) + 1):
        silence = np.zeros((2, size), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, "fltp", "stereo")
        frame.rate, frame.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
        frame.pts = start * SOUND_RATE + number * size
        for ready in av.AudioResampler(kind, "stereo", SOUND_RATE).resample(frame):
            out.mux(stream.encode(ready))
    out.mux(stream.encode())


def turned(data: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """An MP4 whose pictures are to be shown by another display matrix."""
    changed = bytearray(data)
    a, b, c, d = (value << 16 for value in matrix)
    at = -1
    while (at := data.find(b"tkhd", at + 1)) > 0:
        place = at + 4 + (52 if data[at + 4] else 40)
        if struct.unpack_from(">2I", data, place + 36) == (WIDTH << 16, HEIGHT << 16):
            struct.pack_into(">9i", changed, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return bytes(changed)


def upright(pixels: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Undo a display matrix pixel by pixel."""
    a, b, c, d = matrix
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    shown_x, shown_y = a * x + c * y, b * x + d * y
    shown: np.ndarray = pixels[shown_y - shown_y.min(), shown_x - shown_x.min()]
    return shown


def check(path: Path, cell: Cell, times: list[float]) -> None:
    """Decode a cell; AssertionError says what is wrong with what came out."""
    seen: list[np.ndarray] = []
    watch(path, seen.append)
    matrix = ORIENTATIONS[cell.orientation]
    size = (HEIGHT, WIDTH) if matrix[0] else (WIDTH, HEIGHT)
    assert {frame.shape[:2] for frame in seen} == {size}, "shape"
    numbers = [number_of(upright(frame, matrix)) for frame in seen]
    assert numbers == list(range(FRAMES)), f"frames {numbers}"
    config = ClipConfig()
    whole = decode(path, PRESETS["c3d"], config=config)
    late = whole.times[0] - times[0]
    # An encoder of sound puts up to 50 ms in front of what it is given, and the film
    # starts with the nearest whole frame.
    most = 0.05 + 0.5 / 25 if cell.extra == "sound first" else 2e-3
    assert abs(late) < most, "start"
    times = [time + late for time in times]
    assert np.allclose(whole.times, times, atol=2e-3), f"times {whole.times[:4]}"
    middle = [(times[5] + times[6]) / 2, (times[15] + times[16]) / 2]
    part = decode(path, PRESETS["c3d"], config=config, start=middle[0], end=middle[1])
    assert np.array_equal(part.frames, whole.frames[6:16]), "part"
    assert np.allclose(part.times, times[6:16], atol=2e-3), "times of the part"


def outcome(folder: Path, cell: Cell) -> str:
    """Return "right", "refused: ...", "cannot be written: ..." or "WRONG: ..."."""
    path = folder / f"cell.{cell.container}"
    try:
        times = make(path, cell)
        check(path, cell, times)
    except Unsupported as error:
        return f"cannot be written: {error}"
    except VideoError as error:
        return "refused: " + str(error).removeprefix(f"{path}: ")[:90]
    except AssertionError as error:
        return f"WRONG: {error}"
    return "right"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("containers", nargs="*", default=list(CONTAINERS))
    chosen = parser.parse_args()
    rows: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    others: dict[str, list[Cell]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for index, cell in enumerate(cells(chosen.containers)):
            if index % chosen.every:
                continue
            found = outcome(Path(folder), cell)
            rows[cell.container, cell.codec][found.split(":")[0]] += 1
            if found != "right":
                others[f"{cell.container} {cell.codec}: {found}"].append(cell)
    kinds = ("right", "refused", "cannot be written", "WRONG")
    print("| container | codec | cells |", " | ".join(kinds), "|")
    print("|---|---|---|" + "---|" * len(kinds))
    for (container, codec), counts in rows.items():
        numbers = [str(counts[kind]) for kind in kinds]
        print("|", container, "|", codec, "|", counts.total(), "|", end=" ")
        print(" | ".join(numbers), "|")
    for reason, wrong in others.items():
        print(f"{len(wrong)} x {reason}; first {wrong[0][2:]}")


if __name__ == "__main__":
    main()
