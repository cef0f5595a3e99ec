"""The extraction stage: features of every video of a data set, into the cache.

Conventions: each finished video is one part file, durable at once, so a run may be
killed at any time and started again. Any number of processes may fill one cache, each
with a shard of the videos or all with the same videos. Whoever finds every video of the
data set finished or failed merges the parts into the cache.

A video without features is a `Failure`; the run goes on. Each failure is a JSON file in
the folder of parts, named like the video's part, so that shards see each other's.
`failures.json` beside the cache lists them in the order of the data set and is absent
when there are none. Caches in one folder share it; each entry names its cache.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError, brief
from aqa.cache.files import locked, make_folder, remove, remove_orphans, write_file
from aqa.cache.parts import finished, merge, part_path, write_part
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache
from aqa.extract.datasets.dataset import Dataset, Video, listed
from aqa.extract.extractor import (
    Extracted,
    Extractor,
    Facts,
    source_changed,
    source_probe,
)

#: Characters of damage and notes that a sample stores; a cache takes 1,024 bytes.
MAX_NOTES = 340


@dataclass(frozen=True)
class Failure:
    """A video without features, and why."""

    key: str
    path: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a run would do: the videos `todo`, and the keys `finished` before.

    `changed` are keys to do again, since their source is another file now; `unlisted`
    are keys that the cache holds and the data set does not.
    """

    todo: tuple[Video, ...]
    skipped: int
    finished: frozenset[str]
    changed: tuple[str, ...]
    unlisted: tuple[str, ...]

    def notes(self) -> Iterator[str]:
        """Yield what the user should know, one line each."""
        if self.changed:
            yield (
                f"{len(self.changed)} videos are other files than those their features "
                f"were made from, and are extracted again: {listed(self.changed)}"
            )
        if self.unlisted:
            yield (
                f"the cache also holds {len(self.unlisted)} videos that are not asked "
                f"for: {listed(self.unlisted)}; heads are trained on all that it holds"
            )


@dataclass(frozen=True)
class Extraction:
    """What a run did, in the order of the data set.

    `skipped` videos were finished before, `elsewhere` by other runs meanwhile.
    `damage` maps the keys of accepted but damaged videos to what was wrong; `notes`
    say what was decided about videos, one line per kind.
    `relabelled` counts samples of the cache whose labels are not the data set's.
    `merged` is false while other shards have work left.
    """

    cache: Path
    done: int
    skipped: int
    elsewhere: int
    damage: dict[str, str]
    notes: tuple[str, ...]
    relabelled: int
    failures: tuple[Failure, ...]
    merged: bool
    seconds: float

    def record(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "cache": str(self.cache)}


def extract(
    dataset: Dataset,
    cache: Path,
    extractor: Extractor,
    shard: tuple[int, int] | None = None,
    progress: Progress = silent,
    *,
    replace: bool = False,
    report: Callable[[str], None] = lambda note: None,
) -> Extraction:
    """Extract what is left to do of the data set, or of a shard of it, to the cache.

    `shard` (i, N) is the i-th of N parts of the videos, 0-based. `replace` is as in
    `plan`, whose notes go to `report`.

    Raises:
        ProvenanceMismatch: the cache was made with other settings.
        AqaError: the cache holds another data set, or cannot be written.
    """
    start = time.monotonic()
    work = plan(dataset, cache, extractor, shard, replace=replace)
    for note in work.notes():
        report(note)
    pending = _Pending(cache, work.todo, extractor)
    log = FailureLog(cache)
    failures, damage, facts = {}, {}, Facts()
    with closing(extractor.extract(pending)) as results:
        for done, (video, result) in enumerate(results, start=1):
            if isinstance(result, AqaError):
                if video.key in work.changed:
                    result = AqaError(
                        f"{result}; the cache keeps the features of the file that was "
                        "there before"
                    )
                failures[video.key] = log.record(video, result)
            else:
                log.clear(video.key)
                sample = _sample(video, result, pending.probes[video.key])
                write_part(cache, sample, result.features, extractor.provenance)
                facts.add(
                    video.key, result.rate, result.aspect, result.notes, result.frames
                )
                if result.damage:
                    damage[video.key] = result.damage
            progress(done + pending.elsewhere, len(work.todo), video.key)
    if pending.elsewhere:
        finished(cache, extractor.provenance)  # raises if theirs has other settings
    failed = log.among(dataset.videos)
    log.write_list(failed.values())
    merged = len(failed) < len(dataset.videos) and _all_accounted_for(
        cache, dataset.videos, work.finished.union(failed)
    )
    if merged:
        merge(cache)
    return Extraction(
        cache=cache,
        done=len(work.todo) - pending.elsewhere - len(failures),
        skipped=work.skipped,
        elsewhere=pending.elsewhere,
        damage=dict(sorted(damage.items())),
        notes=tuple(facts.describe(extractor.provenance.record.get("length", 0))),
        relabelled=relabelled(dataset.videos, cache),
        failures=tuple(failure for _, failure in sorted(failures.items())),
        merged=merged,
        seconds=time.monotonic() - start,
    )


