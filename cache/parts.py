"""Finished videos, one file each, until they are merged into the cache.

Conventions: the part of a video is `<cache>.parts/<SHA-256 of its key>.h5`, a cache
of one sample (see store.py), there whole or not at all; `provenance.json` beside the
parts says what all of them are made with. A video is finished when its part, or its
row in the cache, is sound; a damaged one is overwritten; one that cannot be read
(UnreadableFile) stops everything, and stays. Any number of processes, on one machine
or several, may write parts of one cache at once. Features are hashed and checked once
when they are stored and once when they are merged.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from aqa.cache.console import Progress, silent
from aqa.cache.errors import (
    AqaError,
    ProvenanceMismatch,
    UnreadableFile,
    raise_any,
)
from aqa.cache.files import (
    lock_of,
    locked,
    make_folder,
    remove,
    remove_orphans,
    write_file,
)
from aqa.cache.provenance import Provenance, require_same
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache, Features, write_cache

Result = TypeVar("Result")

_PART = re.compile(r"[0-9a-f]{64}\.h5")
_PROVENANCE = "provenance.json"
_PROBE = attrgetter("source_probe")


def parts_folder(cache: Path | str) -> Path:
    """Return the folder that holds the parts of `cache`."""
    return Path(f"{cache}.parts")


def part_path(cache: Path | str, key: str) -> Path:
    """Return the path of the part of the video `key`."""
    return parts_folder(cache) / f"{hashlib.sha256(key.encode()).hexdigest()}.h5"


def list_parts(folder: Path) -> list[Path]:
    """List the parts in `folder`, sorted; none where there is no folder.

    Raises UnreadableFile where the folder cannot be read.
    """
    return sorted(_parts(folder))


def _parts(folder: Path) -> Iterator[Path]:
    # Not `glob`, which lists a whole folder before it gives the first.
    with _noticing_refusal(folder), os.scandir(folder) as entries:
        for entry in entries:
            if _PART.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                yield folder / entry.name


@contextmanager
def _noticing_refusal(path: Path) -> Iterator[None]:
    """Raise UnreadableFile where the system refuses a path that is there."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise UnreadableFile(f"{path}: cannot be read: {error.strerror}") from error


@contextmanager
def open_part(path: Path) -> Iterator[FeatureCache]:
    """Open a part; AqaError unless it holds one sample and is named after its key."""
    with FeatureCache.open(path) as part:
        if len(part.samples) != 1:
            raise AqaError(f"{path}: a part of {len(part.samples)} samples, not one")
        key = part.samples.key[0]
        if part_path("", key).name != path.name:
            raise AqaError(f"{path}: the part of {key!r} under another's name")
        yield part


def write_part(
    cache: Path | str, sample: Sample, features: Features, provenance: Provenance
) -> Path:
    """Store one finished video, float32 (offsets, clips, D); durable on return.

    Replaces an older part of the same key. Waits while the cache is being merged, or
    its first part written. ProvenanceMismatch where there are other features.
    """
    cache = Path(cache)
    make_folder(cache.parent)
    same = _recorded_provenance(cache) == provenance
    with locked(cache, shared=same, needed=False):
        if not same:
            _record_provenance(cache, provenance)
        return write_cache(
            part_path(cache, sample.key), [sample], [features], provenance
        )


def _recorded_provenance(cache: Path) -> Provenance | None:
    """Return what the parts of `cache` are made with, None where no sound file says."""
    path = parts_folder(cache) / _PROVENANCE
    with _noticing_refusal(path), suppress(ValueError):
        return Provenance.parse(path.read_text(encoding="utf-8"))
    return None


def _record_provenance(cache: Path, provenance: Provenance) -> None:
    """Record what the parts are made with; ProvenanceMismatch where others exist.

    The exclusive lock must be held. Folders without a record, as aqa 0.1 left them,
    are asked for their first part.
    """
    folder = parts_folder(cache)
    part = next(_parts(folder), None)
    found, where = (_recorded_provenance(cache) if part else None), folder / _PROVENANCE
    for path in (part, cache):
        if found is None and path is not None:
            found, where = _unless_damaged(partial(_made_with, path)), path
    if found is not None:
        require_same(found, provenance, str(where))
    write_file(folder / _PROVENANCE, provenance.json.encode())


def _made_with(path: Path) -> Provenance:
    with FeatureCache.open(path) as found:
        return found.provenance


