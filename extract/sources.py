"""Whether a video is still the one that its features were made from.

Conventions: a digest is that of `aqa.extract.video.Decoded.source_sha256`; times are
nanoseconds. Reading every video again only to find it unchanged would take long on a
large data set, so that only those are read that were touched since.
"""

import hashlib
from pathlib import Path

from aqa.extract.picture_folder import folder_sha256


def changed(path: Path, sha256: str, since: int) -> bool:
    """Whether the file or folder was touched after `since` and is another now.

    The time is that of the last change of status: unlike that of the content, no
    copying tool sets it back. A video that is gone has not changed: its features stay.
    """
    try:
        if _touched(path) < since:
            return False
        return source_sha256(path) != sha256
    except OSError:
        return False


def source_sha256(path: Path) -> str:
    """Digest of a video file, or of a folder's pictures, in hexadecimal."""
    if path.is_dir():
        return folder_sha256(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _touched(path: Path) -> int:
    """Last change of status, of a folder that of anything in it."""
    last = path.stat().st_ctime_ns
    if path.is_dir():
        last = max([last, *(inside.stat().st_ctime_ns for inside in path.iterdir())])
    return last
