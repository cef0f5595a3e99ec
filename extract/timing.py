"""How long extraction takes on this machine: from earlier runs, or a short trial.

Conventions: times are seconds of wall clock per video, of a run with its own workload:
the extractor's description of what the time depends on. They are kept in the user's
cache folder; where that cannot be read or written, nothing is known.
"""

import json
import platform
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

from aqa.cache.errors import AqaError
from aqa.cache.files import user_folder, write_file
from aqa.extract.datasets.dataset import Video
from aqa.extract.stage import Extractor

#: Fewer videos are dominated by what a run does once.
MIN_VIDEOS = 5


def remember(extractor: Extractor, videos: int, seconds: float) -> None:
    """Store what a run of some videos took, if it was long enough to tell."""
    if videos >= MIN_VIDEOS and extractor.workload:
        times = _read() | {_key(extractor): seconds / videos}
        with suppress(AqaError, OSError):
            write_file(_path(), json.dumps(times, indent=1))


def expected(extractor: Extractor) -> float | None:
    """Return seconds per video as measured in an earlier run here, if there was one."""
    return _read().get(_key(extractor))


def measure(extractor: Extractor, videos: Sequence[Video]) -> float | None:
    """Extract two videos and return the seconds of the second; None if they fail.

    The first one includes starting processes. Nothing is stored.
    """
    ends = []
    with closing(extractor.extract(videos[:2])) as results:
        start = time.monotonic()
        for _, result in islice(results, 2):
            if isinstance(result, AqaError):
                return None
            ends.append(time.monotonic())
    if not ends:
        return None
    return ends[-1] - (ends[0] if len(ends) == 2 else start)


def _key(extractor: Extractor) -> str:
    return f"{platform.node()}, {extractor.workload}"


def _path() -> Path:
    return user_folder() / "extraction_times.json"


def _read() -> dict[str, float]:
    with suppress(OSError, ValueError):
        times = json.loads(_path().read_text(encoding="utf-8"))
        return {name: float(value) for name, value in dict(times).items()}
    return {}