def _unless_damaged(read: Callable[[], Result]) -> Result | None:
    """Return what is read, None where it is damaged or missing.

    UnreadableFile is passed on: the file may be sound.
    """
    try:
        return read()
    except UnreadableFile:
        raise
    except AqaError:
        return None


def finished(cache: Path | str, provenance: Provenance) -> dict[str, Sample]:
    """Map the key of every finished video to its sample.

    Looks at the parts and the cache, reads all their features, changes nothing. Raises
    ProvenanceMismatch when any was made with another provenance, UnreadableFile when
    any cannot be read, and AqaError when the cache itself cannot be opened.
    """
    done: dict[str, Sample] = {}
    # Parts first: what a merge moves away meanwhile is then found in the cache.
    for path in list_parts(parts_folder(cache)):
        if found := _unless_damaged(partial(_read_sound_part, path)):
            sample, made_with = found
            require_same(made_with, provenance, str(path))
            done[sample.key] = sample
    if Path(cache).exists():
        with FeatureCache.open(cache) as merged:
            require_same(merged.provenance, provenance, str(cache))
            for row, sample in enumerate(merged.samples):
                read = partial(merged.read_sound, row)
                if sample.key not in done and _unless_damaged(read) is not None:
                    done[sample.key] = sample
    return done


def _read_sound_part(path: Path) -> tuple[Sample, Provenance]:
    with open_part(path) as part:
        part.read_sound(0)
        return part.samples[0], part.provenance


@dataclass(frozen=True)
class _Copy:
    """A sample in a file."""

    sample: Sample
    feature_sha256: str
    where: Path
    read: Callable[[], Features]


class _Contents:
    """The samples to merge, from files of one provenance and shape."""

    def __init__(self) -> None:
        self._copies: dict[str, list[_Copy]] = {}
        self._conflicts: list[str] = []
        self._provenance: Provenance | None = None
        self._shape: tuple[int, ...] = ()

    def agree(self, file: FeatureCache) -> None:
        """Raise unless the file has the provenance and shape of those before it."""
        shape = file.shape[1:]
        if self._provenance is None:
            self._provenance, self._shape = file.provenance, shape
        require_same(file.provenance, self._provenance, str(file.path))
        if shape != self._shape:
            raise AqaError(
                f"{file.path}: samples of shape {shape}; others have {self._shape}"
            )

    def add_cache(self, cache: FeatureCache, *, older: bool = False) -> None:
        """Add every row of an open cache; see `_add` for `older`."""
        self.agree(cache)
        for row, digest in enumerate(cache.samples.feature_sha256):
            read = partial(cache.read_sound, row)
            self._add(_Copy(cache.samples[row], digest, cache.path, read), older)

    def add_own_parts(self, paths: Sequence[Path]) -> None:
        """Add parts of the cache itself; damaged ones are removed, and an AqaError."""
        damaged: dict[Path, str] = {}
        for path in paths:
            try:
                with open_part(path) as part:
                    part.read_sound(0)  # under the lock it stays so
                    self._add_part(part, partial(_read_own_part, path))
            except (UnreadableFile, ProvenanceMismatch):
                raise
            except AqaError as error:
                damaged[path] = str(error)
        for path in damaged:
            remove(path)
        advice = "Removed: extract again to make them anew, or merge without them"
        raise_any(list(damaged.values()), advice)

    def add_folder(self, folder: Path) -> None:
        """Add the parts in a folder; AqaError where there are none."""
        if not (paths := list_parts(folder)):
            raise AqaError(f"{folder}: a folder without parts")
        for path in paths:
            with open_part(path) as part:
                digest = part.samples.feature_sha256[0]
                self._add_part(part, partial(_read_part, path, digest))

    def _add_part(self, part: FeatureCache, read: Callable[[], Features]) -> None:
        self.agree(part)
        digest = part.samples.feature_sha256[0]
        self._add(_Copy(part.samples[0], digest, part.path, read))

    def _add(self, copy: _Copy, older: bool = False) -> None:
        """Add a copy; an `older` one gives way where it is damaged or outdated."""
        held = self._copies.setdefault(copy.sample.key, [])
        if held:
            first = held[0]
            if older and first.sample.source_sha256 != copy.sample.source_sha256:
                return
            differences = first.sample.differences(copy.sample)
            if first.feature_sha256 != copy.feature_sha256:
                differences.append("features")
            if differences:
                if older and _unless_damaged(copy.read) is None:
                    return
                self._conflicts.append(
                    f"{copy.sample.key}: {first.where} and {copy.where} "
                    f"differ in {', '.join(differences)}"
                )
        held.append(copy)

    def write(self, path: Path, progress: Progress) -> None:
        """Write all samples as the cache at `path`, reading one at a time."""
        raise_any(self._conflicts, "Remove one of each two")
        if self._provenance is None:
            raise AqaError(f"{path}: nothing to merge: there is no cache and no part")
        keys = sorted(self._copies)
        copies = [self._copies[key] for key in keys]

        def features() -> Iterator[Features]:
            for done, key in enumerate(keys):
                progress(done, len(keys), key)
                yield _first_sound(self._copies[key])

        write_cache(
            path,
            # Copies may differ in having a probe of their source or not.
            [max((copy.sample for copy in each), key=_PROBE) for each in copies],
            features(),
            self._provenance,
            [each[0].feature_sha256 for each in copies],
        )
        progress(len(keys), len(keys), str(path))


