"""Looking for damage in a cache and its parts, byte by byte.

Conventions: a problem is one line that names the file and, where it is known, the
sample. What is checked: format, types, order and uniqueness of keys, labels, the
checksum and SHA-256 of every sample's features, their being finite, the digest of the
provenance, and that parts and cache have one provenance and shape.
"""

import os
from pathlib import Path

from aqa.cache.errors import AqaError
from aqa.cache.parts import list_parts, parts_folder, read_part
from aqa.cache.progress import Progress, silent
from aqa.cache.store import FeatureCache
from aqa.cache.union import Union


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
