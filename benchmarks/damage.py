"""How much damage to a video is seen: the table that RELIABILITY.md quotes.

Usage: python benchmarks/damage.py [--cases N] [VIDEO ...]

Each clip is cut short, or has bits flipped, N times over, and decoded as extraction
would. "changed" counts the cases whose frames differ from the whole clip's, "caught"
those of them that are refused by default. Clips are made here, in MPEG-4 and H.264
and in every other form that this FFmpeg writes; videos given as arguments are treated
alike, and counted among the clean files.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

from aqa.extract.config import ClipConfig
from aqa.extract.preprocessing import PRESETS
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.video import Decoded, decode

#: Name of a clip -> codec, pixel format, options of the container.
CLIPS = {
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "mpeg4.mp4": ("mpeg4", "yuv420p", {"movflags": "faststart"}),
    "h264.mp4": ("libx264", "yuv420p", {"movflags": "faststart"}),
    "h264.mkv": ("libx264", "yuv420p", {}),
}
#: Clips that need only be decoded without alarm.
CLEAN = CLIPS | {
    "h264.avi": ("libx264", "yuv420p", {}),
    "h264-fragmented.mp4": (
        "libx264",
        "yuv420p",
        {"movflags": "frag_keyframe+empty_moov"},
    ),
    "h264.ts": ("libx264", "yuv420p", {}),
    "h264-10bit.mp4": ("libx264", "yuv420p10le", {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {}),
    "vp9-alpha.webm": ("libvpx-vp9", "yuva420p", {}),
    "mpeg1.mpg": ("mpeg1video", "yuv420p", {}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {}),
    "wmv2.wmv": ("wmv2", "yuv420p", {}),
    "flv1.flv": ("flv", "yuv420p", {}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "prores.mov": ("prores_ks", "yuv422p10le", {}),
    "gray16.mkv": ("ffv1", "gray16le", {}),
    "rgb8.gif": ("gif", "rgb8", {}),
}
HEAD = """
The last columns are of the cases missed: how many grey levels a pixel is off, in the
middle one and the worst, and how many lack frames.

| clip | damage | cases | changed | caught | rate | off | worst | short |
|---|---|---|---|---|---|---|---|---|"""
FULL = ClipConfig(length=100_000)
PRE = PRESETS["c3d"]


def scene(frame: int, width: int, height: int) -> np.ndarray:
    """A moving square over drifting gradients: RGB (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    planes = (2 * x + 3 * frame, 2 * y + 2 * frame, x + y + 5 * frame)
    pixels = np.stack(planes, -1).astype(np.uint8)
    left, top = frame * 2 % width, height // 3
    pixels[top : top + height // 4, left : left + width // 5] = 255, 40, 30
    return pixels


def write_clip(
    path: Path,
    codec: str,
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    frames: int = 60,
    size: tuple[int, int] = (160, 120),
) -> Path:
    """Encode `frames` frames of `scene`, at 25 a second."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=25))
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(scene(index, *size), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def truncations(data: bytes, cases: int, rng: np.random.Generator) -> Iterator[bytes]:
    """The file cut short: anywhere, and by one, ten and a hundred bytes."""
    for lost in (1, 10, 100):
        yield data[:-lost]
    for kept in rng.integers(1, len(data), cases - 3):
        yield data[:kept]


def flips(
    data: bytes, cases: int, rng: np.random.Generator, length: int
) -> Iterator[bytes]:
    """`length` bytes somewhere overwritten by noise; 0: one bit turned over."""
    for start in rng.integers(0, len(data) - length, cases):
        damaged = bytearray(data)
        if length:
            damaged[start : start + length] = rng.bytes(length)
        else:
            damaged[start] ^= 1 << int(rng.integers(8))
        yield bytes(damaged)


DAMAGES: dict[str, Callable[..., Iterator[bytes]]] = {
    "cut short": truncations,
    "1 bit": partial(flips, length=0),
    "1 byte": partial(flips, length=1),
    "40 bytes": partial(flips, length=40),
}


def look(path: Path) -> Decoded | None:
    """All frames and signs of damage; None where the file is refused outright."""
    try:
        return decode(path, PRE, config=FULL, allow_damaged=True)
    except VideoError:
        return None


def difference(one: Decoded, other: Decoded) -> float:
    """Mean difference in grey levels over the frames that both have; inf if none."""
    if len(one.frames) != len(other.frames):
        return float("inf")
    return float(np.abs(one.frames.astype(np.int16) - other.frames).mean())


def rates(path: Path, cases: int, folder: Path) -> Iterator[list[str]]:
    """Rows of the table for one clip, one for each kind of damage."""
    whole = look(path)
    if whole is None or whole.damage:
        raise SystemExit(f"{path}: expected a whole video to damage, found {whole}")
    data = path.read_bytes()
    for name, damage in DAMAGES.items():
        rng = np.random.default_rng(0)
        changed, missed = 0, []
        for content in damage(data, cases, rng):
            target = folder / f"damaged{path.suffix}"
            target.write_bytes(content)
            found = look(target)
            much = float("inf") if found is None else difference(whole, found)
            changed += much > 0
            if much > 0 and found is not None and not found.damage:
                missed.append(much)
        missed.sort()
        caught = changed - len(missed)
        shown = [f"{much:.2f}" for much in missed if much < float("inf")]
        yield [
            path.name,
            name,
            str(cases),
            str(changed),
            str(caught),
            f"{100 * caught / max(changed, 1):.0f} %",
            shown[len(shown) // 2] if shown else "-",
            shown[-1] if shown else "-",
            str(len(missed) - len(shown)),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("videos", nargs="*", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clean = [
            write_clip(folder / clip, *settings) for clip, settings in CLEAN.items()
        ] + chosen.videos
        alarms = [
            path for path in clean if (found := look(path)) is None or found.damage
        ]
        print(f"clean files: {len(clean)}, false alarms: {len(alarms)}", *alarms)
        print(HEAD)
        for path in [folder / clip for clip in CLIPS] + chosen.videos:
            for row in rates(path, chosen.cases, folder):
                print("|", " | ".join(row), "|")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
