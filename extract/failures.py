"""Videos without features: recorded until they have some, and listed for the user.

Conventions: each failure is a JSON file in the folder of parts, named like the video's
part, so that shards see each other's failures. `failures.json` beside the cache lists
them in the order of the data set and is absent when there are none. Caches in one
folder share it; each entry names its cache.
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
    """A video without features, and why."""

    key: str
    path: str
    reason: str


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
            _write(self._path(video.key), asdict(failure))
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
                _write(path, records)
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


def _write(path: Path, record: Any) -> None:
    text = json.dumps(record, indent=2) + "\n"
    with replacing(path) as descriptor, os.fdopen(os.dup(descriptor), "w") as file:
        file.write(text)
