"""Features of videos: what computes them, what they are made from, how long it takes.

Conventions: features are float32 (offsets, clips, D). A digest is
`Sample.source_sha256`, of the whole file or of a folder's pictures; a probe is
`Sample.source_probe`, of its size and some of its bytes. A probe that differs reveals
another file however old it is, so times cannot hide one. Whole files are read only in
doubt: where the probe differs or is unknown, or where the file was touched after the
features were written. Times of files are nanoseconds.

What a video takes, in seconds of wall clock, is kept in the user's cache folder by
machine and workload; where that cannot be read or written, nothing is known.
"""

import json
import platform
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from pathlib import Path
from statistics import median_low
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from aqa.cache.errors import AqaError
from aqa.cache.files import file_sha256, probe, user_folder, write_file
from aqa.cache.provenance import Provenance
from aqa.cache.samples import SIMILAR_RATES
from aqa.extract import FEATURES
from aqa.extract.config import ClipConfig
from aqa.extract.datasets.dataset import Video, listed
from aqa.extract.videos.frame_folder import folder_sha256
from aqa.extract.videos.integrity import VideoError

#: Runs of fewer videos are dominated by what a run does once.
MIN_TIMED_VIDEOS = 5
#: Aspects from upright to wide screen that the resize to 171 x 128 leaves recognisable.
MIN_ASPECT, MAX_ASPECT = 1.0, 2.0
#: Frames of one clip: videos with fewer are mostly padding.
CLIP = ClipConfig.clip


@dataclass(frozen=True)
class Extracted:
    """Features of one video, float32 (offsets, clips, D).

    `frames` is the number of decoded frames; `damage` describes what was wrong with a
    video that was accepted all the same, `notes` what was chosen where the file left a
    choice. `rate` is frames per second and `aspect` width / height, None if unknown.
    """

    features: npt.NDArray[np.float32]
    frames: int
    source_sha256: str
    damage: str = ""
    notes: tuple[str, ...] = ()
    rate: float | None = None
    aspect: float | None = None


@dataclass
class Facts:
    """Frame rates, aspects (width / height) and notes of videos, collected by key."""

    rates: dict[str, float | None] = field(default_factory=dict)
    aspects: dict[str, float] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def add(
        self,
        key: str,
        rate: float | None,
        aspect: float | None,
        notes: tuple[str, ...],
        frames: int = CLIP,
    ) -> None:
        """Add a video; None where a fact is unknown or does not matter."""
        self.rates[key] = rate
        if frames < CLIP:
            self.frames[key] = frames
        if aspect is not None and not MIN_ASPECT <= aspect <= MAX_ASPECT:
            self.aspects[key] = aspect
        for note in notes:
            self.notes.setdefault(note, []).append(key)

    def describe(self, length: int) -> Iterator[str]:
        """Yield what the user should know; `length` is the frames that are used."""
        if line := describe_rates(dict(sorted(self.rates.items())), length):
            yield line
        if self.aspects:
            first, aspect = min(self.aspects.items())
            yield (
                f"{len(self.aspects)} of {len(self.rates)} videos are upright or "
                f"very wide (first: {first}, width / height {aspect:.2f}): the network "
                "sees them squashed to 4 : 3"
            )
        if self.frames and length:
            first, frames = min(self.frames.items())
            yield (
                f"{len(self.frames)} of {len(self.rates)} videos have fewer than "
                f"{CLIP} frames (first: {first}, {frames}): {length - frames} of the "
                f"{length} that the network sees are black"
            )
        for note, keys in sorted(self.notes.items()):
            yield f"{note}: {listed(sorted(keys))}"


def describe_rates(rates: Mapping[str, float | None], length: int) -> str | None:
    """Say how far the frame rates of videos differ; None where they do not.

    `rates` are frames per second by video, None where unknown; they are compared with
    their median. `length` is the number of frames that features are made from.
    """
    known = {key: rate for key, rate in rates.items() if rate}
    if not known:
        return None
    usual = float(median_low(round(rate) for rate in known.values()))
    other = {
        key: rate
        for key, rate in known.items()
        if max(rate / usual, usual / rate) > SIMILAR_RATES
    }
    if not other:
        return None
    key = min(other)
    low, high = min(other.values()), max(other.values())
    found = f"{low:.3g}" if high - low < 0.5 else f"{low:.3g} to {high:.3g}"
    return (
        f"{len(other)} of {len(rates)} videos have {found} frames per second, not "
        f"{usual:.3g} (first: {key}): {length} frames show {length / other[key]:.2g} s "
        f"of it, not {length / usual:.2g} s; --fps {usual:.3g} resamples"
    )


class Extractor(Protocol):
    """Computes features: C3D on frames, or a transform of poses."""

    @property
    def provenance(self) -> Provenance:
        """What the features are made with."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know before the run starts."""

    @property
    def workload(self) -> str:
        """What the time per video depends on, in words; empty: unknown."""

    def extract(
        self, videos: Iterable[Video]
    ) -> Generator[tuple[Video, Extracted | AqaError]]:
        """Yield the features of each video, or why there are none, in any order.

        Take videos as late as possible: those that another run finishes meanwhile are
        left out.
        """

    def source(self, video: Video) -> Path:
        """Return the file or folder that features are made from; AqaError if none."""

    def source_sha256(self, path: Path) -> str:
        """Return the digest of a source, as in `Extracted`."""


def make_extractor(
    features: str, videos: Sequence[Video], settings: Mapping[str, Any]
) -> Extractor:
    """Return the extractor of a kind of features, of `FEATURES`.

    A module of a kind provides a function `extractor` with these parameters. Settings
    are fields of its configs; AqaError for those that have no effect on the kind.
    """
    if features not in FEATURES:
        raise AqaError(f"features: expected {', '.join(FEATURES)}, found {features!r}")
    kind = import_module(FEATURES[features])
    made: Extractor = kind.extractor(features, videos, settings)
    return made


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
    return file_sha256(path)


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


def remember_time(extractor: Extractor, videos: int, seconds: float) -> None:
    """Store what a run of some videos took, if it was long enough to tell."""
    if videos >= MIN_TIMED_VIDEOS and extractor.workload:
        times = _known_times() | {_machine_and_workload(extractor): seconds / videos}
        with suppress(AqaError, OSError):
            write_file(_times_path(), json.dumps(times, indent=1))


def expected_time(extractor: Extractor) -> float | None:
    """Return seconds per video as measured in an earlier run here, if there was one."""
    return _known_times().get(_machine_and_workload(extractor))


def measure_time(extractor: Extractor, videos: Sequence[Video]) -> float | None:
    """Extract two videos and return the seconds of the second; None if they fail.

    The first one includes starting processes. Nothing is stored.
    """
    ends = [time.monotonic()]
    with closing(extractor.extract(videos[:2])) as results:
        for _, result in islice(results, 2):
            if isinstance(result, AqaError):
                return None
            ends.append(time.monotonic())
    return ends[-1] - ends[-2] if len(ends) > 1 else None


def _machine_and_workload(extractor: Extractor) -> str:
    return f"{platform.node()}, {extractor.workload}"


def _times_path() -> Path:
    return user_folder() / "extraction_times.json"


def _known_times() -> dict[str, float]:
    with suppress(OSError, ValueError):
        times = json.loads(_times_path().read_text(encoding="utf-8"))
        return {name: float(value) for name, value in dict(times).items()}
    return {}
