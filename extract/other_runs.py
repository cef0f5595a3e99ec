"""What other runs on the same cache have finished since this one made its plan.

Conventions: only what lies on disk tells. A part that was not there, or was another
one, is news; so is a row of a cache that has been merged meanwhile. Runs begin at
different places of the same list, so that they meet where the other's work is done:
then the rest is left to whoever finished it, and only what both had in hand when
they met is computed twice, to the same bytes.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from aqa.cache.parts import part_path
from aqa.cache.store import FeatureCache
from aqa.extract.datasets.dataset import Video

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
