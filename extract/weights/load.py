"""Mean files: what training subtracted from every clip, as a volume.

Conventions: a mean volume is float32 (3, L, H, W) in the channel order of the
network (Caffe's files: B, G, R), grey levels 0-255. `Preprocessing.with_mean_cube`
makes it the mean of a preset: averaged over L, cropped.

Files: `.binaryproto`, a BlobProto of either generation, and `.npy`, (3, L, H, W) or
with a leading axis of 1. A volume stored as (L, 3, H, W) is refused and not guessed
at: reading C3D's as that is a known way to lose accuracy without a word.

Every public weight format of C3D, and our own, become one state dict.

Conventions: a state has exactly the parameters of its architecture, under Caffe's
names (`conv1a.weight` ... `fc6.bias`), float32, finite, shapes checked. Layers past
FC-6 are left aside, anything else that does not fit is refused and listed. Weights
bring the pre-processing and the last pooling that they were trained with; the
caller may override both.

A file's digest is of its bytes; that of `random` is of its numbers. `name` says
what the content is, not what the file is called, so that features stay the same
features when a file is renamed.

Weights written down for good: safetensors, verified, with their preset inside.

Conventions: the file holds the parameters up to FC-6 as float32 under Caffe's
names, and the stamp (see `weight_stamp.py`) as its only metadata, so that the same
weights always make the same bytes. It appears under its name when it is whole and
has been read back, and not before.
"""

import hashlib
import importlib.resources
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from aqa.cache.errors import AqaError, brief
from aqa.cache.files import replacing
from aqa.cache.tables import read_npy
from aqa.extract.c3d import ARCHITECTURES, POOL5, Architecture, random_state
from aqa.extract.preprocessing import PRESETS, Preprocessing
from aqa.extract.weights.caffe import read_blob
from aqa.extract.weights.formats import (
    KEY,
    MEAN_IMAGE,
    Stamp,
    Tensors,
    WeightsError,
    kind_of,
    open_tensors,
    state_digest,
)
from aqa.extract.weights.layouts import Layout, bare_names, match, origin_of, recognise

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


#: What random weights are of, where nobody says: the paper's network.
DEFAULT_ARCH = "c3d-small"


@dataclass(frozen=True)
class Weights:
    """A network's parameters and what they must be used with.

    `origin` says in words what the file was; `left_aside` names its parameters past
    FC-6; `notes` are those of the stamp, if it has one (recipe, accuracy).
    """

    state: Mapping[str, Tensor] = field(repr=False)
    arch: str
    name: str
    sha256: str
    preprocessing: Preprocessing
    pool5: str
    origin: str
    left_aside: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


def load_weights(
    spec: str | Path,
    arch: str | None = None,
    *,
    preprocessing: str | None = None,
    pool5: str | None = None,
    mean: Path | None = None,
) -> Weights:
    """Load weights, strictly.

    Args:
        spec: `random` or `random:SEED`, `tiny` (those that come with the package),
            or a file.
        arch: which network `random` is of; otherwise, what the file must hold.
        preprocessing: a name in `PRESETS` in place of the file's own.
        pool5: "ceil" or "padded" in place of the file's own.
        mean: a mean file (see `means.py`) in place of the preset's mean.

    Raises:
        WeightsError: saying what the file is, what is wrong, and what to do.
    """
    if arch is not None and arch not in ARCHITECTURES:
        raise WeightsError(f"arch: expected one of {_names()}, found {arch!r}")
    kind, _, seed = str(spec).partition(":")
    if kind == "random":
        weights = _random(seed, ARCHITECTURES[arch or DEFAULT_ARCH])
    elif str(spec) == "tiny":
        data = importlib.resources.files("aqa.extract") / "data" / "tiny.safetensors"
        with importlib.resources.as_file(data) as path:
            weights = _load_file(path)
    else:
        weights = _load_file(Path(spec))
    if arch not in (None, weights.arch):
        raise WeightsError(
            f"{spec} holds {weights.arch}, not {arch}; leave the architecture to the "
            "file, or pass another file"
        )
    return _override(weights, preprocessing, pool5, mean)


