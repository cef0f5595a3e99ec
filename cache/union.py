"""Samples from several files as one sorted whole, before it is written.

Conventions: a copy is one sample as one file holds it; copies of a key must be the
same in labels, origin and features, and the first that can be read sound is taken.
Provenance and shape (offsets, clips, D) are those of the first file.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aqa.cache.errors import AqaError, UnreadableFile
from aqa.cache.problems import raise_any
from aqa.cache.progress import Progress
from aqa.cache.provenance import Provenance, require_same
from aqa.cache.samples import Sample
from aqa.cache.store import Features
from aqa.cache.writing import write_cache


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
