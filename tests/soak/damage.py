"""Damage to parts and to the cache: named by `verify`, or harmless; and done again.

Harmless is what changes nothing that can be read: HDF5 pads, and keeps addresses of
what is not there.
"""

import shutil
from pathlib import Path

from aqa.cache.errors import AqaError
from aqa.cache.parts import list_parts, parts_folder, verify
from aqa.cache.store import FeatureCache
from soak.extraction import fill, snapshot
from soak.mutation import overwrite
from soak.tally import Attack

PART, CACHE = "damaged part", "damaged cache"


def run(attack: Attack) -> None:
    attack.folder.joinpath("golden").mkdir()
    merged = attack.folder / "golden" / "features.h5"
    fill(merged, lambda key: None)
    golden = snapshot(merged.parent)
    parts = attack.folder / "parts" / "features.h5"
    fill(parts, lambda key: None, (0, 2))  # a shard does not merge
    pristine = snapshot(parts.parent)
    place = attack.folder / "damaged"
    while not attack.over:
        attempt(attack, PART, place, pristine, golden)
        attempt(attack, CACHE, place, golden, golden)


def attempt(attack, kind, place: Path, before, golden) -> None:
    """Damage one file of `before`, look, extract again, and compare."""
    row, cache = attack.rows[kind], place / "features.h5"
    restore(place, before)
    hurt = attack.rng.choice(list_parts(parts_folder(cache)) or [cache])
    content = overwrite(hurt.read_bytes(), attack.rng)
    hurt.write_bytes(content)
    row.tried += 1
    try:
        named = any(str(hurt) in problem for problem in verify(cache))
        if not named and not same(hurt, before, place):
            row.missed += 1
            attack.lose(kind, "taken for sound", content)
        try:
            fill(cache, lambda key: None)
            again = snapshot(place) == golden
        except AqaError:
            # A cache that cannot be opened is for the user to put away.
            again = kind == CACHE and hurt.read_bytes() == content
        if kind == CACHE and not again and verify(cache) == []:
            again = same(cache, golden, place)  # padding stays as it was
        if not again:
            attack.lose(kind, "not made anew as it was", content)
        elif named:
            row.held += 1
        else:
            row.harmless += 1
    except Exception as error:
        attack.lose(kind, f"{type(error).__name__}: {error}", content)
    shutil.rmtree(place)


def restore(place: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)


def same(path: Path, files: dict[str, bytes], place: Path) -> bool:
    """Whether a cache reads as it did before it was damaged."""
    sound = path.with_name("sound.h5")
    sound.write_bytes(files[str(path.relative_to(place))])
    try:
        with FeatureCache.open(path) as one, FeatureCache.open(sound) as other:
            return (
                one.read().tobytes() == other.read().tobytes()
                and list(one.samples) == list(other.samples)
                and one.provenance == other.provenance
            )
    except AqaError:
        return False
    finally:
        sound.unlink()
