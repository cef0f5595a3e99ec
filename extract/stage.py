"""The extraction stage: a data set and what makes features of it -> the cache.

Conventions: features are float32 (offsets, clips, D). A video that cannot be used is
a `Failure`, named with its reason here and in `failures.json` beside the cache; the
others go on. Every finished video is durable at once (`aqa.cache.parts`), so the
stage may be killed at any instant and called again, in any number of processes that
each do a shard. Whoever finds every video of the data set finished or failed merges.
"""

import json
import time
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from aqa.cache.errors import AqaError
from aqa.cache.parts import finished, merge, part_path, write_part
from aqa.cache.progress import Progress, silent
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.extract.video_list import Dataset, Video


@dataclass(frozen=True)
class Extracted:
    """What was made of one video.

    `features` float32 (offsets, clips, D); `frames` counts those decoded; `damage`
    says what was wrong with a video that was taken all the same.
    """

    features: npt.NDArray[np.float32]
    frames: int
    source_sha256: str
    damage: str = ""


class Extractor(Protocol):
    """What makes features: C3D on frames, or a transform of poses."""

    @property
    def provenance(self) -> Provenance:
        """What the features are made with."""

    def extract(
        self, videos: Iterable[Video]
    ) -> Generator[tuple[Video, Extracted | AqaError]]:
        """Features of each video, or why there are none, in order."""


@dataclass(frozen=True)
class Failure:
    """A video without features."""

    key: str
    path: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a run would do: the videos `todo`, and the keys `finished` before."""

    todo: tuple[Video, ...]
    skipped: int
    finished: frozenset[str]


@dataclass(frozen=True)
class Extraction:
    """What a run did. `merged` is false while other shards have work left."""

    cache: Path
    done: int
    skipped: int
    failures: tuple[Failure, ...]
    merged: bool
    seconds: float

    def record(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {**asdict(self), "cache": str(self.cache)}


def plan(
    dataset: Dataset,
    cache: Path,
    provenance: Provenance,
    shard: tuple[int, int] | None = None,
) -> Plan:
    """Say which videos of the data set, or of a shard of it, are left to do.

    Raises:
        ProvenanceMismatch: the cache or a part of it was made with other features.
    """
    done = frozenset(finished(cache, provenance))
    index, count = shard or (0, 1)
    own = dataset.videos[index::count]
    todo = tuple(video for video in own if video.key not in done)
    return Plan(todo, len(own) - len(todo), done)


def extract(
    dataset: Dataset,
    cache: Path,
    extractor: Extractor,
    shard: tuple[int, int] | None = None,
    progress: Progress = silent,
) -> Extraction:
    """Fill the cache with what is left to do of the data set.

    Raises:
        ProvenanceMismatch: the cache was made with other features.
        AqaError: the cache cannot be written.
    """
    begun = time.monotonic()
    work = plan(dataset, cache, extractor.provenance, shard)
    failures = []
    with closing(extractor.extract(work.todo)) as results:
        for count, (video, made) in enumerate(results, start=1):
            if isinstance(made, AqaError):
                failures.append(_fail(cache, video, made))
            else:
                _store(cache, video, made, extractor.provenance)
            progress(count, len(work.todo), video.key)
    return Extraction(
        cache=cache,
        done=len(work.todo) - len(failures),
        skipped=work.skipped,
        failures=tuple(failures),
        merged=_merge_if_last(cache, dataset, work.finished),
        seconds=time.monotonic() - begun,
    )


def _store(cache: Path, video: Video, made: Extracted, provenance: Provenance) -> None:
    sample = Sample(
        key=video.key,
        action=video.action,
        split=video.split,
        score=video.score,
        frames=made.frames,
        source_sha256=made.source_sha256,
        damage=made.damage,
    )
    write_part(cache, sample, made.features, provenance)
    _failure_path(cache, video.key).unlink(missing_ok=True)


def _fail(cache: Path, video: Video, error: AqaError) -> Failure:
    """Leave word of the failure where the other shards find it."""
    failure = Failure(video.key, str(video.path), str(error))
    path = _failure_path(cache, video.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(failure)), encoding="utf-8")
    return failure


def _failure_path(cache: Path, key: str) -> Path:
    return part_path(cache, key).with_suffix(".failed")


def _merge_if_last(cache: Path, dataset: Dataset, known: frozenset[str]) -> bool:
    """Merge once every video of the data set is finished or failed."""
    failed = []
    for video in dataset.videos:
        path = _failure_path(cache, video.key)
        if path.is_file():
            failed.append(path)
        elif video.key not in known and not part_path(cache, video.key).is_file():
            return False
    records = [json.loads(path.read_text(encoding="utf-8")) for path in failed]
    listed = cache.with_name("failures.json")
    if records:
        listed.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    else:
        listed.unlink(missing_ok=True)
    for path in failed:
        path.unlink(missing_ok=True)
    if len(failed) == len(dataset.videos):
        return False
    merge(cache)
    return True
