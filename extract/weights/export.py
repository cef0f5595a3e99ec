"""Weights written down for good: safetensors, verified, with their preset inside.

Conventions: the file holds the parameters up to FC-6 as float32 under Caffe's
names, and the stamp (see `weight_stamp.py`) as its only metadata, so that the same
weights always make the same bytes. It appears under its name when it is whole and
has been read back, and not before.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from aqa.cache.replacement import replacing
from aqa.extract.weights.loaded import Weights, WeightsError, load_weights
from aqa.extract.weights.stamp import KEY, MEAN_IMAGE, Stamp, state_digest


def convert(
    path: Path,
    out: Path,
    *,
    preprocessing: str | None = None,
    pool5: str | None = None,
    mean: Path | None = None,
) -> Weights:
    """Make a weights file of any known format a safetensors file of ours.

    Args:
        path: as for `load_weights`, and the options likewise: what is chosen here
            is what the new file brings by itself.
        out: the file to write.

    Returns:
        The weights as they were read back from `out`.
    """
    weights = load_weights(path, preprocessing=preprocessing, pool5=pool5, mean=mean)
    return save_weights(weights, out)


def save_weights(
    weights: Weights, out: Path, notes: Mapping[str, Any] | None = None
) -> Weights:
    """Write weights to `out` and read them back.

    Args:
        weights: their digest is not used: the file's own takes its place.
        out: the file to write.
        notes: in place of the weights' own.

    Raises:
        AqaError: if the file cannot be written, or reads back as other weights.
    """
    stamp = Stamp(
        name=weights.name,
        arch=weights.arch,
        pool5=weights.pool5,
        preprocessing=weights.preprocessing,
        origin=weights.origin,
        state_sha256=state_digest(weights.state),
        notes=weights.notes if notes is None else notes,
    )
    tensors = dict(weights.state)
    if isinstance(weights.preprocessing.mean, np.ndarray):
        tensors[MEAN_IMAGE] = torch.from_numpy(weights.preprocessing.mean)
    written = weights

    def read_back(path: Path) -> None:
        nonlocal written
        written = load_weights(path)  # checks every number by the stamp's digest
        if (written.preprocessing, written.pool5) != (stamp.preprocessing, stamp.pool5):
            raise WeightsError(f"{out}: what was written reads back as another preset")

    with (
        replacing(out, read_back) as descriptor,
        os.fdopen(descriptor, "wb", closefd=False) as file,
    ):
        file.write(save(tensors, metadata={KEY: stamp.json()}))
    return written