def _first_sound(copies: Sequence[_Copy]) -> Features:
    for copy in copies[:-1]:
        with suppress(AqaError):
            return copy.read()
    return copies[-1].read()


def _read_own_part(path: Path) -> Features:
    with open_part(path) as part:
        features: Features = part.read()[0]
        return features


def _read_part(path: Path, feature_sha256: str) -> Features:
    with open_part(path) as part:
        if part.samples.feature_sha256[0] != feature_sha256:
            raise AqaError(f"{path}: changed while it was merged; merge again")
        return part.read_sound(0)


def merge(
    cache: Path | str, sources: Sequence[Path | str] = (), progress: Progress = silent
) -> Path:
    """Merge into `cache` its own parts and `sources`: other caches, folders of parts.

    The new cache replaces the old one whole; once that is durable, the cache's own
    parts are removed (sources stay). Waits for other merges and for parts being
    written. A part that comes from another video file than the cache's row, or whose
    row is damaged, replaces it; any other two copies of a key must be the same, and
    the first that can be read sound is taken.

    Raises ProvenanceMismatch, or AqaError naming both files of every conflict, and
    leaves the cache as it was. Damaged parts of the cache are named and removed: the
    next extraction makes them anew, the next merge goes on without.
    """
    cache, folder = Path(cache), parts_folder(cache)
    known = (cache.resolve(), folder.resolve())
    others = [path for path in map(Path, sources) if path.resolve() not in known]
    left = folder.exists() or lock_of(cache).exists()
    if cache.exists() and not left and not others:
        return cache
    make_folder(cache.parent)
    with locked(cache):
        remove_orphans(cache.parent, cache.name)
        remove_orphans(folder)
        own = list_parts(folder)
        if own or others or not cache.exists():
            _merge(cache, own, others, progress)
        # A part that cannot be removed is merged once more.
        with suppress(OSError):
            for path in (*own, folder / _PROVENANCE):
                path.unlink(missing_ok=True)
            folder.rmdir()
    return cache


def _merge(
    cache: Path, own: Sequence[Path], others: Sequence[Path], progress: Progress
) -> None:
    contents = _Contents()
    with ExitStack() as opened:
        contents.add_own_parts(own)
        if cache.exists():
            old = opened.enter_context(FeatureCache.open(cache))
            contents.add_cache(old, older=True)
        for other in others:
            if other.is_dir():
                contents.add_folder(other)
            else:
                contents.add_cache(opened.enter_context(FeatureCache.open(other)))
        contents.write(cache, progress)


def verify(path: Path | str, progress: Progress = silent) -> list[str]:
    """List all problems of the cache at `path` and of its parts, one line each.

    Checked are labels, order of keys, digest and finiteness of every sample, and that
    parts and cache have one provenance and shape. AqaError when there is neither.
    """
    path = Path(path)
    parts = list_parts(parts_folder(path))
    if not path.exists() and not parts:
        raise AqaError(f"{path}: no cache, and no parts of one")
    contents, problems, count = _Contents(), list[str](), 0
    if path.exists():
        with _noting(problems), FeatureCache.open(path) as cache:
            contents.agree(cache)
            count = len(cache.samples)
            for row, key in enumerate(cache.samples.key):
                progress(row, count + len(parts), key)
                with _noting(problems):
                    cache.read_sound(row)
    for done, path in enumerate(parts, count):
        progress(done, count + len(parts), path.name)
        with _noting(found := list[str]()), open_part(path) as part:
            part.read_sound(0)
            contents.agree(part)
        # A merge may have moved it into the cache meanwhile.
        problems += found if os.path.lexists(path) else []
    progress(count + len(parts), count + len(parts), "verified")
    return problems


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except AqaError as error:
        problems.append(str(error))