def _override(
    weights: Weights, preprocessing: str | None, pool5: str | None, mean: Path | None
) -> Weights:
    if preprocessing not in (None, *PRESETS):
        raise WeightsError(
            f"preprocessing: expected one of {', '.join(PRESETS)}, "
            f"found {preprocessing!r}"
        )
    if pool5 not in (None, *POOL5):
        raise WeightsError(f"pool5: expected one of {POOL5}, found {pool5!r}")
    chosen = PRESETS[preprocessing] if preprocessing else weights.preprocessing
    if mean is not None:
        chosen = chosen.with_mean_cube(read_mean(mean))
    return replace(weights, preprocessing=chosen, pool5=pool5 or weights.pool5)


def _random(seed: str, arch: Architecture) -> Weights:
    if seed and not (seed.isascii() and seed.isdigit() and len(seed) < 19):
        raise WeightsError(f"expected random or random:SEED, found random:{seed}")
    number = int(seed or 0)
    state = random_state(arch, number)
    return Weights(
        state=state,
        arch=arch.name,
        name=f"random:{number}",
        sha256=state_digest(state),
        preprocessing=PRESETS["c3d"],
        pool5="ceil",
        origin="He-normal weights that have learnt nothing",
    )


def _load_file(path: Path) -> Weights:
    with open_tensors(path, kind_of(path)) as tensors:
        try:
            return _from_tensors(path, tensors)
        except WeightsError as error:
            message = str(error)
            raise WeightsError(
                message if str(path) in message else f"{path}: {message}"
            ) from None


def _from_tensors(path: Path, tensors: Tensors) -> Weights:
    bare = bare_names(tensors.shapes)
    stamped = (tensors.metadata or {}).get(KEY)
    shapes = {name: tensors.shapes[theirs] for name, theirs in bare.items()}
    image_shape = shapes.pop(MEAN_IMAGE, None) if stamped else None
    layout = recognise(shapes)
    arch, theirs, aside = match(shapes, layout)
    state = {ours: tensors.take(bare[name]) for ours, name in theirs.items()}
    state = {ours: state[ours] for ours in arch.shapes()}
    if bad := [name for name, values in state.items() if not values.isfinite().all()]:
        raise WeightsError(f"not finite in {', '.join(bad)}: a training that diverged")
    if stamped is None:
        stamp = _presumed(tensors, layout, arch, aside)
    else:
        image = None
        if image_shape == (3, arch.crop, arch.crop):
            image = tensors.take(MEAN_IMAGE).numpy()
        stamp = Stamp.parse(stamped, image)
        if stamp.arch != arch.name:
            raise WeightsError(f"its stamp says {stamp.arch}, it holds {arch.name}")
        if stamp.state_sha256 and stamp.state_sha256 != state_digest(state):
            raise WeightsError("its numbers are not those it was stamped with: damaged")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Weights(
        state=state,
        arch=arch.name,
        name=stamp.name,
        sha256=sha256,
        preprocessing=stamp.preprocessing,
        pool5=stamp.pool5,
        origin=stamp.origin,
        left_aside=aside,
        notes=stamp.notes,
    )


def _presumed(
    tensors: Tensors,
    layout: Layout,
    arch: Architecture,
    aside: tuple[str, ...],
) -> Stamp:
    """Say of a foreign file what those that look like it are known to be."""
    trained = tensors.training or any(name.startswith("cls_head.") for name in aside)
    preprocessing, pool5 = origin_of(layout, tensors.container, trained)
    how = "trained in PyTorch" if trained else "converted from Caffe, or Caffe's own"
    return Stamp(
        name=f"{arch.name}, {layout.name}",
        arch=arch.name,
        pool5=pool5,
        preprocessing=preprocessing,
        origin=f"{tensors.container}, laid out as {layout.name}, {how}",
    )


def _names() -> str:
    return ", ".join(ARCHITECTURES)


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
