"""Hostile weight files and means: every known format, spoilt, and code in pickles."""

import io
import pickle
from functools import partial

import numpy as np
import test_weights
import torch

from aqa.extract.weights.load import inspect, load_weights, read_mean
from soak.hostile import Canary, Reader, attack_readers
from soak.tally import Attack


def run(attack: Attack) -> None:
    folder = attack.folder / "weights"
    folder.mkdir()
    canary, path = Canary(folder), folder / "weights"
    files = seeds(folder, canary)

    def load() -> None:
        inspect(path)
        load_weights(str(path))

    means = [saved(np.zeros((3, 4, 5, 6), "f")), saved(np.array([canary.bomb]))]
    mean = folder / "mean.npy"
    readers = [
        Reader(name, partial(attack.rng.choice, content), path.write_bytes, load)
        for name, content in files.items()
    ]
    readers.append(
        Reader(
            "weights: mean.npy",
            lambda: attack.rng.choice(means),
            mean.write_bytes,
            lambda: read_mean(mean),
        )
    )
    attack_readers(attack, canary, readers)


def seeds(folder, canary: Canary) -> dict[str, list[bytes]]:
    """Files by format; some of the pickles hold the canary's bomb."""
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal(shape).astype("f")
        for name, shape in test_weights.TINY.shapes().items()
    }
    files: dict[str, list[bytes]] = {}
    for name, (write, _) in test_weights.FORMATS.items():
        write(folder / "seed", arrays)
        content = (folder / "seed").read_bytes()
        kind = "safetensors" if "safetensors" in name else "torch"
        kind = "caffemodel" if "caffe" in name else kind
        files.setdefault(f"weights: {kind}", []).append(content)
    bombs = [pickle.dumps({"conv1a": canary.bomb}, n) for n in range(6)]
    state = {k: torch.from_numpy(v) for k, v in arrays.items()} | {"x": canary.bomb}
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=zipped)
        bombs.append(file.getvalue())
    return files | {"weights: pickles with code": bombs}


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()
