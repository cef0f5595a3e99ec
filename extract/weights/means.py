"""Mean files: what training subtracted from every clip, as a volume.

Conventions: a mean volume is float32 (3, L, H, W) in the channel order of the
network (Caffe's files: B, G, R), grey levels 0-255. `Preprocessing.with_mean_cube`
makes it the mean of a preset: averaged over L, cropped.

Files: `.binaryproto`, a BlobProto of either generation, and `.npy`, (3, L, H, W) or
with a leading axis of 1. A volume stored as (L, 3, H, W) is refused and not guessed
at: reading C3D's as that is a known way to lose accuracy without a word.
"""

import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aqa.cache.errors import AqaError, brief
from aqa.cache.npy import read_npy
from aqa.extract.weights.caffe import read_blob
from aqa.extract.weights.kinds import WeightsError, kind_of

#: Numbers in the largest mean that is read: far more than a clip has.
MOST = 1 << 26


def read_mean(path: Path) -> NDArray[np.float32]:
    """Read a mean volume (3, L, H, W).

    Raises:
        WeightsError: if the file is none, or has other axes, or numbers that no
            grey levels average to.
    """
    kind = kind_of(path)
    if kind not in ("npy", "caffe"):
        raise WeightsError(f"{path}: expected .binaryproto or .npy, found {kind}")
    try:
        volume = read_npy(path, MOST) if kind == "npy" else _read_binaryproto(path)
    except AqaError as error:
        raise WeightsError(str(error)) from error
    shape = volume.shape
    while volume.ndim > 4 and volume.shape[0] == 1:
        volume = volume[0]  # (1, 3, L, H, W) -> (3, L, H, W)
    if volume.ndim == 3:
        volume = volume[:, None]  # (3, H, W) -> (3, 1, H, W)
    if volume.ndim != 4 or volume.shape[0] != 3:
        raise WeightsError(
            f"{path}: expected a mean of shape (3, frames, rows, columns), found "
            f"{shape}; transpose it if its channels are elsewhere"
        )
    if volume.size > MOST:
        raise WeightsError(f"{path}: {shape} is far larger than a clip")
    values = volume.astype(np.float32)
    if not (np.isfinite(values).all() and 0 <= values.min() <= values.max() <= 255):
        raise WeightsError(f"{path}: expected grey levels 0-255, found others")
    return values


def _read_binaryproto(path: Path) -> NDArray[np.floating]:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return read_blob(memoryview(mapped)).array()
    except AqaError as error:
        raise WeightsError(f"{path}: not a Caffe mean ({brief(error)})") from None
