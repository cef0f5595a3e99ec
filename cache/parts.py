"""Samples from several files as one sorted whole, before it is written.

Conventions: a copy is one sample as one file holds it; copies of a key must be the
same in labels, origin and features, and the first that can be read sound is taken.
Provenance and shape (offsets, clips, D) are those of the first file.

Finished videos, one file each, until they are merged into the cache.

Conventions: the part of a video is `<cache>.parts/<SHA-256 of its key>.h5`, a cache
of one sample (see store.py), there whole or not at all. A video is finished when its
part, or its row in the cache, is sound; a damaged one counts as never done and is
written over; one that cannot be read (UnreadableFile) stops everything, and stays.
Any number of processes, on one machine or several, may write parts of one cache at
once. The first part says what all are made with.

Looking for damage in a cache and its parts, byte by byte.

Conventions: a problem is one line that names the file and, where it is known, the
sample. What is checked: format, types, order and uniqueness of keys, labels, the
checksum and SHA-256 of every sample's features, their being finite, the digest of the
provenance, and that parts and cache have one provenance and shape.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError, UnreadableFile, raise_any
from aqa.cache.files import lock_of, locked, make_folder, remove, remove_orphans
from aqa.cache.provenance import Provenance, require_same
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache, Features, write_cache


@dataclass(frozen=True)
class Copy:
    """A sample in the file `where`; `read` returns its features or raises AqaError."""

    sample: Sample
    feature_sha256: str
    where: Path
    read: Callable[[], Features]


class Union:
    """What is to be merged: `agree` for every file, `add` for every copy in it."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._copies: dict[str, list[Copy]] = {}
        self._conflicts: list[str] = []
        self._provenance: Provenance | None = None
        self._shape: tuple[int, ...] = ()

    def agree(
        self, where: Path, provenance: Provenance, shape: tuple[int, ...]
    ) -> None:
        """Raise unless the file has the provenance and shape of those before it."""
        if self._provenance is None:
            self._provenance, self._shape = provenance, shape
        require_same(provenance, self._provenance, str(where))
        if shape != self._shape:
            raise AqaError(
                f"{where}: samples of shape {shape}; others have {self._shape}"
            )

    def add(self, copy: Copy, *, older: bool = False) -> None:
        """Take a copy in; an `older` one gives way where it is damaged or outdated."""
        held = self._copies.setdefault(copy.sample.key, [])
        if held:
            first = held[0]
            if older and first.sample.source_sha256 != copy.sample.source_sha256:
                return
            differences = first.sample.differences(copy.sample)
            if first.feature_sha256 != copy.feature_sha256:
                differences.append("features")
            if differences:
                if older and not is_sound(copy.read):
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
        chosen = sorted(self._copies)
        samples = [self._copies[key][0].sample for key in chosen]
        write_cache(path, samples, self._read(chosen, progress), self._provenance)
        progress(len(chosen), len(chosen), str(path))

    def _read(self, keys: list[str], progress: Progress) -> Iterator[Features]:
        for done, key in enumerate(keys):
            progress(done, len(keys), key)
            yield _first_sound(self._copies[key])


def _first_sound(copies: list[Copy]) -> Features:
    for copy in copies[:-1]:
        with suppress(AqaError):
            return copy.read()
    return copies[-1].read()


def is_sound(read: Callable[[], Features]) -> bool:
    """Tell whether features can be read sound; UnreadableFile where nobody can."""
    try:
        read()
    except UnreadableFile:
        raise
    except AqaError:
        return False
    return True


_PART = re.compile(r"[0-9a-f]{64}\.h5")


class Part(NamedTuple):
    """One finished video, read whole and proven: features (offsets, clips, D)."""

    sample: Sample
    features: Features
    feature_sha256: str
    provenance: Provenance


def parts_folder(cache: Path | str) -> Path:
    """Return the folder that holds the parts of `cache`."""
    return Path(f"{cache}.parts")