def plan(
    dataset: Dataset,
    cache: Path,
    extractor: Extractor,
    shard: tuple[int, int] | None = None,
    *,
    replace: bool = False,
) -> Plan:
    """Determine which videos of the data set, or of a shard of it, are left to do.

    Those are unfinished or failed ones, and those whose source (the video, or its
    poses) is another file now. If most are, the cache belongs to another data set:
    that is an error, unless they are to `replace` the old ones.

    Raises:
        ProvenanceMismatch: the cache or a part of it was made with other settings.
        AqaError: most finished videos were made from other files.
    """
    done = finished(cache, extractor.provenance)
    unlisted = done.keys() - {video.key for video in dataset.videos}
    index, count = shard or (0, 1)
    own = dataset.videos[index::count]
    known = [video for video in own if video.key in done]
    changed = tuple(
        video.key
        for video in known
        if _has_changed(video, done[video.key], cache, extractor)
    )
    if len(changed) > max(len(known) / 2, 1) and not replace:
        raise AqaError(
            f"{cache}: expected features of {dataset.root}, found that {len(changed)} "
            f"of {len(known)} videos there were made from other files with the same "
            f"names: {listed(changed)}. Use another --cache for another data set, or "
            "--replace if the files were replaced on purpose"
        )
    for key in changed:
        del done[key]
    todo = tuple(video for video in own if video.key not in done)
    skipped = len(own) - len(todo)
    return Plan(todo, skipped, frozenset(done), changed, tuple(sorted(unlisted)))


def _has_changed(
    video: Video, sample: Sample, cache: Path, extractor: Extractor
) -> bool:
    try:
        source = extractor.source(video)
    except (AqaError, OSError):
        return False  # gone: the features stay
    return source_changed(
        source,
        sample.source_sha256,
        sample.source_probe,
        written=_written_at(cache, video.key),
        digest=extractor.source_sha256,
    )


def relabelled(videos: Iterable[Video], cache: Path) -> int:
    """Count the labelled videos that carry other labels in the merged cache."""
    if not cache.exists():
        return 0
    labels = {v.key: (v.action, v.split, v.score) for v in videos if not isnan(v.score)}
    with FeatureCache.open(cache) as merged:
        samples = merged.samples
        columns = samples.action, samples.split, samples.score
        found = zip(samples.key, zip(*columns, strict=True), strict=True)
        return sum(labels.get(key, label) != label for key, label in found)


class _Pending:
    """Iterates over the videos that no concurrent run has finished meanwhile.

    Concurrent runs are detected by file identity alone: a part that is new or another
    file, or a row of a cache that has been merged since. Runs start at different
    places of the list, so that they meet where the other's work is done; only what
    both had in hand then is computed twice, to the same bytes.
    """

    def __init__(
        self, cache: Path, todo: Sequence[Video], extractor: Extractor
    ) -> None:
        """Note the identity of the parts and the cache that exist now."""
        #: How many videos other runs have finished.
        self.elsewhere = 0
        #: Probes of the sources of the videos that were taken, by key.
        self.probes: dict[str, str] = {}
        self._cache, self._todo, self._extractor = cache, todo, extractor
        self._parts = {v.key: _identity(part_path(cache, v.key)) for v in todo}
        self._merged = _identity(cache)
        self._old_rows = self._rows()
        self._new_keys: set[str] = set()

    def __iter__(self) -> Iterator[Video]:
        # The golden ratio spreads the starts of any number of processes evenly.
        start = int(len(self._todo) * (os.getpid() * 0.618034 % 1))
        for video in (*self._todo[start:], *self._todo[:start]):
            if self._finished_elsewhere(video.key):
                self.elsewhere += 1
                continue
            # Probe before reading: a file replaced meanwhile is noticed next time.
            self.probes[video.key] = ""
            with suppress(AqaError):
                self.probes[video.key] = source_probe(self._extractor.source(video))
            yield video

    def _finished_elsewhere(self, key: str) -> bool:
        if _identity(part_path(self._cache, key)) not in (None, self._parts[key]):
            return True
        if (merged := _identity(self._cache)) != self._merged:
            self._merged = merged
            self._new_keys = {row for row, _ in self._rows() - self._old_rows}
        return key in self._new_keys

    def _rows(self) -> set[tuple[str, str]]:
        """Return key and feature digest of each row of the cache, if there is one."""
        if self._merged is None:
            return set()
        with FeatureCache.open(self._cache) as cache:
            samples = cache.samples
            return set(zip(samples.key, samples.feature_sha256, strict=True))


