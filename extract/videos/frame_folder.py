"""Frames of a video that was unpacked into numbered pictures.

Conventions: JPEG or PNG files of one name, `img_00001.jpg` and on, ordered by
number whatever its width, from any first number. A number that is missing in
between is damage. The digest of a folder is that of its files' names and digests.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from aqa.extract.config import Limits
from aqa.extract.videos.container import check_size
from aqa.extract.videos.integrity import Signs, VideoError, one_line

NUMBERED = re.compile(r"(.*?)(\d+)\.(jpg|jpeg|png)", re.IGNORECASE)
DECODERS = {"jpg": "mjpeg", "jpeg": "mjpeg", "png": "png"}
MOST_BYTES = 1 << 26


@contextmanager
def open_folder(
    folder: Path, limits: Limits, signs: Signs
) -> Iterator[tuple[int, Iterator[VideoFrame]]]:
    """How many pictures there are, and the frames; `signs` fill up.

    Raises:
        VideoError: no pictures, several series of them, or links that lead out.
    """
    numbers, paths = _series(folder)
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if missing:
        after = next(
            a for a, b in zip(numbers, numbers[1:], strict=False) if b != a + 1
        )
        signs.notes.append(
            f"{missing} pictures missing, the first is number {after + 1}"
        )
    signs.speakers |= set(DECODERS.values())
    yield len(paths), _decoded(paths, limits, signs)


def folder_sha256(folder: Path) -> str:
    """Digest of the pictures of a folder, hex."""
    digest = hashlib.sha256()
    for path in _series(folder)[1]:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name}\0{content}\n".encode())
    return digest.hexdigest()


def _series(folder: Path) -> tuple[list[int], list[Path]]:
    """Numbers and paths of the pictures in a folder, in order."""
    found: dict[int, Path] = {}
    names = set()
    for path in folder.iterdir():
        if match := NUMBERED.fullmatch(path.name):
            number = int(match[2])
            if number in found:
                raise VideoError(
                    f"{folder}: expected one picture of each number, found "
                    f"{found[number].name} and {path.name}"
                )
            if not path.resolve().is_relative_to(folder.resolve()):
                raise VideoError(f"{path}: expected a picture, found a link out of it")
            found[number] = path
            names.add(match[1])
    if len(names) != 1:
        kinds = ", ".join(sorted(f"{name}*" for name in names)) or "none"
        raise VideoError(
            f"{folder}: expected one series of pictures such as img_00001.jpg, found "
            f"{one_line(kinds)}"
        )
    numbers = sorted(found)
    return numbers, [found[number] for number in numbers]


def _decoded(paths: list[Path], limits: Limits, signs: Signs) -> Iterator[VideoFrame]:
    decoders = {name: _decoder(name, limits) for name in set(DECODERS.values())}
    for path in paths:
        if (size := os.path.getsize(path)) > MOST_BYTES:
            raise VideoError(f"{path}: expected a picture, found {size} bytes")
        decoder = decoders[DECODERS[path.suffix[1:].lower()]]
        try:
            frames = decoder.decode(av.Packet(path.read_bytes()))
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError) as error:
            signs.refuse(error)
            continue
        for frame in frames:
            check_size(path, frame.width, frame.height, limits)
            signs.corrupt_frames += frame.is_corrupt
            yield frame


def _decoder(name: str, limits: Limits) -> VideoCodecContext:
    decoder = cast(VideoCodecContext, av.CodecContext.create(name, "r"))
    decoder.thread_count = 1
    decoder.options = {
        "max_pixels": str(limits.pixels),
        "err_detect": "crccheck",  # a PNG carries a checksum of each part
    }
    return decoder
