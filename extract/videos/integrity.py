"""Evidence that a video is damaged.

A damaged video usually decodes without an exception. What gives it away is the number
of frames, compared with the number that the container states; flags on packets and
frames; and the lines that FFmpeg logs as errors. None of these finds all damage, so all
are used. Bits that flip into another valid stream leave no evidence: RELIABILITY.md has
the rates.
"""

import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import av.logging
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from aqa.cache.errors import AqaError, brief

#: (level, name of the component, text), as PyAV captures it.
Log = list[tuple[int, str, str]]

_FFMPEG_LOG = threading.Lock()


class VideoError(AqaError):
    """A video that cannot be used; the message names it and says why."""


class Signs:
    """Signs of damage, collected while one video is read."""

    def __init__(self, log: Log) -> None:
        """Start empty; FFmpeg goes on filling `log`."""
        self._log = log
        #: Components whose log lines count: the demuxer and the video decoder. What
        #: the decoders of sound say does not matter.
        self.components: set[str] = set()
        self.defects: list[str] = []
        self.corrupt_packets = 0
        self.corrupt_frames = 0
        self._refused: list[str] = []

    def refuse(self, error: Exception) -> None:
        """Note a packet that the demuxer or the decoder did not take."""
        self._refused.append(getattr(error, "strerror", None) or brief(error, 160))

    def clear(self) -> None:
        """Drop all signs so far: they are about frames that nobody asked for."""
        self._log.clear()
        self.defects.clear()
        self._refused.clear()
        self.corrupt_packets = self.corrupt_frames = 0

    def excuse(self, component: str, pattern: re.Pattern[str]) -> None:
        """Drop the log lines of a component that match a pattern."""
        self._log[:] = [
            line
            for line in self._log
            if line[1] != component or not pattern.search(line[2])
        ]

    def describe(self, promised: int | None, decoded: int) -> tuple[str, ...]:
        """Return all signs in words; `promised` is the container's frame count."""
        signs = list(self.defects)
        if promised is not None and promised != decoded:
            signs.append(f"the header promises {promised} frames, {decoded} decoded")
        if self.corrupt_frames:
            signs.append(f"{self.corrupt_frames} frames flagged corrupt")
        if self.corrupt_packets:
            signs.append(f"{self.corrupt_packets} packets flagged corrupt")
        if self._refused:
            signs.append(f"{len(self._refused)} packets refused: {self._refused[0]}")
        errors = [
            f"{name.split(',')[0]}: {brief(text, 160)}"
            for _, name, text in self._log
            if name in self.components
        ]
        if errors:
            signs.append(f"{len(errors)} errors by FFmpeg, the first: {errors[0]}")
        return tuple(signs)


@contextmanager
def ffmpeg_log() -> Iterator[Log]:
    """Capture what FFmpeg logs as errors in this thread.

    By default PyAV drops a line that equals the previous one, even that of another
    file, and reports it in a later capture: a missed error here, a false one there.
    That is switched off. The switches belong to the process, hence the lock.
    """
    with _FFMPEG_LOG:
        level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)
        try:
            with av.logging.Capture() as log:
                yield log
        finally:
            av.logging.set_skip_repeated(skips)
            av.logging.set_level(level)


_EARLY = "the file ends too early"
_JOINED = (
    "another recording follows the end of the first, and FFmpeg reads only one: join "
    "recordings as in ffmpeg -f concat"
)
_PNG = b"\x89PNG\r\n\x1a\n"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
#: ASF's file properties: this, 8 bytes of length, 16 of identity, then the file size.
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def end_problem(path: Path, container: str) -> str | None:
    """Say what is wrong with the end of a file, where the container can tell.

    FFmpeg reads some containers that state no frame count to the end of the file
    without an error: one that was cut between two packets shows it only here. A
    transport stream cut between two packets does not show it at all. Of files that
    were joined byte by byte, FFmpeg reads one in these containers, without a word.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if container == "mpegts":
            whole = any(size % packet == 0 for packet in (188, 192, 204))
            return None if whole else _EARLY
        if container == "gif":
            file.seek(max(size - 64, 0))
            return None if file.read().rstrip(b"\0").endswith(b";") else _EARLY
        if container.startswith("mov,"):
            return _JOINED if _has_two_headers(file) else None
        end = None
        if container == "flv":
            end, start = _flv_end(file), b"FLV\x01"
        elif container == "asf":
            end, start = _asf_end(file), _ASF
        elif container == "apng":
            end, start = _png_end(file), _PNG
        if end is None or end == size:
            return None
        file.seek(end)
        if file.read(len(start)) == start:
            return _JOINED
    return _EARLY if size < end or container == "flv" else None


def _has_two_headers(file: BinaryIO) -> bool:
    """Return whether an MP4 has two boxes `ftyp`, or two `moov`, at its top level."""
    seen = set()
    place = 0
    while len(head := file.read(16)) >= 8:
        length, name = struct.unpack_from(">I4s", head)
        if name in (b"ftyp", b"moov"):
            if name in seen:
                return True
            seen.add(name)
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:])
        if length < 8:  # 0: to the end of the file
            break
        place += length
        file.seek(place)
    return False


def _flv_end(file: BinaryIO) -> int:
    """Return where the last tag of an FLV ends, or the first that is none."""
    file.seek(5)
    place = int.from_bytes(file.read(4)) + 4
    file.seek(place)
    while (head := file.read(11)) and head[:3] != b"FLV":
        # Header and data, then the length of both.
        place += 15 + int.from_bytes(head[1:4])
        file.seek(place)
    return place


def _asf_end(file: BinaryIO) -> int | None:
    """Return the size of the file that the header of an ASF states."""
    head = file.read(1 << 16)
    found = head.find(_ASF_PROPERTIES)
    return (
        int.from_bytes(head[found + 40 : found + 48], "little") if found > 0 else None
    )


def _png_end(file: BinaryIO) -> int:
    """Return where the last chunk of a PNG ends, the file's end if it has none."""
    place = len(_PNG)
    file.seek(place)
    while len(head := file.read(8)) == 8:
        place += 12 + int.from_bytes(head[:4])
        if head[4:] == b"IEND":
            break
        file.seek(place)
    return place


#: An index of four million chunks; a longer one is not read.
_MAX_AVI_INDEX = 1 << 26


def promised_frames(
    container: InputContainer, stream: VideoStream, path: Path
) -> int | None:
    """Return how many frames the container states, None where it does not.

    Not counted: frames that the edit list of an MP4 hides, and the empty chunks of an
    AVI, which mean "show the last frame again" and which FFmpeg's own muxer writes
    where frames come late.
    """
    if not stream.frames:
        return None
    if container.format.name.startswith("mov,"):
        return sum(not entry.is_discard for entry in stream.index_entries)
    if container.format.name == "avi":
        return stream.frames - _empty_chunks(path, stream.index)
    return int(stream.frames)


def _empty_chunks(path: Path, stream: int) -> int:
    names = [b"%02ddc" % stream, b"%02ddb" % stream]
    entry = np.dtype([("name", "S4"), ("flags", "<u4", (2,)), ("size", "<u4")])
    with path.open("rb") as file:
        file.seek(12)  # RIFF, its length, AVI
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"idx1":
                data = file.read(min(size, _MAX_AVI_INDEX))
                index = np.frombuffer(data[: len(data) // 16 * 16], entry)
                mine = np.isin(index["name"], names)
                return int((mine & (index["size"] == 0)).sum())
            file.seek(size + size % 2, 1)
    return 0