def part_path(cache: Path | str, key: str) -> Path:
    """Return where the part of the video `key` lies; its name gives nothing away."""
    return parts_folder(cache) / f"{hashlib.sha256(key.encode()).hexdigest()}.h5"


def write_part(
    cache: Path | str, sample: Sample, features: Features, provenance: Provenance
) -> Path:
    """Store one finished video, float32 (offsets, clips, D); durable on return.

    Replaces an older part of the same key. Waits while the cache is being merged, or
    its first part written. Raises ProvenanceMismatch where there are other features,
    and AqaError as `write_cache` does.
    """
    cache = Path(cache)
    folder, path = parts_folder(cache), part_path(cache, sample.key)
    make_folder(cache.parent)
    other = next(_parts(folder), None)
    with locked(cache, shared=other is not None, needed=False):
        other = other or next(_parts(folder), None)
        for there in (path, other, cache):
            if there and (found := _made_with(there)):
                require_same(found, provenance, str(there))
                break
        return write_cache(path, [sample], [features], provenance)


def list_parts(folder: Path) -> list[Path]:
    """List the parts that lie in `folder`, sorted; none where there is no folder.

    Raises UnreadableFile where the system does not let us look.
    """
    return sorted(_parts(folder))


def _parts(folder: Path) -> Iterator[Path]:
    # Not `glob`, which lists a whole folder before it gives the first.
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _PART.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    yield folder / entry.name
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UnreadableFile(f"{folder}: cannot be read: {error.strerror}") from error


def _made_with(path: Path) -> Provenance | None:
    """Return what a cache was made with, None where there is no sound one."""
    try:
        with FeatureCache.open(path) as found:
            return found.provenance
    except UnreadableFile:
        raise
    except AqaError:
        return None


def read_part(path: Path) -> Part:
    """Read a part; AqaError unless it is sound and named after its key."""
    with FeatureCache.open(path) as part:
        if len(part.samples) != 1:
            raise AqaError(f"{path}: a part of {len(part.samples)} samples, not one")
        sample = part.samples[0]
        if part_path("", sample.key).name != path.name:
            raise AqaError(f"{path}: the part of {sample.key!r} under another's name")
        digest = part.samples.feature_sha256[0]
        return Part(sample, part.read_sound(0), digest, part.provenance)


def finished(cache: Path | str, provenance: Provenance) -> dict[str, str]:
    """Map the key of every finished video to the SHA-256 of its video file.

    Looks at the parts and the cache, reads all their features, changes nothing. Raises
    ProvenanceMismatch when any was made with another provenance, UnreadableFile when
    any cannot be read, and AqaError when the cache itself cannot be opened.
    """
    done: dict[str, str] = {}
    # Parts first: what a merge moves away meanwhile is then found in the cache.
    for path in list_parts(parts_folder(cache)):
        try:
            part = read_part(path)
        except UnreadableFile:
            raise
        except AqaError:
            continue
        require_same(part.provenance, provenance, str(path))
        done[part.sample.key] = part.sample.source_sha256
    if Path(cache).exists():
        with FeatureCache.open(cache) as merged:
            require_same(merged.provenance, provenance, str(cache))
            for row, key in enumerate(merged.samples.key):
                if key not in done and is_sound(partial(merged.read_sound, row)):
                    done[key] = merged.samples.source_sha256[row]
    return done


