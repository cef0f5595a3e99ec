"""Reading the parameters that a weights file holds.

Conventions: parameters are float32, C-contiguous, under Caffe's names. Caffe's axes of
size 1 in front are dropped. Shapes are checked before an array is copied, so that a
file that lies about them costs nothing.

No reader runs code from a file: safetensors and Caffe files hold numbers, and PyTorch
files are read with `weights_only`. Caffe and PyTorch files are read in a child process
with limits (`processes.call`), in which functions of this module raise errors that do
not name the file.
"""

import itertools
import mmap
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aqa.cache.errors import AqaError, brief
from aqa.cache.processes import call
from aqa.extract.c3d import ARCHITECTURES
from aqa.extract.weights.caffe import read_model
from aqa.extract.weights.formats import WeightsError, kind_of
from aqa.extract.weights.layouts import Match, match

Array = NDArray[np.float32]
Read = TypeVar("Read")

#: Key of our own metadata in safetensors files and training checkpoints (`load`).
STAMP = "aqa"
#: Bytes of memory for reading a file, in addition to a multiple of its size.
ROOM = 256 << 20
#: Name of a mean image (3, crop, crop) stored beside the parameters.
MEAN_IMAGE = "mean_image"


@dataclass(frozen=True)
class Contents:
    """What a weights file holds.

    `shapes` are of all its arrays, under its own names. Either `arrays` are the
    parameters up to FC-6, under Caffe's names, and `match` is where they were found,
    or `problem` says what does not fit.
    """

    #: The format in words.
    container: str
    shapes: Mapping[str, tuple[int, ...]]
    #: Written by a training run: an optimiser or an epoch lies beside the weights.
    training: bool = False
    #: JSON that a file of ours carries (`load.stamp_of`).
    stamp: str | None = None
    #: What was chosen where the file left a choice.
    choices: tuple[str, ...] = ()
    problem: str = ""
    match: Match | None = None
    arrays: Mapping[str, Array] = field(default_factory=dict, repr=False)


def read_contents(path: Path) -> Contents:
    """Read a weights file of any known kind.

    Raises:
        WeightsError: it cannot be opened as such; one line that names the file.
    """
    kind = kind_of(path)
    if kind == "npy":
        raise WeightsError(
            f"{path} is a NumPy array: perhaps a mean, but no network; pass a mean "
            "with --mean"
        )
    if kind == "safetensors":
        return _read_safetensors(path)
    return in_child(_read_pytorch if kind == "pytorch" else _read_caffe, path)


def in_child(reader: Callable[[Path], Read], path: Path) -> Read:
    """Return `reader(path)`, run in a child process that may not take much more memory
    than the file is large.

    Raises:
        WeightsError: whatever is wrong with the file, in one line that names it.
    """
    try:
        # The file, and its numbers twice as large if they are in half precision.
        memory = 4 * path.stat().st_size + ROOM
        return call(reader, path, seconds=120, memory=memory)
    except (AqaError, OSError) as error:
        raise WeightsError(f"{path}: {brief(error, 1000)}") from None


def _contents(found: Contents, take: Callable[[str], Array]) -> Contents:
    """Match the arrays with a network's parameters and copy those with `take`."""
    shapes = dict(found.shapes)
    image = shapes.pop(MEAN_IMAGE, None) if found.stamp is not None else None
    try:
        matched = match(shapes)
        names = dict(matched.names)
        crop = ARCHITECTURES[matched.arch].crop
        if image == (3, crop, crop):
            names[MEAN_IMAGE] = MEAN_IMAGE
        arrays = {ours: take(theirs) for ours, theirs in names.items()}
    except WeightsError as error:
        return replace(found, problem=str(error))
    return replace(found, match=matched, arrays=arrays)


def _as_float32(name: str, tensor: Tensor) -> Array:
    """Copy a tensor of floats; WeightsError for other numbers, or too large ones."""
    if not tensor.dtype.is_floating_point:
        raise WeightsError(f"{brief(name)} is {tensor.dtype}; expected floats")
    single = tensor.detach().to(torch.float32, copy=True).contiguous()
    if tensor.dtype is torch.float64 and (single.isinf() & tensor.isfinite()).any():
        raise WeightsError(f"{brief(name)}: numbers too large for single precision")
    array: Array = single.numpy()
    return array


def _read_safetensors(path: Path) -> Contents:
    try:
        file: Any = safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise WeightsError(
            f"{path}: not a sound safetensors file ({brief(error)}); download it again"
        ) from None
    with file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}

        def take(name: str) -> Array:
            return _as_float32(name, file.get_tensor(name))

        stamp = (file.metadata() or {}).get(STAMP)
        return _contents(Contents("safetensors", shapes, stamp=stamp), take)


