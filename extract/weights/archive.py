"""The zip that torch.save writes, checked before torch reads it.

Conventions: parts are stored as they are, never compressed, and nothing stands between
the directory and the end of the file. A file of any other kind passes unlooked at.
"""

import os
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from aqa.extract.weights.kinds import WeightsError, brief

_END = struct.Struct("<4s8xIIH")  # of a zip: size and place of its directory, comment
_LOCATOR = struct.Struct("<4s4xQ4x")  # place of zip64's end
_END64 = struct.Struct("<4s36xQQ")  # size and place of the directory


def refuse_inflated(path: Path) -> None:
    """Refuse a zip that says its parts are larger than the file: it would inflate."""
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
