"""What torch.save wrote, read so that no file runs code or takes memory at will.

Conventions: in the zip that torch.save writes, parts are stored as they are, never
compressed, and nothing stands between the directory and the end of the file.
`weights_only` keeps code from running; what it lets through may still ask for any
memory (`bytearray(10**9)`), so that a file gets no more than one of its size can need.
"""

import os
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from aqa.cache.errors import brief
from aqa.extract.weights.kinds import WeightsError
from aqa.extract.weights.memory import at_most

_END = struct.Struct("<4s8xIIH")  # of a zip: size and place of its directory, comment
_LOCATOR = struct.Struct("<4s4xQ4x")  # place of zip64's end
_END64 = struct.Struct("<4s36xQQ")  # size and place of the directory

#: Bytes that reading a file may take beside twice its size.
_ROOM = 256 << 20


def load(path: Path) -> Any:
    """Read a file of torch.save onto the CPU.

    Raises:
        WeightsError: it is a damaged or inflated zip, or asks for too much memory.
        Exception: whatever else torch's unpickler makes of a hostile file.
    """
    _refuse_inflated(path)
    size = path.stat().st_size
    try:
        with at_most(2 * size + _ROOM):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch has no MemoryError.
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise WeightsError(
                f"{path}: asks for more memory than a file of {size} bytes can need"
            ) from None
        raise


def _refuse_inflated(path: Path) -> None:
    """Refuse a zip whose parts are larger than the file; pass over any other file."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return
            _require_one_directory(file)
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise WeightsError(f"{path}: a damaged zip ({brief(error)})") from None
    if not any(name.endswith("data.pkl") for name in names):
        raise WeightsError(f"{path}: a zip that torch.save did not write; unpack it")
    if size > path.stat().st_size:
        raise WeightsError(
            f"{path}: its parts say {size} bytes, more than the whole file has; "
            "torch.save never compresses"
        )


def _require_one_directory(file: BinaryIO) -> None:
    """Raise BadZipFile unless the directory of a zip ends where its end record begins.

    Readers look for it at the place that is stated, or just before the end: with any
    room between them, a file may show its checks one directory and torch another.
    """
    size = file.seek(-_END.size, os.SEEK_END)
    signature, length, start, comment = _END.unpack(file.read())
    if signature != b"PK\x05\x06" or comment:
        raise zipfile.BadZipFile("it does not end as torch.save ends it")
    end = size
    if size >= _LOCATOR.size + _END64.size:
        file.seek(size - _LOCATOR.size)
        locator, place = _LOCATOR.unpack(file.read(_LOCATOR.size))
        if locator == b"PK\x06\x07":
            end = size - _LOCATOR.size - _END64.size
            file.seek(end)
            signature, length, start = _END64.unpack(file.read(_END64.size))
            if signature != b"PK\x06\x06" or place != end:
                raise zipfile.BadZipFile("the end of its directory is elsewhere")
    if start + length != end:
        raise zipfile.BadZipFile("its directory is not where it ends")
