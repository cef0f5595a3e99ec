"""How many frames a video's header promises to a decoder.

Conventions: None where the container counts no frames (Matroska, MPEG, a fragmented
MP4). Two kinds of frames are in the header's count and yet never decoded, in files
that are whole: those that the edit list of an MP4 hides, and the empty chunks of an
AVI, which stand for "show the last frame again" and which FFmpeg's own writer puts
where frames come late. Both are subtracted.
"""

import struct
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

#: An AVI index of four million chunks; a longer one is left unread.
MOST_BYTES = 1 << 26


def promised_frames(
    container: InputContainer, stream: VideoStream, path: Path
) -> int | None:
    """Frames that decoding should give, or None where the header does not say."""
    if not stream.frames:
        return None
    if container.format.name.startswith("mov,"):
        return sum(not entry.is_discard for entry in stream.index_entries)
    if container.format.name == "avi":
        return stream.frames - _empty_chunks(path, stream.index)
    return int(stream.frames)


def _empty_chunks(path: Path, stream: int) -> int:
    """Chunks of length zero in the index at the end of an AVI file."""
    names = [b"%02ddc" % stream, b"%02ddb" % stream]
    entry = np.dtype([("name", "S4"), ("flags", "<u4", (2,)), ("size", "<u4")])
    with path.open("rb") as file:
        file.seek(12)  # RIFF, its length, AVI
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"idx1":
                data = file.read(min(size, MOST_BYTES))
                index = np.frombuffer(data[: len(data) // 16 * 16], entry)
                mine = np.isin(index["name"], names)
                return int((mine & (index["size"] == 0)).sum())
            file.seek(size + size % 2, 1)
    return 0
