"""Whether a file is still the one that features were made from.

Conventions: a digest is `Decoded.source_sha256`, hexadecimal; times are nanoseconds.
Only files touched since the features were made are read, since reading every video
again would take long.
"""

import hashlib
from pathlib import Path

from aqa.extract.datasets.dataset import Video
from aqa.extract.videos.frame_folder import folder_sha256
from aqa.extract.videos.integrity import VideoError


def video_changed(video: Video, sha256: str, since: int) -> bool:
    """Return whether a video was touched after `since` and has other content now.

    A video that is gone has not changed: its features stay. A folder without a video
    has changed: decoding says what is wrong with it.
    """
    try:
        return touched(video.path, since) and source_sha256(video.path) != sha256
    except VideoError:
        return True
    except OSError:
        return False


def source_sha256(path: Path) -> str:
    """Return the digest of a video file, or of the pictures in a folder."""
    if path.is_dir():
        return folder_sha256(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def touched(path: Path, since: int) -> bool:
    """Return whether a file, or anything in a folder, was touched after `since`.

    Uses the time of the last status change, which no copying tool sets back.
    """
    last = path.stat().st_ctime_ns
    if path.is_dir():
        last = max([last, *(inside.stat().st_ctime_ns for inside in path.iterdir())])
    return last >= since
