"""Frames of a video that was unpacked into numbered pictures.

Conventions: pictures of one name, `img_00001.jpg` and on, ordered by number whatever
its width, from any first number. A missing number in between is damage. Each picture is
decoded on its own, by Pillow, in the format that its content has, and turned as its
EXIF orientation says; alpha is dropped, of 16 bits the upper 8 stay. A file that holds
a whole film (pages, an animation) is refused. The digest of a folder is that of its
files' names and digests.
"""

import hashlib
import io
import os
import re
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageFile, ImageOps

from aqa.cache.errors import brief
from aqa.cache.files import file_sha256
from aqa.extract.config import Limits
from aqa.extract.datasets.dataset import is_ignored
from aqa.extract.videos.container import check_size
from aqa.extract.videos.integrity import Signs, VideoError
from aqa.extract.videos.stream import Picture, Pixels

#: Suffixes of pictures, and Pillow's names of the formats that they may hold.
SUFFIXES = ("jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp", "ppm", "pgm")
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM")
NUMBERED = re.compile(rf"(.*?)(\d+)\.({'|'.join(SUFFIXES)})", re.IGNORECASE)
MAX_BYTES = 1 << 26
#: Samples of 16 bits that stay below this are of cameras with 12 bits or fewer.
DARK = 1 << 12


class FolderFrames:
    """The pictures of a folder, in order; iterating adds to the signs of damage."""

    def __init__(self, folder: Path, limits: Limits, signs: Signs) -> None:
        """List the pictures.

        Raises:
            VideoError: no pictures, several series of them, or links that lead out.
        """
        numbers, self._paths = _series(folder)
        self._limits, self.signs = limits, signs
        missing = numbers[-1] - numbers[0] + 1 - len(numbers)
        if missing:
            after = next(
                a for a, b in zip(numbers, numbers[1:], strict=False) if b != a + 1
            )
            signs.defects.append(
                f"{missing} pictures missing, the first is number {after + 1}"
            )
        signs.components.add("mjpeg")
        self.promised = len(self._paths)
        self.pixel_aspect = 1.0
        # The largest sample of pictures of 16 bits.
        self._deepest = 0

    def damage(self, total: int | None) -> tuple[str, ...]:
        """Return the signs of damage; `total` pictures are all, None: a part."""
        return self.signs.describe(self.promised if total else None, total or 0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is doubtful about the pictures so far."""
        if not 0 < self._deepest < DARK:
            return ()
        return ("pictures of 16 bits use 12 or fewer of them: dark unless scaled",)

    def times(self) -> None:
        """Return no times: nobody knows when the pictures were taken."""

    def __iter__(self) -> Iterator[Picture]:
        """Yield the pictures, without those that cannot be opened."""
        for path in self._paths:
            try:
                yield self._open(path)
            except (MemoryError, VideoError):
                raise
            except Exception as error:  # Pillow's readers raise errors of all kinds
                self.signs.refuse(error)

    def _open(self, path: Path) -> Picture:
        """Open a picture and check what can be checked without decoding it."""
        if (size := os.path.getsize(path)) > MAX_BYTES:
            raise VideoError(f"{path}: expected a picture, found {size} bytes")
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow warns of truncated files
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            check_size(path, image.width, image.height, self._limits)
            _check_alone(path, image)
            if image.format == "PNG":
                image.verify()  # the checksum of each part; the image is of no more use
                image = Image.open(io.BytesIO(data), formats=FORMATS)
            elif image.format in ("JPEG", "MPO"):
                _check_jpeg(data, self.signs)
            else:
                image.load()
        rgb = partial(self._rgb, image, path.name, data)
        return Picture(image.width, image.height, rgb)

    def _rgb(self, image: Image.Image, name: str, data: bytes) -> Pixels:
        try:
            image.load()
        except OSError as error:
            self.signs.defects.append(f"{name}: {brief(error, 160)}")
            image = _load_truncated(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of malformed EXIF
            ImageOps.exif_transpose(image, in_place=True)
        if _is_deep(image):
            self._deepest = max(self._deepest, int(np.asarray(image).max()))
        return _to_rgb(image)


def _check_alone(path: Path, image: Image.Image) -> None:
    """Refuse a film in one file; a second picture of another size is a preview."""
    count = getattr(image, "n_frames", 1)
    if image.format not in ("TIFF", "PNG", "WEBP") or count == 1:
        return
    size = image.size
    image.seek(1)
    if image.size == size:
        raise VideoError(f"{path}: expected one picture, found {count} in one file")
    image.seek(0)


def _check_jpeg(data: bytes, signs: Signs) -> None:
    """Let FFmpeg log what is wrong with a JPEG: Pillow ignores most damage.

    FFmpeg decodes an eighth of the width and height: less work, the same errors.
    """
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    decoder.options = {"lowres": "3"}
    for frame in decoder.decode(av.Packet(data)):
        signs.corrupt_frames += frame.is_corrupt


def _load_truncated(data: bytes) -> Image.Image:
    """Decode what there is of a picture whose file is cut short."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.load()
        return image
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _is_deep(image: Image.Image) -> bool:
    """Return whether a picture is grey of 16 bits."""
    return image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG")


def _to_rgb(image: Image.Image) -> Pixels:
    if _is_deep(image):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise VideoError(
            f"expected pictures of 8 or 16 bits, found {image.mode}, 32 bits"
        )
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def folder_sha256(folder: Path) -> str:
    """Return the digest of the pictures of a folder, in hexadecimal."""
    digest = hashlib.sha256()
    for path in _series(folder)[1]:
        digest.update(f"{path.name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _series(folder: Path) -> tuple[list[int], list[Path]]:
    """Return numbers and paths of the pictures in a folder, in order."""
    found: dict[int, Path] = {}
    names = set()
    real = folder.resolve()
    for path in folder.iterdir():
        if is_ignored(path.name):
            continue
        if match := NUMBERED.fullmatch(path.name):
            number = int(match[2])
            if number in found:
                raise VideoError(
                    f"{folder}: expected one picture of each number, found "
                    f"{found[number].name} and {path.name}"
                )
            if not path.resolve().is_relative_to(real):
                raise VideoError(f"{path}: expected a picture, found a link out of it")
            found[number] = path
            names.add(match[1])
    if len(names) != 1:
        kinds = ", ".join(sorted(f"{name}*" for name in names)) or "none"
        raise VideoError(
            f"{folder}: expected one series of pictures such as img_00001.jpg, found "
            f"{brief(kinds, 160)}"
        )
    numbers = sorted(found)
    return numbers, [found[number] for number in numbers]
