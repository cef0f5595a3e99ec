"""Weights of any known format, loaded, described, and saved in our own format.

Conventions: a state has exactly the parameters of its architecture, under Caffe's names
(`conv1a.weight` ... `fc6.bias`), float32, finite. Weights carry the pre-processing and
the last pooling that they were trained with; the caller may override both.

A weights file of ours is safetensors with the parameters up to FC-6 and one metadata
entry, the stamp: JSON with sorted keys, so that the same weights make the same bytes. A
mean that is an image lies beside the parameters as the tensor `mean_image`.

A mean volume is float32 (3, L, H, W) in the network's channel order (Caffe: BGR), grey
levels 0-255, from `.binaryproto` (a BlobProto) or `.npy`. One stored as (L, 3, H, W) is
refused: guessing the axes is a known way to lose accuracy silently.
"""

import hashlib
import importlib.resources
import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqa.cache.errors import AqaError, brief
from aqa.cache.files import file_sha256, replacing
from aqa.cache.tables import read_npy
from aqa.extract.c3d import ARCHITECTURES, POOL5, Architecture, random_state
from aqa.extract.preprocessing import PRESETS, Preprocessing
from aqa.extract.weights.caffe import read_blob
from aqa.extract.weights.formats import WeightsError, kind_of, random_seed
from aqa.extract.weights.layouts import CHANNEL_MEANS, FROM_CAFFE, Match, origin_of
from aqa.extract.weights.read import (
    MEAN_IMAGE,
    STAMP,
    Contents,
    in_child,
    read_contents,
)

#: The network of random weights, unless another is named: the paper's.
DEFAULT_ARCH = "c3d-small"
#: Most numbers of a mean volume, far more than a clip has.
_MOST_MEAN = 1 << 26
_VERSION = 1
_NO_CUBE = (
    "the weights are from Caffe and were trained with a mean cube; channel means in "
    "its place change features by 4 to 6 %. Pass the cube (sport1m_train16_128_mean or "
    "ucf101_train_mean, .binaryproto) with --mean"
)


