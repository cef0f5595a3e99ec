"""What other runs on the same cache have finished since this one made its plan.

Conventions: only what lies on disk tells. A part that was not there, or was another
one, is news; so is a row of a cache that has been merged meanwhile. Runs begin at
different places of the same list, so that they meet where the other's work is done:
then the rest is left to whoever finished it, and only what both had in hand when
they met is computed twice, to the same bytes.

The extraction stage: a data set and what makes features of it -> the cache.

Conventions: features are float32 (offsets, clips, D). A video that cannot be used is
a `Failure`, named with its reason here and in `failures.json` beside the cache; the
others go on. Every finished video is durable at once (`aqa.cache.parts`), so the
stage may be killed at any instant and called again, in any number of processes, each
with a shard or all with the same videos, of which each then does some. Whoever finds
every video of the data set finished or failed merges.
"""

import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.cache.parts import finished, merge, part_path, write_part
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache
from aqa.extract.datasets.dataset import Dataset, Video
from aqa.extract.failures import Failure, FailureLog

#: Turns of this size spread over a circle, however many there are.
_GOLDEN = 0.618034

#: Which file lies under a name: its number and when it was written.
_Mark = tuple[int, int] | None


class OtherRuns:
    """Hands out what is left to do; `finished` counts what others took away."""

    def __init__(self, cache: Path, todo: Sequence[Video]) -> None:
        """Take down what lies there now: parts and rows that are to be made anew."""
        self.finished = 0
        self._cache = cache
        self._todo = todo
        self._parts = {video.key: _mark(part_path(cache, video.key)) for video in todo}
        self._merged = _mark(cache)
        self._outdated = self._rows()
        self._news: set[str] = set()

    def left(self) -> Iterator[Video]:
        """Videos that nobody has finished by the time they are asked for."""
        start = int(len(self._todo) * (os.getpid() * _GOLDEN % 1))
        for video in (*self._todo[start:], *self._todo[:start]):
            if self._is_finished(video.key):
                self.finished += 1
            else:
                yield video

    def _is_finished(self, key: str) -> bool:
        if _mark(part_path(self._cache, key)) not in (None, self._parts[key]):
            return True
        if (merged := _mark(self._cache)) != self._merged:
            self._merged = merged
            self._news = {row for row, _ in self._rows() - self._outdated}
        return key in self._news

    def _rows(self) -> set[tuple[str, str]]:
        """Key and features' digest of each row of the cache, if there is one."""
        if self._merged is None:
            return set()
        with FeatureCache.open(self._cache) as cache:
            samples = cache.samples
            return set(zip(samples.key, samples.feature_sha256, strict=True))


def _mark(path: Path) -> _Mark:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


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

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know before it begins."""

    def extract(
        self, videos: Iterable[Video]
    ) -> Generator[tuple[Video, Extracted | AqaError]]:
        """Features of each video, or why there are none, in any order.

        The later a video is asked for, the better: what another run has finished by
        then does not come up.
        """

    def changed(self, video: Video, sha256: str, since: int) -> bool:
        """Whether what features with this `source_sha256` were made from is another.

        Only what was touched after `since`, in nanoseconds, need be looked into.
        """


@dataclass(frozen=True)
class Plan:
    """What a run would do: the videos `todo`, and the keys `finished` before."""

    todo: tuple[Video, ...]
    skipped: int
    finished: frozenset[str]


@dataclass(frozen=True)
class Extraction:
    """What a run did, in the order of the data set.

    `skipped` were finished before, `elsewhere` by other runs on the cache meanwhile.
    `damage` says by key what was wrong with videos that were taken all the same.
    `relabelled` counts samples of the cache whose labels are not the data set's.
    `merged` is false while other shards have work left.
    """

    cache: Path
    done: int
    skipped: int
    elsewhere: int
    damage: dict[str, str]
    relabelled: int
    failures: tuple[Failure, ...]
    merged: bool
    seconds: float

    def record(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {**asdict(self), "cache": str(self.cache)}


def plan(
    dataset: Dataset,
    cache: Path,
    extractor: Extractor,
    shard: tuple[int, int] | None = None,
) -> Plan:
    """Say which videos of the data set, or of a shard of it, are left to do.

    Those are the unfinished ones, failed ones among them, and those whose file, of
    the video or of its poses, has been replaced since.

    Raises:
        ProvenanceMismatch: the cache or a part of it was made with other features.
    """
    done = finished(cache, extractor.provenance)
    index, count = shard or (0, 1)
    own = dataset.videos[index::count]
    for video in own:
        if video.key in done:
            since = _made_at(cache, video.key)
            if extractor.changed(video, done[video.key], since):
                del done[video.key]
    todo = tuple(video for video in own if video.key not in done)
    return Plan(todo, len(own) - len(todo), frozenset(done))


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
    work = plan(dataset, cache, extractor, shard)
    others = OtherRuns(cache, work.todo)
    log = FailureLog(cache)
    failures, damage = {}, {}
    with closing(extractor.extract(others.left())) as results:
        for count, (video, made) in enumerate(results, start=1):
            if isinstance(made, AqaError):
                failures[video.key] = log.remember(video, made)
            else:
                log.forget(video.key)
                _store(cache, video, made, extractor.provenance)
                if made.damage:
                    damage[video.key] = made.damage
            progress(count + others.finished, len(work.todo), video.key)
    if others.finished:
        finished(cache, extractor.provenance)  # refuses what they made with others
    failed = log.of(dataset.videos)
    log.list_for_user(failed.values())
    merged = False
    if len(failed) < len(dataset.videos):
        merged = _all_there(cache, dataset.videos, work.finished, failed)
    if merged:
        merge(cache)
    return Extraction(
        cache=cache,
        done=len(work.todo) - others.finished - len(failures),
        skipped=work.skipped,
        elsewhere=others.finished,
        damage=dict(sorted(damage.items())),
        relabelled=relabelled(dataset.videos, cache),
        failures=tuple(failure for _, failure in sorted(failures.items())),
        merged=merged,
        seconds=time.monotonic() - begun,
    )


def relabelled(videos: Iterable[Video], cache: Path) -> int:
    """How many of the labelled videos carry other labels in the merged cache."""
    if not cache.exists():
        return 0
    labels = {v.key: (v.action, v.split, v.score) for v in videos if not isnan(v.score)}
    with FeatureCache.open(cache) as merged:
        samples = merged.samples
        columns = samples.action, samples.split, samples.score
        found = zip(samples.key, zip(*columns, strict=True), strict=True)
        return sum(labels.get(key, label) != label for key, label in found)


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


def _made_at(cache: Path, key: str) -> int:
    """When the file that holds a finished video's features was written."""
    for made in (part_path(cache, key), cache):
        with suppress(OSError):
            return made.stat().st_mtime_ns
    return time.time_ns()  # taken away a moment ago: nothing was touched since


def _all_there(
    cache: Path, videos: Iterable[Video], known: frozenset[str], failed: Iterable[str]
) -> bool:
    """Whether each video is finished or failed, as far as its files tell."""
    accounted = known.union(failed)
    rest = [video.key for video in videos if video.key not in accounted]
    missing = {key for key in rest if not part_path(cache, key).is_file()}
    if missing and cache.exists():
        # Parts of other shards may have been merged by hand meanwhile.
        with FeatureCache.open(cache) as merged:
            missing.difference_update(merged.samples.key)
    return not missing
