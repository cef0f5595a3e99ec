"""Signs that a video is damaged, from every detector that FFmpeg offers.

Conventions: a damaged video decodes, mostly, without an exception. What tells is
the number of frames, compared with the header's; flags on packets and frames; and
the lines that FFmpeg logs as errors. None of them catches all, so all are asked.
Bits that flip into another valid stream leave no sign: RELIABILITY.md has the rates.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import av
import av.logging

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