@dataclass(frozen=True)
class Weights:
    """A network's parameters and what they must be used with.

    `name` says what the content is, not how the file is called; `sha256` is of the
    file's bytes, of random weights of their numbers. `left_aside` names parameters of
    the file past FC-6; `notes` (recipe, accuracy) are JSON values for people.
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
    choices: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know about these weights, one line each."""
        mean = self.preprocessing.mean
        approximate = isinstance(mean, tuple) and mean in CHANNEL_MEANS
        if approximate and FROM_CAFFE in self.origin:
            return (*self.choices, _NO_CUBE)
        return self.choices


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
        spec: `random` or `random:SEED`, `tiny` (comes with the package), or a file.
        arch: the network of `random`; otherwise, what the file must hold.
        preprocessing: a name in `PRESETS` in place of the file's own.
        pool5: "ceil" or "padded" in place of the file's own.
        mean: a mean file in place of the preset's mean.

    Raises:
        WeightsError: what the file is, what is wrong, and what to do.
    """
    if arch is not None and arch not in ARCHITECTURES:
        names = ", ".join(ARCHITECTURES)
        raise WeightsError(f"arch: expected one of {names}, found {arch!r}")
    seed = random_seed(str(spec))
    if seed is not None:
        weights = _random(seed, ARCHITECTURES[arch or DEFAULT_ARCH])
    elif str(spec) == "tiny":
        data = importlib.resources.files("aqa.extract") / "data" / "tiny.safetensors"
        with importlib.resources.as_file(data) as path:
            weights = _of_file(path, read_contents(path))
    else:
        weights = _of_file(Path(spec), read_contents(Path(spec)))
    if arch not in (None, weights.arch):
        raise WeightsError(
            f"{spec} holds {weights.arch}, not {arch}; leave the architecture to the "
            "file, or pass another file"
        )
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


def _random(seed: int, arch: Architecture) -> Weights:
    state = random_state(arch, seed)
    return Weights(
        state=state,
        arch=arch.name,
        name=f"random:{seed}",
        sha256=state_digest(state),
        preprocessing=PRESETS["c3d"],
        pool5="ceil",
        origin="untrained He-normal weights",
    )


def _of_file(path: Path, contents: Contents) -> Weights:
    """Return the weights that a file holds; WeightsError names the file."""
    try:
        if contents.match is None:
            raise WeightsError(contents.problem)
        arrays = dict(contents.arrays)
        image = arrays.pop(MEAN_IMAGE, None)
        state = {name: torch.from_numpy(array) for name, array in arrays.items()}
        bad = [name for name, values in state.items() if not values.isfinite().all()]
        if bad:
            raise WeightsError(
                f"not finite in {', '.join(bad)}: a training that diverged"
            )
        weights = (
            _presumed(contents, contents.match)
            if contents.stamp is None
            else _stamped(contents.stamp, contents.match.arch, state, image)
        )
        return replace(
            weights,
            state=state,
            sha256=file_sha256(path),
            left_aside=contents.match.left_aside,
        )
    except WeightsError as error:
        message = str(error)
        raise WeightsError(
            message if str(path) in message else f"{path}: {message}"
        ) from None


def _presumed(contents: Contents, match: Match) -> Weights:
    """Describe a foreign file, without its numbers, by what its kind is known to be."""
    head = any("cls_head.fc_cls." in name for name in match.left_aside)
    trained = contents.training or head
    preprocessing, pool5 = origin_of(match.layout, contents.container, trained)
    how = "trained in PyTorch" if trained else FROM_CAFFE
    return Weights(
        state={},
        arch=match.arch,
        name=f"{match.arch}, {match.layout}",
        sha256="",
        preprocessing=preprocessing,
        pool5=pool5,
        origin=f"{contents.container}, laid out as {match.layout}, {how}",
        choices=contents.choices,
    )


# Our own files.


def stamp_of(weights: Weights, digest: str = "") -> str:
    """Return the stamp of weights as JSON.

    An image mean is left out, for `mean_image`; without `digest`, that of the numbers,
    nothing is checked against it.
    """
    pre = weights.preprocessing
    preset = {part.name: getattr(pre, part.name) for part in fields(pre)}
    if isinstance(pre.mean, np.ndarray):
        preset["mean"] = None
    record = {
        "version": _VERSION,
        "name": weights.name,
        "arch": weights.arch,
        "pool5": weights.pool5,
        "preprocessing": preset,
        "origin": weights.origin,
        "state_sha256": digest,
        "notes": dict(weights.notes),
    }
    return json.dumps(record, sort_keys=True)


def _stamped(
    stamp: str,
    arch: str,
    state: Mapping[str, Tensor],
    image: NDArray[np.float32] | None,
) -> Weights:
    """Return the weights of a file of ours that holds `arch`, checked by its stamp."""
    try:
        record = json.loads(stamp)
        if record.pop("version") != _VERSION:
            raise WeightsError(f"a stamp of another version than {_VERSION}")
        digest = record.pop("state_sha256")
        values = dict(record.pop("preprocessing"))
        if values["mean"] is not None:
            values["mean"] = tuple(map(float, values["mean"]))
        elif image is not None:
            values["mean"] = image
        else:
            raise WeightsError(f"its stamp promises a tensor {MEAN_IMAGE}")
        values["std"] = tuple(map(float, values["std"]))
        for text in (*map(record.get, ("name", "arch", "pool5", "origin")), digest):
            if not isinstance(text, str) or not text.isprintable():
                raise WeightsError(f"not a line of text: {brief(text)}")
        preprocessing = Preprocessing(**values)
        _require_possible(preprocessing)
        weights = Weights(state=state, sha256="", preprocessing=preprocessing, **record)
        if weights.pool5 not in POOL5:
            raise WeightsError(f"unknown pool5 {weights.pool5}")
        if not isinstance(weights.notes, dict):
            raise WeightsError("its notes are no object")
    except AqaError as error:
        raise WeightsError(f"its stamp cannot be used: {brief(error)}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise WeightsError("its stamp is not what aqa writes") from None
    if weights.arch != arch:
        raise WeightsError(f"its stamp says {weights.arch}, it holds {arch}")
    if digest and digest != state_digest(state):
        raise WeightsError("its numbers do not match its stamp: the file is damaged")
    return weights


def _require_possible(pre: Preprocessing) -> None:
    """Refuse sizes and numbers of a stamp that no frame could be processed with."""
    sizes = [pre.height, pre.crop, pre.width or 1, pre.top or 0, pre.left or 0]
    numbers = [pre.scale, *pre.std, *np.ravel(pre.mean)]
    single = np.finfo(np.float32)
    possible = (
        all(isinstance(size, int) and 0 <= size <= 4096 for size in sizes)
        and all(-single.max <= number <= single.max for number in numbers)
        and min(pre.std) >= single.tiny
    )
    if not possible:
        raise WeightsError("an impossible pre-processing")


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, shapes and float32 numbers, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].numpy().astype("<f4", copy=False)
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def save_weights(
    weights: Weights, out: Path, notes: Mapping[str, Any] | None = None
) -> Weights:
    """Write weights to `out`, atomically, and return them as read back.

    Args:
        weights: `sha256` is not used.
        out: the file to write.
        notes: in place of the weights' own.

    Raises:
        AqaError: the file cannot be written, or reads back as other weights.
    """
    from safetensors.torch import save

    if notes is not None:
        weights = replace(weights, notes=notes)
    tensors = dict(weights.state)
    if isinstance(weights.preprocessing.mean, np.ndarray):
        tensors[MEAN_IMAGE] = torch.from_numpy(weights.preprocessing.mean)
    stamp = stamp_of(weights, state_digest(weights.state))
    written = weights

    def read_back(path: Path) -> None:
        nonlocal written
        written = load_weights(path)  # checks every number by the digest
        if (written.preprocessing, written.pool5) != (
            weights.preprocessing,
            weights.pool5,
        ):
            raise WeightsError(f"{out}: what was written reads back as another preset")

    with replacing(out, read_back) as file:
        file.write(save(tensors, metadata={STAMP: stamp}))
    return written


# Mean volumes, and what any file is.


def read_mean(path: Path) -> NDArray[np.float32]:
    """Read a mean volume, (3, L, H, W).

    Raises:
        WeightsError: not a mean file, other axes, or numbers outside 0-255.
    """
    kind = kind_of(path)
    if kind not in ("npy", "caffe"):
        raise WeightsError(f"{path}: expected .binaryproto or .npy, found {kind}")
    try:
        volume = (
            read_npy(path, _MOST_MEAN) if kind == "npy" else in_child(_read_blob, path)
        )
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
    if volume.size > _MOST_MEAN:
        raise WeightsError(f"{path}: {shape} is far larger than a clip")
    # Not a number is neither.
    if not (volume.min() >= 0 and volume.max() <= 255):
        raise WeightsError(f"{path}: expected grey levels 0-255, found others")
    return volume.astype(np.float32)


def _read_blob(path: Path) -> NDArray[np.float32]:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return read_blob(memoryview(mapped)).array()
    except AqaError as error:
        raise WeightsError(f"not a Caffe mean ({brief(error)})") from None


def inspect(path: Path) -> dict[str, Any]:
    """Describe a weights or mean file as JSON values, without using it.

    Arrays are under the file's names, made printable; a file that cannot be used has
    the reason under "problem". Channel means are in the file's order (Caffe: BGR).

    Raises:
        WeightsError: there is no file to read.
    """
    try:
        sha256 = file_sha256(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    record: dict[str, Any] = {"path": str(path), "bytes": path.stat().st_size}
    record |= {"sha256": sha256, "kind": "unknown", "arrays": {}}
    try:
        record["kind"] = kind = kind_of(path)
        if (volume := _mean_or_none(path, kind)) is not None:
            means = volume.mean((1, 2, 3), dtype=float).round(4)
            record |= {"kind": "mean", "arrays": {"mean": list(volume.shape)}}
            record["channel_means"] = means.tolist()
            return record
        contents = read_contents(path)
        record["kind"] = contents.container
        record["arrays"] = {brief(k): list(v) for k, v in contents.shapes.items()}
        weights = _of_file(path, contents)
        for name in ("arch", "name", "origin", "pool5"):
            record[name] = getattr(weights, name)
        record["preprocessing"] = weights.preprocessing.record()
        record["left_aside"] = list(weights.left_aside)
        record["warnings"] = list(weights.warnings)
        record["notes"] = dict(weights.notes)
    except WeightsError as error:
        record["problem"] = str(error).removeprefix(f"{path}: ")
    return record


def _mean_or_none(path: Path, kind: str) -> NDArray[np.float32] | None:
    """Return the volume of a mean file, None for a network.

    Caffe's mean is a blob, its network layers of blobs.
    """
    if kind not in ("npy", "caffe"):
        return None
    try:
        return read_mean(path)
    except WeightsError:
        if kind == "npy":
            raise
        return None