def merge(
    cache: Path | str, sources: Sequence[Path | str] = (), progress: Progress = silent
) -> Path:
    """Merge into `cache` its own parts and `sources`: other caches, folders of parts.

    One sample is held at a time. The new cache replaces the old one whole; once that
    is durable, the cache's own parts go (sources stay). Waits for other merges and for
    parts being written. A part that comes from another video file than the cache's
    row, or whose row is damaged, takes its place; any other two copies of a key must
    be the same.

    Raises ProvenanceMismatch, or AqaError naming both files of every conflict, and
    leaves the cache as it was. Damaged parts of the cache are named and removed: the
    next extraction makes them anew, the next merge goes on without. One that cannot
    be read ends in UnreadableFile, and nothing is removed.
    """
    cache, folder = Path(cache), parts_folder(cache)
    others = [
        Path(source)
        for source in sources
        if Path(source).resolve() not in (cache.resolve(), folder.resolve())
    ]
    left = folder.exists() or lock_of(cache).exists()
    if cache.exists() and not left and not others:
        return cache
    make_folder(cache.parent)
    with locked(cache), ExitStack() as opened:
        remove_orphans(cache.parent, cache.name)
        remove_orphans(folder)
        own = list_parts(folder)
        union = Union()
        if damaged := _add_parts(union, own):
            for path in damaged:
                remove(path)
            raise_any(
                list(damaged.values()),
                "Removed: extract again to make them anew, or merge without them",
            )
        if cache.exists():
            _add_cache(union, opened.enter_context(FeatureCache.open(cache)), True)
        for other in others:
            if other.is_dir():
                if not (found := list_parts(other)):
                    raise AqaError(f"{other}: a folder without parts")
                raise_any(list(_add_parts(union, found).values()))
            else:
                _add_cache(union, opened.enter_context(FeatureCache.open(other)))
        if own or others or not cache.exists():
            union.write(cache, progress)
        # A part that cannot be removed is only merged once more.
        for path in own:
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            folder.rmdir()
    return cache


def _add_parts(union: Union, paths: Sequence[Path]) -> dict[Path, str]:
    """Add the sound ones; return the others, each with what is wrong with it."""
    damaged = {}
    for path in paths:
        try:
            part = read_part(path)
        except UnreadableFile:
            raise
        except AqaError as error:
            damaged[path] = str(error)
            continue
        union.agree(path, part.provenance, part.features.shape)
        reread = partial(_reread, path, part.feature_sha256)
        union.add(Copy(part.sample, part.feature_sha256, path, reread))
    return damaged


def _reread(path: Path, feature_sha256: str) -> Features:
    part = read_part(path)
    if part.feature_sha256 != feature_sha256:
        raise AqaError(f"{path}: changed while it was merged; merge again")
    return part.features


def _add_cache(union: Union, cache: FeatureCache, older: bool = False) -> None:
    union.agree(cache.path, cache.provenance, cache.shape[1:])
    for row, digest in enumerate(cache.samples.feature_sha256):
        read = partial(cache.read_sound, row)
        copy = Copy(cache.samples[row], digest, cache.path, read)
        union.add(copy, older=older)


def verify(path: Path | str, progress: Progress = silent) -> list[str]:
    """List all problems of the cache at `path` and of its parts; none when sound.

    Changes nothing. Raises AqaError when there is neither a cache nor a part.
    """
    path = Path(path)
    parts = list_parts(parts_folder(path))
    if not path.exists() and not parts:
        raise AqaError(f"{path}: no cache, and no parts of one")
    union, problems, count = Union(), list[str](), 0
    if path.exists():
        try:
            with FeatureCache.open(path) as cache:
                union.agree(path, cache.provenance, cache.shape[1:])
                count = len(cache.samples)
                for row, key in enumerate(cache.samples.key):
                    progress(row, count + len(parts), key)
                    try:
                        cache.read_sound(row)
                    except AqaError as error:
                        problems.append(str(error))
        except AqaError as error:
            problems.append(str(error))
    for done, path in enumerate(parts, count):
        progress(done, count + len(parts), path.name)
        try:
            part = read_part(path)
            union.agree(path, part.provenance, part.features.shape)
        except AqaError as error:
            # A merge may have moved it into the cache meanwhile.
            if os.path.lexists(path):
                problems.append(str(error))
    progress(count + len(parts), count + len(parts), "verified")
    return problems
