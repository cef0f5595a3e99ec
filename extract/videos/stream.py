"""Decode the film of one video file.

Conventions: frames come in the order of showing, with damage noted and passed over.
Pixels are uint8 (H, W, 3) RGB, turned and mirrored as the file says; alpha is dropped,
and interlaced video is not deinterlaced. A display matrix is that of MP4 and of FFmpeg:
it moves the point (x, y) of the coded picture to (a x + c y, b x + d y).

Time stamps are in units of the stream's time base. `promised` is known when all frames
have been read: frames that the container counts and no player shows are taken off.

What is no damage, although FFmpeg complains or frames are missing:
- A recording cut without encoding again may begin with an open group of pictures: its
  leading pictures refer to ones before the cut, and are not shown.
- A transport or program stream that was recorded from the air begins anywhere; nothing
  is shown before the first key frame.
- MPEG-4 encoders write a picture that is "not coded" where nothing changed.
"""

import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from aqa.extract.videos.container import OpenVideo
from aqa.extract.videos.integrity import Signs, end_problem, promised_frames

Pixels = npt.NDArray[np.uint8]
Seconds = npt.NDArray[np.float64]
#: (a, b, c, d), of which only the signs and what is zero matter.
Matrix = tuple[int, int, int, int]
#: By quarter turns counterclockwise.
_TURNS = ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))
#: Containers with an index to seek by; others are decoded from their beginning.
INDEXED = ("mov", "matroska", "avi")
#: Containers of broadcasts: recordings of them begin anywhere.
BROADCAST = ("mpegts", "mpeg")
#: A frame is decoded at most this much later than a frame that is shown after it.
REORDER_SECONDS = 1.0
#: Time stamps that fall by more than this, or rise by more in a broadcast, begin anew:
#: recordings were joined. Stamps that are merely out of order fall by a few frames.
RESTART_SECONDS = 0.5
JUMP_SECONDS = 10.0
#: Seconds by which sound begins before the pictures without being heard.
SOUND_AHEAD = 0.1
#: Transfer functions of high dynamic range, by their numbers in ITU-T H.273: PQ, HLG.
HIGH_RANGE = (16, 18)
#: H.264's complaints about pictures before the first one of the file.
_MISSING_REFERENCES = re.compile(
    r"mmco|co located POCs|reference (picture|frames)|Missing reference"
)
#: An MPEG-4 picture that is not coded is its header alone.
_MAX_NOT_CODED = 19
_VOP = b"\0\0\1\xb6"
_NO_QUARTER_TURN = "pictures are turned by no quarter turn"


@dataclass(slots=True)
class Picture:
    """One frame; `rgb` converts it as it is shown. Sizes are of the coded picture."""

    width: int
    height: int
    rgb: Callable[[], Pixels]