def _identity(path: Path) -> tuple[int, int] | None:
    """Return inode and modification time of a file; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _sample(video: Video, extracted: Extracted, probe: str) -> Sample:
    notes = (extracted.damage, *extracted.notes)
    return Sample(
        key=video.key,
        action=video.action,
        split=video.split,
        score=video.score,
        frames=extracted.frames,
        source_sha256=extracted.source_sha256,
        damage=brief("; ".join(filter(None, notes)), MAX_NOTES),
        source_probe=probe,
        extra=video.extra,
        rate=extracted.rate or 0.0,
    )


def _written_at(cache: Path, key: str) -> int:
    """Return when the file that holds a finished video's features was written."""
    for path in (part_path(cache, key), cache):
        with suppress(OSError):
            return path.stat().st_mtime_ns
    return time.time_ns()  # merged a moment ago


def _all_accounted_for(
    cache: Path, videos: Iterable[Video], known: frozenset[str]
) -> bool:
    """Return whether every video is in `known`, has a part or a row of the cache."""
    rest = {video.key for video in videos} - known
    missing = {key for key in rest if not part_path(cache, key).is_file()}
    if missing and cache.exists():
        # Another run may have merged meanwhile.
        with FeatureCache.open(cache) as merged:
            missing.difference_update(merged.samples.key)
    return not missing


class FailureLog:
    """The failures of one cache, on disk."""

    def __init__(self, cache: Path) -> None:
        """Open nothing yet."""
        self._cache = cache

    def record(self, video: Video, error: AqaError) -> Failure:
        """Record a failure where later runs and other shards find it."""
        failure = Failure(video.key, str(video.path), str(error))
        make_folder(self._cache.parent)
        # A merge removes temporary files from the folder of parts.
        with locked(self._cache, shared=True):
            write_file(self._path(video.key), _as_json(asdict(failure)))
        return failure

    def clear(self, key: str) -> None:
        """Remove the record of a video, if there is one."""
        remove(self._path(key))

    def among(self, videos: Iterable[Video]) -> dict[str, Failure]:
        """Return the recorded failures among the videos, by key, in their order."""
        found = {}
        for video in videos:
            # Ignore files that are torn or of another version.
            with suppress(OSError, ValueError, TypeError):
                text = self._path(video.key).read_text(encoding="utf-8")
                found[video.key] = Failure(**json.loads(text))
        return found

    def write_list(self, failures: Iterable[Failure]) -> None:
        """Replace this cache's entries in `failures.json`; remove it when empty."""
        path, name = self._cache.with_name("failures.json"), self._cache.name
        make_folder(path.parent)
        with locked(path, needed=False):
            records = [record for record in _listed(path) if record["cache"] != name]
            records += [{"cache": name, **asdict(failure)} for failure in failures]
            if records:
                write_file(path, _as_json(records))
            else:
                remove(path)
        # Without locks, the temporary files of killed runs have to stay.
        with suppress(AqaError), locked(path):
            remove_orphans(path.parent, path.name)

    def _path(self, key: str) -> Path:
        return part_path(self._cache, key).with_suffix(".failed")


def _listed(path: Path) -> list[dict[str, str]]:
    """Return the entries of `failures.json` that name a cache."""
    with suppress(OSError, ValueError, TypeError):
        listed = json.loads(path.read_text(encoding="utf-8"))
        return [each for each in listed if isinstance(each, dict) and "cache" in each]
    return []


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
