"""Whether a file is still the one that features were made from.

Conventions: a digest is `source_sha256` of `aqa.extract.videos.video.Decoded`; times
are nanoseconds. Reading every video again only to find it unchanged would take long on
a large data set, so that only those are read that were touched since.
"""

import hashlib
from pathlib import Path

from aqa.extract.datasets.dataset import Video
from aqa.extract.videos.frame_folder import folder_sha256
from aqa.extract.videos.integrity import VideoError


def video_changed(video: Video, sha256: str, since: int) -> bool:
    """Whether a video was touched after `since` and is another now.

    A video that is gone has not changed: its features stay. A folder that holds no
    video any longer has: what is wrong with it is found when it is read.
    """
    try:
        return touched(video.path, since) and source_sha256(video.path) != sha256
    except VideoError:
        return True
    except OSError:
        return False


def source_sha256(path: Path) -> str:
    """Digest of a video file, or of a folder's pictures, in hexadecimal."""
    if path.is_dir():
        return folder_sha256(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def touched(path: Path, since: int) -> bool:
    """Whether a file, or anything in a folder, was touched after `since`.

    The time is that of the last change of status: unlike that of the content, no
    copying tool sets it back.
    """
    last = path.stat().st_ctime_ns
    if path.is_dir():
        last = max([last, *(inside.stat().st_ctime_ns for inside in path.iterdir())])
    return last >= since
