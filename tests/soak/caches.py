"""Hostile caches and models: links, lies about sizes, and bytes changed in them."""

import h5py
import numpy as np
import test_hdf5_checks

from aqa.cache.parts import verify
from aqa.cache.provenance import Provenance
from aqa.cache.store import FeatureCache
from aqa.regress.config import LstmConfig
from aqa.regress.data import LabelScale
from aqa.regress.heads.lstm import LstmHead, initial_parameters
from aqa.regress.heads.model_file import Model, load_model, save_model
from soak.hostile import Canary, Reader, attack_readers
from soak.tally import Attack


def run(attack: Attack) -> None:
    folder = attack.folder / "caches"
    folder.mkdir()
    canary = Canary(folder)
    path, model = folder / "features.h5", folder / "model.safetensors"
    sound, vile = cache_seeds(folder, canary)
    models = model_seeds(folder)

    def read_cache() -> None:
        verify(path)
        with FeatureCache.open(path) as cache:
            cache.read()

    def read_model() -> None:
        head = load_model(model).head
        width = head.arrays()["w_x"].shape[0]
        head.predict(np.ones((1, 2, width), np.float32))

    def any_of(seeds):
        return lambda: attack.rng.choice(seeds)

    write, other = path.write_bytes, model.write_bytes
    readers = [
        Reader("cache, bytes changed", any_of(sound), write, read_cache, spoil=1),
        Reader("cache, hostile by design", any_of(vile), write, read_cache, spoil=0.5),
        Reader("model file", any_of(models), other, read_model, spoil=1),
    ]
    attack_readers(attack, canary, readers)


def cache_seeds(folder, canary: Canary) -> tuple[list[bytes], list[bytes]]:
    """Sound caches, and those that the tests know to be hostile."""
    path = folder / "seed.h5"
    sound = [test_hdf5_checks.write(path, count).read_bytes() for count in (1, 3, 40)]
    vile = []
    for change, _ in test_hdf5_checks.HOSTILE.values():
        test_hdf5_checks.write(path)
        with h5py.File(path, "r+") as file:
            change(file, str(canary.secret))
        vile.append(path.read_bytes())
    path.unlink()
    return sound, vile


def model_seeds(folder) -> list[bytes]:
    path, made = folder / "seed.safetensors", []
    for hidden, width in ((1, 2), (3, 5)):
        start = initial_parameters(
            width, LstmConfig(hidden=hidden), np.random.default_rng()
        )
        head, provenance = LstmHead(start), Provenance({"features": "c3d"})
        scale = LabelScale("std", {"diving": 0.0}, {"diving": 2.0})
        save_model(path, Model(head, ("diving",), scale, provenance))
        made.append(path.read_bytes())
    return made
