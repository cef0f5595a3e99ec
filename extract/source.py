"""Whether a file is still the one that features were made from.

Conventions: a digest is `Sample.source_sha256`, of the whole file or of a folder's
pictures; a probe is `Sample.source_probe`, of its size and some of its bytes. A probe
that differs reveals another file however old it is, so times cannot hide one. Whole
files are read only in doubt: where the probe differs or is unknown, or where the file
was touched after the features were written. Times are nanoseconds.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aqa.cache.errors import AqaError
from aqa.cache.files import probe
from aqa.extract.datasets.dataset import Video
from aqa.extract.videos.frame_folder import folder_sha256
from aqa.extract.videos.integrity import VideoError


class VideoSource:
    """Base of extractors whose features are made from the video file itself."""

    #: What the time per video depends on; empty: unknown.
    workload = ""

    def source(self, video: Video) -> Path:
        """Return the video file, or the folder of frames."""
        return video.path

    def source_sha256(self, path: Path) -> str:
        """Return the digest of a video."""
        return source_sha256(path)


def source_sha256(path: Path) -> str:
    """Return the digest of a video file, or of the pictures in a folder."""
    if path.is_dir():
        return folder_sha256(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_probe(path: Path) -> str:
    """Return the probe of a file or folder; empty if it cannot be read."""
    with suppress(OSError):
        return probe(path)
    return ""


def source_changed(
    path: Path,
    sha256: str,
    known_probe: str = "",
    *,
    written: int,
    digest: Callable[[Path], str] = source_sha256,
) -> bool:
    """Return whether the source of features, written at that time, is another file now.

    A source that is gone has not changed: its features stay. A folder without a video
    has changed: decoding says what is wrong with it.
    """
    try:
        if known_probe and probe(path) == known_probe and not _touched(path, written):
            return False
        return digest(path) != sha256
    except VideoError:
        return True
    except (AqaError, OSError):
        return False


def _touched(path: Path, since: int) -> bool:
    """Return whether a file, or anything in a folder, was touched after `since`.

    Uses the time of the last status change, which no copying tool sets back.
    """
    last = path.stat().st_ctime_ns
    if path.is_dir():
        last = max([last, *(inside.stat().st_ctime_ns for inside in path.iterdir())])
    return last >= since
