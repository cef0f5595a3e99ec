"""Weight files opened: which arrays they hold, before any of them is taken.

Conventions: `Tensors` has names and shapes as the file says them (leading axes of
length 1 dropped from Caffe's, which pads every blob to five axes); `take` returns
one array as float32, contiguous, with memory of its own. Shapes come first so that
a file which lies about them is refused before a byte is allocated for it.

No reader runs code from a file: PyTorch's goes through `weights_only`, safetensors
and Caffe files hold numbers only.
"""

import itertools
import mmap
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aqa.cache.errors import AqaError, brief
from aqa.extract.weights import archive
from aqa.extract.weights.caffe import Blob, read_model
from aqa.extract.weights.kinds import WeightsError
from aqa.extract.weights.stamp import KEY

_FLOATS = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}


@dataclass(frozen=True)
class Tensors:
    """The arrays of an open file; `container` says which format, in words.

    `training` tells a checkpoint that a training run wrote (an optimiser or an
    epoch beside the weights) from weights alone; `metadata` is safetensors' own, and
    holds the stamp of a checkpoint of ours.
    """

    container: str
    shapes: Mapping[str, tuple[int, ...]]
    take: Callable[[str], Tensor]
    training: bool = False
    metadata: Mapping[str, str] | None = None


@contextmanager
def open_tensors(path: Path, kind: str) -> Iterator[Tensors]:
    """Open a file of a kind that `kind_of` gave; `take` works until it is closed.

    Raises:
        WeightsError: whatever is wrong with the file, in one line.
    """
    readers = {"safetensors": _safetensors, "pytorch": _pytorch, "caffe": _caffe}
    if kind not in readers:
        raise WeightsError(
            f"{path} is a NumPy array: a mean cube, perhaps, but no network; give a "
            "mean by its own option"
        )
    with readers[kind](path) as tensors:
        yield tensors


@contextmanager
def _safetensors(path: Path) -> Iterator[Tensors]:
    try:
        file: Any = safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise WeightsError(
            f"{path}: not a sound safetensors file ({brief(error)}); download it again"
        ) from None
    with file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        for name, part in slices.items():
            if part.get_dtype() not in _FLOATS.values():
                raise WeightsError(
                    f"{path}: {brief(name)} is {part.get_dtype()}; expected one of "
                    f"{', '.join(_FLOATS.values())}"
                )

        def take(name: str) -> Tensor:
            tensor: Tensor = file.get_tensor(name)
            return tensor.to(torch.float32, copy=True)

        yield Tensors("safetensors", shapes, take, metadata=file.metadata() or {})


@contextmanager
def _caffe(path: Path) -> Iterator[Tensors]:
    with path.open("rb") as file:
        # Unmapped when the last view into it is gone.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        model = read_model(memoryview(mapped))
    except AqaError as error:
        raise WeightsError(
            f"{path}: of no format known here, nor a Caffe model ({brief(error)})"
        ) from None
    blobs: dict[str, Blob] = {}
    for layer, parts in model.layers.items():
        for index, blob in enumerate(parts):
            part = ("weight", "bias")[index] if index < 2 else f"blob{index}"
            blobs[f"{layer}.{part}"] = blob
    shapes = {
        name: tuple(itertools.dropwhile(lambda axis: axis == 1, blob.shape))
        for name, blob in blobs.items()
    }

    def take(name: str) -> Tensor:
        return torch.from_numpy(blobs[name].array()).reshape(shapes[name])

    yield Tensors(f"Caffe, {model.generation} generation", shapes, take)


class _Ignored:
    """Stands for an object that a checkpoint carries beside its weights.

    Learning rates as NumPy scalars, logs of mmengine: `weights_only` refuses a file
    for them, though nobody asks for their value. This takes anything and keeps
    nothing, so no code but these lines runs for them.
    """

    def __init__(self, *_: Any) -> None:
        """Take what the real one would."""

    def __setstate__(self, state: Any) -> None:
        """Forget it."""


_BESIDE: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Ignored, name)
    for name in (
        "numpy.dtype",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "mmengine.logging.history_buffer.HistoryBuffer",
    )
]
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_TRAINING = ("epoch", "iteration", "opt_dict", "optimizer", "optimizer_state_dict")
_DEEPEST = 4  # wrappers around a state dict


@contextmanager
def _pytorch(path: Path) -> Iterator[Tensors]:
    try:
        with torch.serialization.safe_globals(_BESIDE):
            found = archive.load(path)
        stamp = found.get(KEY) if isinstance(found, Mapping) else None
        state, training = _unwrap(path, found)
    except WeightsError:
        raise
    except Exception as error:  # a hostile file may make the unpickler raise anything
        raise WeightsError(f"{path}: {_load_failure(error)}") from None

    def take(name: str) -> Tensor:
        if state[name].dtype not in _FLOATS:
            raise WeightsError(
                f"{path}: {name} is {state[name].dtype}; expected floats"
            )
        # A view of stride 0 may claim any size; its shape was checked before this.
        return state[name].detach().to(torch.float32, copy=True).contiguous()

    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    metadata = {KEY: stamp} if isinstance(stamp, str) else None
    yield Tensors("PyTorch", shapes, take, training, metadata)


def _unwrap(path: Path, found: object) -> tuple[dict[str, Tensor], bool]:
    """Find the state dict inside training wrappers, and whether there were any."""
    training = False
    for _ in range(_DEEPEST + 1):
        if not isinstance(found, Mapping):
            break
        training |= any(key in found for key in _TRAINING)
        inner = next((key for key in _WRAPPERS if _is_mapping(found, key)), None)
        if inner is None:
            break
        found = found[inner]
    else:
        raise WeightsError(f"{path}: a state dict in more than {_DEEPEST} wrappers")
    if not isinstance(found, Mapping) or not found:
        raise WeightsError(
            f"{path}: expected a state dict, found {type(found).__name__}"
        )
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
                f"{path}: expected names and dense arrays, found {brief(name)!r}: "
                f"{type(value).__name__}"
            )
    return state, training


def _is_mapping(found: Mapping[Any, Any], key: str) -> bool:
    return isinstance(found.get(key), Mapping)


def _load_failure(error: Exception) -> str:
    """Put torch's page of advice, which tells users to trust the file, in a line."""
    message = brief(error, 1000)
    if match := re.search(r"GLOBAL (\S+)", message):
        return (
            f"asks to run {match[1]} when opened, and was not; ask for the plain state "
            "dict (torch.save(net.state_dict(), ...)) or safetensors"
        )
    if "TorchScript" in message:
        return "a TorchScript archive; save the state dict of the module instead"
    return (
        f"not a sound PyTorch file ({type(error).__name__}: {brief(message)}); "
        "download it again"
    )