class StreamFrames:
    """The frames of an open video, read once; the attributes fill up meanwhile."""

    def __init__(self, video: OpenVideo, path: Path, signs: Signs) -> None:
        """Stand before the first frame."""
        self._video, self.signs = video, signs
        self._stream, self._format = video.stream, video.container.format.name
        self._codec = video.stream.codec_context.name
        self._convert = VideoReformatter()
        self._matrices: dict[int, Matrix] = {}
        self.pixel_aspect = float(self._stream.sample_aspect_ratio or 1)
        self._base = self._stream.time_base or Fraction(1)
        self._zero = Fraction(0) if self._format == "avi" else self._clock_zero()
        #: Time stamps of the frames so far, in the order of showing.
        self._stamps = array("q")
        self._timed = True
        # When recordings were joined; what is added to time stamps by now, of which
        # `slip` is to be taken back; the latest step from frame to frame.
        self._joints: list[float] = []
        self._shift, self._step, self._slip = 0, 0, 0
        jump = JUMP_SECONDS if self._format in BROADCAST else float("inf")
        self._restart, self._jump = -RESTART_SECONDS / self._base, jump / self._base
        self._recent: list[Packet[VideoStream]] = []
        self._end_problem = end_problem(path, self._format)
        self._promised = promised_frames(video.container, self._stream, path)
        self._passed_over, self._interlaced, self._bright = 0, False, False
        self._key_frames = 0
        self._begin: int | None = None
        self._open_group = False
        # Time stamps of packets that have given no frame yet.
        self._not_coded: set[int | None] = set()
        self._leading: set[int | None] = set()

    @property
    def promised(self) -> int | None:
        """Frames that the container states, without those that nobody can show."""
        if self._promised is None:
            return None
        return self._promised - len(self._not_coded) - len(self._leading)

    def damage(self, total: int | None) -> tuple[str, ...]:
        """Return the signs of damage; `total` frames are all, None: a part was read."""
        if total is None:
            return self.signs.describe(None, 0)
        end = (self._end_problem,) if self._end_problem else ()
        return end + self.signs.describe(self.promised, total)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen or passed over, for the user to know."""
        notes = list(self._video.notes)
        if self._passed_over:
            notes.append(
                f"{self._passed_over} packets before the first key frame passed over"
            )
        if self._interlaced:
            notes.append("interlaced: two moments in each frame, not separated")
        if self._bright:
            notes.append("high dynamic range (PQ or HLG): shown without tone mapping")
        if self._joints:
            seconds = ", ".join(f"{time:.2f}" for time in self._joints[:5])
            notes.append(f"time stamps begin anew at {seconds} s: read in file order")
        return tuple(notes)

    def times(self) -> Seconds | None:
        """Return when the frames so far are shown; None if the file does not say."""
        if not self._timed:
            return None
        stamps = np.asarray(self._stamps, np.int64)
        if self._format == "avi":
            stamps = np.sort(stamps)
        seconds = stamps * self._base.numerator / self._base.denominator
        return np.round(seconds - float(self._zero), 6)

    def passed(self, seconds: float) -> bool:
        """Return whether all frames shown before a time have been read."""
        if not self._stamps:
            return False
        latest = float(self._stamps[-1] * self._base - self._zero)
        return latest >= seconds + REORDER_SECONDS

    def seek(self, seconds: float) -> bool:
        """Go to a key frame well before a time; False if there is no index."""
        start = seconds - REORDER_SECONDS
        if start <= 0 or not self._format.startswith(INDEXED):
            return False
        stamp = int((Fraction(start) + self._zero) / self._base)
        try:
            self._video.container.seek(stamp, stream=self._stream)
        except av.FFmpegError:
            return False
        return True

    def __iter__(self) -> Iterator[Picture]:
        """Decode to the end."""
        for frame in self._decoded():
            self.signs.corrupt_frames += frame.is_corrupt
            self._interlaced |= frame.interlaced_frame
            self._bright |= getattr(frame, "color_trc", 0) in HIGH_RANGE
            if frame.pts is None:
                self._timed = False
            else:
                self._stamps.append(self._continued(frame.pts))
            yield Picture(frame.width, frame.height, partial(self._rgb, frame))

    def _rgb(self, frame: VideoFrame) -> Pixels:
        if frame.rotation not in self._matrices:  # reading one takes longer
            self._matrices[frame.rotation] = display_matrix(frame)
        matrix = self._matrices[frame.rotation]
        if not is_quarter_turn(matrix) and _NO_QUARTER_TURN not in self.signs.defects:
            self.signs.defects.append(_NO_QUARTER_TURN)
        rgb = self._convert.reformat(frame, format="rgb24", threads=1)
        pixels = cast(Pixels, rgb.to_ndarray())
        codec = self._stream.codec_context
        same = (frame.width, frame.height) == (codec.width, codec.height)
        if self._video.crop and same:  # a size that changed has another crop
            top, bottom, left, right = self._video.crop
            pixels = pixels[top:bottom, left:right]
        return orient(pixels, matrix)

    def _continued(self, stamp: int) -> int:
        """Let the clock go on with the next frame where time stamps begin anew."""
        stamp += self._shift
        if not self._stamps or self._format == "avi":
            return stamp
        step = stamp - self._stamps[-1]
        if self._is_joint(step):
            stamp = self._stamps[-1] + self._step
            self._shift += self._step - step
            self._joints.append(float(stamp * self._base - self._zero))
        elif self._format == "mpeg" and self._step and (step <= 0 or self._slip):
            # FFmpeg guesses the times of pictures that share a packet: some fall
            # back by a few frames, until the next packet has a time.
            lost = max(self._step - step, -self._slip)
            self._slip += lost
            self._shift += lost
            stamp += lost
        elif step > 0:
            self._step = step
        return stamp

    def _is_joint(self, step: int) -> bool:
        """Return whether time stamps a step apart belong to joined recordings."""
        return step < self._restart or step > self._jump

    def _decoded(self) -> Iterator[VideoFrame]:
        packets = self._video.container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
                if not self._key_frames and self._is_before_first_key(packet):
                    continue
                self.signs.corrupt_packets += packet.is_corrupt
                self._note(packet)
                frames = packet.decode()
            except StopIteration:
                return
            except MemoryError:
                raise
            except av.FFmpegError as error:
                self.signs.refuse(error)
                continue
            finally:
                if self._open_group and self._key_frames < 2:
                    self.signs.excuse(self._codec, _MISSING_REFERENCES)
            for frame in frames:
                self._not_coded.discard(frame.pts)
                self._leading.discard(frame.pts)
                yield frame

    def _is_before_first_key(self, packet: "Packet[VideoStream]") -> bool:
        """Return whether to pass over a packet of a recording from the air."""
        if self._format not in BROADCAST or not packet.size:
            return False
        if packet.is_keyframe:
            if self._passed_over:
                self.signs.excuse(self._codec, re.compile(""))
            return False
        self._passed_over += 1
        return True

    def _note(self, packet: "Packet[VideoStream]") -> None:
        """Take down what a packet tells before it is decoded."""
        if self._format in BROADCAST and packet.dts is not None:
            # At a joint the counter of transport packets does not go on, which flags
            # one of the packets before it.
            self._recent.append(packet)
            step = packet.dts - (self._recent[-2:][0].dts or 0)
            if self._is_joint(step):
                flagged = sum(recent.is_corrupt for recent in self._recent)
                self.signs.corrupt_packets -= flagged
            del self._recent[:-3]
        if self._format == "avi":
            # Chunks have a number and no time: the frames' sorted numbers are the
            # times of showing, whatever the order of coding.
            packet.pts = packet.dts
        if packet.is_keyframe:
            self._key_frames += 1
            self._begin = packet.pts if self._key_frames == 1 else None
        elif packet.size and self._begin is not None:
            # Leading pictures follow the key frame at once, with times before its
            # own; Matroska has no times below zero: there they are missing.
            if packet.pts is None or packet.pts < self._begin:
                self._open_group = True
                if not packet.is_discard:
                    self._leading.add(packet.pts)
            else:
                self._begin = None
        if self._codec == "png":
            packet.is_keyframe = True  # or FFmpeg adds the picture to the last one
        if self._codec == "mpeg4" and 0 < packet.size <= _MAX_NOT_CODED:
            if bytes(packet).startswith(_VOP) and not packet.is_discard:
                self._not_coded.add(packet.pts)

    def _clock_zero(self) -> Fraction:
        """Return where the clock of a player begins, in time stamps' seconds."""
        film = self._stream
        starts = [
            Fraction(stream.start_time * stream.time_base)
            for stream in (film, *self._video.container.streams.audio)
            if stream.start_time is not None and stream.time_base is not None
        ]
        if not starts or film.start_time is None:
            return min(starts, default=Fraction(0))
        # Sound is often ahead by what its encoder adds in front, which is not heard.
        return starts[0] if starts[0] - min(starts) < SOUND_AHEAD else min(starts)


def orient(pixels: Pixels, matrix: Matrix) -> Pixels:
    """Turn and mirror pixels as a display matrix says, by the nearest quarter turn."""
    a, b, c, d = matrix
    if abs(a) + abs(d) < abs(b) + abs(c):
        # The point (x, y) moves to (c y, b x): rows become columns.
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def display_matrix(frame: VideoFrame) -> Matrix:
    """Return the display matrix of a frame."""
    side_data: Any = frame.side_data  # of which PyAV's stubs say too little
    try:
        found = side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV cannot list side data of kinds unknown to it
        return _TURNS[round(frame.rotation / 90) % 4]
    if found is None:
        return _TURNS[0]
    a, b, _, c, d = np.frombuffer(found, np.int32)[:5].tolist()
    return a, b, c, d


def is_quarter_turn(matrix: Matrix) -> bool:
    """Return whether a matrix only mirrors and turns by quarter turns."""
    a, b, c, d = map(abs, matrix)
    return (b, c) == (0, 0) and a == d > 0 or (a, d) == (0, 0) and b == c > 0
