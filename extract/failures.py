"""Videos without features: remembered until they have some, listed for the user.

Conventions: each failure is a JSON file in the folder of parts, named as the video's
part would be, so that shards see each other's. `failures.json` beside the cache is
their list, in the order of the data set, and is not there when there are none; caches
in one folder share it, and each has its name on its own.
"""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aqa.cache.errors import AqaError
from aqa.cache.files import locked, make_folder, remove, remove_orphans, replacing
from aqa.cache.parts import part_path
from aqa.extract.datasets.dataset import Video


@dataclass(frozen=True)
class Failure:
    """A video without features."""

    key: str
    path: str
    reason: str


class FailureLog:
    """The failures of one cache, on disk."""

    def __init__(self, cache: Path) -> None:
        """Look at nothing yet."""
        self._cache = cache

    def remember(self, video: Video, error: AqaError) -> Failure:
        """Leave word where the next run and the other shards find it."""
        failure = Failure(video.key, str(video.path), str(error))
        make_folder(self._cache.parent)
        # A merge clears the folder of parts of what is half written.
        with locked(self._cache, shared=True):
            _write(self._path(video.key), asdict(failure))
        return failure

    def forget(self, key: str) -> None:
        """Take back what was said of a video, if anything was."""
        remove(self._path(key))

    def of(self, videos: Iterable[Video]) -> dict[str, Failure]:
        """Failures among the videos, by key, in their order."""
        found = {}
        for video in videos:
            # Half a file cannot be; one of another version is as good as none.
            with suppress(OSError, ValueError, TypeError):
                text = self._path(video.key).read_text(encoding="utf-8")
                found[video.key] = Failure(**json.loads(text))
        return found

    def list_for_user(self, failures: Iterable[Failure]) -> None:
        """Put this cache's part of `failures.json` in place, or remove an empty one."""
        path, name = self._cache.with_name("failures.json"), self._cache.name
        make_folder(path.parent)
        with locked(path, needed=False):
            records = [record for record in _listed(path) if record["cache"] != name]
            records += [{"cache": name, **asdict(failure)} for failure in failures]
            if records:
                _write(path, records)
            else:
                remove(path)
        # Where there are no locks, what killed runs have left has to stay.
        with suppress(AqaError), locked(path):
            remove_orphans(path.parent, path.name)

    def _path(self, key: str) -> Path:
        return part_path(self._cache, key).with_suffix(".failed")


def _listed(path: Path) -> list[dict[str, str]]:
    """Read `failures.json`; what nobody signed is as good as not there."""
    with suppress(OSError, ValueError, TypeError):
        listed = json.loads(path.read_text(encoding="utf-8"))
        return [each for each in listed if isinstance(each, dict) and "cache" in each]
    return []


def _write(path: Path, record: Any) -> None:
    text = json.dumps(record, indent=2) + "\n"
    with replacing(path) as descriptor, os.fdopen(os.dup(descriptor), "w") as file:
        file.write(text)
