"""Signs that a video is damaged, from every detector that FFmpeg offers.

Conventions: a damaged video decodes, mostly, without an exception. What tells is
the number of frames, compared with the header's; flags on packets and frames; and
the lines that FFmpeg logs as errors. None of them catches all, so all are asked.
Bits that flip into another valid stream leave no sign: RELIABILITY.md has the rates.

Whether a file reaches as far as its container says it should.

Conventions: for containers that count no frames, and that FFmpeg reads to the end it
finds without a word. A file that was cut between two packets shows it only here; a
transport stream cut there does not show it at all.

How many frames a video's header promises to a decoder.

Conventions: None where the container counts no frames (Matroska, MPEG, a fragmented
MP4). Two kinds of frames are in the header's count and yet never decoded, in files
that are whole: those that the edit list of an MP4 hides, and the empty chunks of an
AVI, which stand for "show the last frame again" and which FFmpeg's own writer puts
where frames come late. Both are subtracted.
"""

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from aqa.cache.errors import AqaError, printable

#: (level, who speaks, what is said), as PyAV captures it.
Log = list[tuple[int, str, str]]

_FFMPEG_LOG = threading.Lock()


class VideoError(AqaError):
    """A video that cannot be used; the message names it and says why."""


class Signs:
    """What was noticed while one video was read."""

    def __init__(self, log: Log) -> None:
        """Begin with no sign; `log` goes on being filled by FFmpeg."""
        self._log = log
        #: Whose lines count: the container and the decoder of the pictures. Sound
        #: is not looked at, so what its decoders say is no matter.
        self.speakers: set[str] = set()
        self.notes: list[str] = []
        self.corrupt_packets = 0
        self.corrupt_frames = 0
        self._refused: list[str] = []

    def refuse(self, error: Exception) -> None:
        """Note a packet that the demuxer or the decoder would not take."""
        self._refused.append(getattr(error, "strerror", None) or str(error))

    def forget(self) -> None:
        """Drop all signs so far: they were about frames that nobody asked for."""
        self._log.clear()
        self.notes.clear()
        self._refused.clear()
        self.corrupt_packets = self.corrupt_frames = 0

    def found(self, promised: int | None, decoded: int) -> tuple[str, ...]:
        """All signs in words; `promised` is the header's count, where it has one."""
        signs = list(self.notes)
        if promised is not None and promised != decoded:
            signs.append(f"the header promises {promised} frames, {decoded} decoded")
        if self.corrupt_frames:
            signs.append(f"{self.corrupt_frames} frames flagged corrupt")
        if self.corrupt_packets:
            signs.append(f"{self.corrupt_packets} packets flagged corrupt")
        if self._refused:
            signs.append(f"{len(self._refused)} packets refused: {self._refused[0]}")
        if errors := self.errors():
            signs.append(f"{len(errors)} errors by FFmpeg, the first: {errors[0]}")
        return tuple(signs)

    def errors(self) -> list[str]:
        """The lines of FFmpeg's log that count."""
        return [
            f"{name.split(',')[0]}: {one_line(text)}"
            for _, name, text in self._log
            if name in self.speakers
        ]


def one_line(text: str) -> str:
    """What FFmpeg said, short, and safe to show: it may quote the file."""
    return printable(" ".join(text.split()))[:160]


@contextmanager
def ffmpeg_log() -> Iterator[Log]:
    """Everything FFmpeg logs as an error within the block, in this thread.

    PyAV by default drops a line that equals the one before, even that of another
    file, and reports it later, in whatever capture is then open: a missed sign here
    and a false one there. That is switched off. The switches are the process's own,
    hence the lock.
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


#: ASF's file properties: this, 8 bytes of length, 16 of name, then the file's size.
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def is_cut_short(path: Path, container: str) -> bool:
    """Whether the end of a file is missing; `container` is FFmpeg's name for it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if container == "mpegts":
            return all(size % packet for packet in (188, 192, 204))
        if container == "gif":
            file.seek(max(size - 64, 0))
            return not file.read().rstrip(b"\0").endswith(b";")
        if container == "asf":
            head = file.read(1 << 16)
            place = head.find(ASF_PROPERTIES) + 40
            return 40 <= place <= len(head) - 8 and size < _number("<Q", head, place)
        if container == "flv":
            # Each tag is followed by its length: 11 bytes of head, then its data,
            # whose length stands in the head.
            file.seek(max(size - 4, 0))
            tag = _number(">I", file.read(), 0)
            file.seek(max(size - 4 - tag, 0))
            head = file.read(4)
            return size < 4 + tag or _number(">I", head, 0) & 0xFFFFFF != tag - 11
    return False


def _number(form: str, data: bytes, place: int) -> int:
    return int(struct.unpack_from(form, data, place)[0])


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