def _read_caffe(path: Path) -> Contents:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        generation, layers = read_model(memoryview(mapped))
    except AqaError as error:
        raise WeightsError(
            f"of no format known here, nor a Caffe model ({brief(error)})"
        ) from None
    blobs = {
        f"{layer}.{('weight', 'bias')[index] if index < 2 else f'blob{index}'}": blob
        for layer, parts in layers.items()
        for index, blob in enumerate(parts)
    }
    shapes = {
        name: tuple(itertools.dropwhile(lambda axis: axis == 1, blob.shape))
        for name, blob in blobs.items()
    }

    def take(name: str) -> Array:
        try:
            return blobs[name].array().reshape(shapes[name])
        except AqaError as error:
            raise WeightsError(f"{brief(name)}: {error}") from None

    return _contents(Contents(f"Caffe, {generation} generation", shapes), take)


# PyTorch.

#: Names under which training code stores the state dict; the first found is taken.
#: Moving averages come first: they are what is evaluated.
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "shadow")
_WRAPPERS = (
    *_AVERAGES,
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network"),
    *("weights", "params", "module", "backbone"),
)
_TRAINING = (
    *("epoch", "iteration", "global_step", "optimizer", "optimizer_state_dict"),
    *("opt_dict", "optimizer_states"),
)
_DEEPEST = 4  # wrappers around a state dict


class _Ignored:
    """Replaces objects that checkpoints hold beside the weights.

    `weights_only` refuses a file for NumPy scalars or mmengine's logs, although their
    values are not needed. This takes any arguments and keeps nothing.
    """

    def __init__(self, *_: Any) -> None:
        """Take what the real one would."""

    def __setstate__(self, state: Any) -> None:
        """Drop it."""


_IGNORED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Ignored, name)
    for name in (
        "numpy.dtype",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "mmengine.logging.history_buffer.HistoryBuffer",
    )
]


def _read_pytorch(path: Path) -> Contents:
    found = load_pickle(path)
    stamp = found.get(STAMP) if isinstance(found, Mapping) else None
    state, training, choices = _unwrap(found)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}

    def take(name: str) -> Array:
        return _as_float32(name, state[name])

    stamp = stamp if isinstance(stamp, str) else None
    return _contents(Contents("PyTorch", shapes, training, stamp, choices), take)


def load_pickle(path: Path) -> Any:
    """Read a file of `torch.save` onto the CPU; to be called in a child process.

    Raises:
        WeightsError: it is damaged or would run code; does not name the file.
    """
    try:
        with torch.serialization.safe_globals(_IGNORED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file may make the unpickler raise anything
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise
        raise WeightsError(_load_failure(error)) from None


def _load_failure(error: Exception) -> str:
    """Return torch's page of advice, which tells users to trust the file, as a line."""
    message = brief(error, 1000)
    if match := re.search(r"GLOBAL (\S+)", message):
        return (
            f"asks to run {match[1]} when opened, and was not; ask for the plain state "
            "dict (torch.save(net.state_dict(), ...)) or safetensors"
        )
    if "TorchScript" in message:
        return "a TorchScript archive; save the state dict of the module instead"
    if "data.pkl" in message or "not in a subdirectory" in message:
        return (
            "a zip that torch.save did not write: unpack an archive; save the arrays "
            "of an .npz under Caffe's names as safetensors"
        )
    return (
        f"not a sound PyTorch file ({type(error).__name__}: {brief(message)}); "
        "download it again"
    )


def _unwrap(found: object) -> tuple[dict[str, Tensor], bool, tuple[str, ...]]:
    """Find the state dict inside the wrappers of training code.

    Returns it, whether a training run wrote the file, and what was chosen.
    """
    training, choices = False, tuple[str, ...]()
    for _ in range(_DEEPEST + 1):
        if not isinstance(found, Mapping):
            break
        training |= any(key in found for key in _TRAINING)
        mappings = [key for key, value in found.items() if isinstance(value, Mapping)]
        inner = next((key for key in _WRAPPERS if key in mappings), None)
        if inner is None and len(mappings) == 1:
            # A name of somebody's own, unless parameters lie beside it.
            if not any(isinstance(value, Tensor) for value in found.values()):
                inner = mappings[0]
        if inner is None:
            break
        others = [key for key in mappings if key in _WRAPPERS and key != inner]
        if inner in _AVERAGES and others:
            choices += (f"the moving average `{inner}` is used, not `{others[0]}`",)
        found = found[inner]
    else:
        raise WeightsError(f"a state dict in more than {_DEEPEST} wrappers")
    if not isinstance(found, Mapping) or not found:
        raise WeightsError(f"expected a state dict, found {type(found).__name__}")
    state = dict(found)
    for name, value in state.items():
        usable = (
            isinstance(name, str)
            and isinstance(value, Tensor)
            and value.layout is torch.strided
            and value.device.type == "cpu"
        )
        if not usable:
            raise WeightsError(
                f"expected names and dense arrays, found {brief(name)!r}: "
                f"{type(value).__name__}"
            )
    return state, training, choices
