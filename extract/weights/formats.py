"""What kind of file holds the weights, told by its bytes and never by its name.

Conventions: a kind is one of "safetensors", "pytorch", "caffe", "npy". Files that
are known but cannot be read safely or exactly are refused with what they are, why,
and what to do. A file that starts like none of them is handed on as "caffe", the
one format without a signature, whose reader has the last word.

What a weights file of ours says of itself: its stamp.

Conventions: the stamp is one JSON object, with sorted keys, so that the same
weights make the same bytes; it stands under "aqa" in safetensors' metadata and in
our training checkpoints. A mean that is an image is no JSON and lies beside the
weights as the tensor `MEAN_IMAGE`, (3, crop, crop) in the network's channel order.

Memory that reading a file may take, held to what the file can honestly need.

Conventions: sizes in bytes. The limit is the kernel's, on writable private memory of
the whole process; only Linux has it, elsewhere nothing is held back. One thread at a
time is in here, and the others do well not to need much meanwhile.

What torch.save wrote, read so that no file runs code or takes memory at will.

Conventions: in the zip that torch.save writes, parts are stored as they are, never
compressed, and nothing stands between the directory and the end of the file.
`weights_only` keeps code from running; what it lets through may still ask for any
memory (`bytearray(10**9)`), so that a file gets no more than one of its size can need.

Weight files opened: which arrays they hold, before any of them is taken.

Conventions: `Tensors` has names and shapes as the file says them (leading axes of
length 1 dropped from Caffe's, which pads every blob to five axes); `take` returns
one array as float32, contiguous, with memory of its own. Shapes come first so that
a file which lies about them is refused before a byte is allocated for it.

No reader runs code from a file: PyTorch's goes through `weights_only`, safetensors
and Caffe files hold numbers only.
"""

import hashlib
import itertools
import json
import mmap
import os
import re
import resource
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aqa.cache.errors import AqaError, brief
from aqa.extract.c3d import ARCHITECTURES, POOL5
from aqa.extract.preprocessing import Preprocessing
from aqa.extract.weights.caffe import Blob, read_model

#: Long enough for every signature below (tar's is at byte 257).
_HEAD = 512

#: What torch.save wrote first before it used zip, whatever the pickle protocol.
_TORCH_MAGIC = b"\x8a\n" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
_TABLE_FOOTER = 0xDB4775248B80FB57.to_bytes(8, "little")  # of TensorFlow's index

_KERAS = (
    "an HDF5 file (Keras or Theano): the order of its axes differs from port to port. "
    "Transpose convolutions to (out, in, time, row, column) and FC-6 to (out, C*T*H*W) "
    "with h5py, and save them under Caffe's names as safetensors"
)
_TENSORFLOW = (
    "a TensorFlow checkpoint: its FC-6 rows are in another order, which depends on the "
    "port. Export the variables with TensorFlow, transpose convolutions from (time, "
    "row, column, in, out) and save them under Caffe's names as safetensors"
)
_TORCH7 = (
    "a Torch7 file: read it once with the torchfile package and save the convolutions "
    "and FC-6 under Caffe's names as safetensors"
)
_PICKLE = (
    "a bare Python pickle, which may run any code when it is opened. Where you trust "
    "it, load it once, and save the arrays under Caffe's names as safetensors"
)
_ARCHIVE = "an archive: unpack it first"

_TAR = (
    "a tar archive, as torch.save wrote before 0.1.9: load it with such a torch and "
    "save it again, or unpack it"
)

_SIGNATURES = (
    (b"\x89HDF\r\n\x1a\n", _KERAS),
    (b"7z\xbc\xaf\x27\x1c", _ARCHIVE),
    (b"\x1f\x8b", _ARCHIVE),
    (b"BZh", _ARCHIVE),
    (b"\xfd7zXZ\x00", _ARCHIVE),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file that it names"),
    (b"<", "a web page, not the file behind it: download it again"),
)


class WeightsError(AqaError):
    """A weights file that cannot be used, with the reason and what to do."""


def kind_of(path: Path) -> str:
    """Return the kind of a file.

    Raises:
        WeightsError: if there is no such file, or it is of a kind that is refused.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise WeightsError(f"{path}: expected a weights file, found no such thing")
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(0, size - len(_TABLE_FOOTER)))
            tail = file.read()
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read ({error.strerror}); pass a weights file, `tiny`, "
            "or `random` for weights that have learnt nothing"
        ) from None
    if size == 0:
        raise WeightsError(f"{path}: an empty file; download it again")
    # First: the length of its header may look like anything.
    if int.from_bytes(head[:8], "little") <= size - 8 and head[8:9] == b"{":
        return "safetensors"
    if (reason := _refusal(path, head, tail)) is not None:
        raise WeightsError(f"{path} is {reason}")
    if head.startswith(b"PK\x03\x04") or _TORCH_MAGIC in head[:64]:
        return "pytorch"
    return "npy" if head.startswith(b"\x93NUMPY") else "caffe"


def _refusal(path: Path, head: bytes, tail: bytes) -> str | None:
    """Say why a file of a known foreign kind is refused."""
    for signature, reason in _SIGNATURES:
        if head.startswith(signature):
            return reason
    if head[257:262] == b"ustar":
        return _TAR
    if tail == _TABLE_FOOTER or path.name.endswith((".ckpt.meta", "-00001")):
        return _TENSORFLOW
    if head[12:15] == b"V 1" or path.suffix == ".t7":
        return _TORCH7
    pickled = (head[:1] == b"\x80" and head[1:2] <= b"\x05") or path.suffix == ".pkl"
    if pickled and not (head.startswith(b"PK") or _TORCH_MAGIC in head[:64]):
        return _PICKLE
    return None


VERSION = 1
KEY = "aqa"
MEAN_IMAGE = "mean_image"


@dataclass(frozen=True)
class Stamp:
    """The preset of weights, where they come from, and the digest of their numbers.

    An empty digest is one that nobody took: nothing is checked by it. `notes` is for
    people: a recipe, an accuracy; JSON values only.
    """

    name: str
    arch: str
    pool5: str
    preprocessing: Preprocessing
    origin: str
    state_sha256: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> str:
        """Write the stamp; an image mean is left out, for `MEAN_IMAGE`."""
        record = {part.name: getattr(self, part.name) for part in fields(self)}
        pre = self.preprocessing
        record["preprocessing"] = {
            part.name: getattr(pre, part.name) for part in fields(pre)
        }
        if isinstance(pre.mean, np.ndarray):
            record["preprocessing"]["mean"] = None
        record["notes"] = dict(self.notes)
        return json.dumps({"version": VERSION, **record}, sort_keys=True)

    @classmethod
    def parse(cls, text: str, mean: NDArray[np.float32] | None = None) -> "Stamp":
        """Read a stamp, with the image mean that lay beside it.

        Raises:
            WeightsError: if it is not what `json` writes.
        """
        try:
            record = json.loads(text)
            if record.pop("version") != VERSION:
                raise WeightsError(f"a stamp of another version than {VERSION}")
            values = dict(record.pop("preprocessing"))
            if values["mean"] is None:
                if mean is None:
                    raise WeightsError(f"its stamp promises a tensor {MEAN_IMAGE}")
                values["mean"] = mean
            else:
                values["mean"] = tuple(map(float, values["mean"]))
            values["std"] = tuple(map(float, values["std"]))
            for key in ("name", "arch", "pool5", "origin", "state_sha256"):
                if not isinstance(record[key], str) or not record[key].isprintable():
                    raise WeightsError(f"its {key} is no line of text")
            stamp = cls(preprocessing=_checked(Preprocessing(**values)), **record)
            if stamp.arch not in ARCHITECTURES or stamp.pool5 not in POOL5:
                raise WeightsError(f"unknown {stamp.arch} or {stamp.pool5}")
            if not isinstance(stamp.notes, dict):
                raise WeightsError("its notes are no object")
        except AqaError as error:
            raise WeightsError(f"its stamp cannot be used: {brief(error)}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise WeightsError("its stamp is not what aqa writes") from None
        return stamp


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 numbers, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].numpy().astype("<f4", copy=False)
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _checked(pre: Preprocessing) -> Preprocessing:
    """Refuse a stamp's sizes and numbers that no frame could go through."""
    sizes = [pre.height, pre.crop, pre.width or 1, pre.top or 0, pre.left or 0]
    numbers = [pre.scale, *pre.std, *np.ravel(pre.mean)]
    sound = (
        all(isinstance(size, int) and 0 <= size <= 4096 for size in sizes)
        and all(np.isfinite(number) for number in numbers)
        and min(pre.std) > 0
    )
    if not sound:
        raise WeightsError("a pre-processing that no frame can go through")
    return pre


_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def at_most(extra: int) -> Iterator[None]:
    """Let this process grow by `extra` bytes and no more.

    What asks for more meets a MemoryError, or PyTorch's own RuntimeError.
    """
    with _ONE_AT_A_TIME:
        before = resource.getrlimit(resource.RLIMIT_DATA)
        with suppress(OSError):  # no /proc: not Linux
            status = Path("/proc/self/status").read_text()
            if held := re.search(r"VmData:\s+(\d+) kB", status):
                limits = [limit for limit in before if limit != resource.RLIM_INFINITY]
                most = min([int(held[1]) * 1024 + extra, *limits])
                resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)


_END = struct.Struct("<4s8xIIH")  # of a zip: size and place of its directory, comment
_LOCATOR = struct.Struct("<4s4xQ4x")  # place of zip64's end
_END64 = struct.Struct("<4s36xQQ")  # size and place of the directory

#: Bytes that reading a file may take beside twice its size.
_ROOM = 256 << 20


def load_pickle(path: Path) -> Any:
    """Read a file of torch.save onto the CPU.

    Raises:
        WeightsError: it is a damaged or inflated zip, or asks for too much memory.
        Exception: whatever else torch's unpickler makes of a hostile file.
    """
    _refuse_inflated(path)
    size = path.stat().st_size
    try:
        with at_most(2 * size + _ROOM):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch has no MemoryError.
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise WeightsError(
                f"{path}: asks for more memory than a file of {size} bytes can need"
            ) from None
        raise


def _refuse_inflated(path: Path) -> None:
    """Refuse a zip whose parts are larger than the file; pass over any other file."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return
            _require_one_directory(file)
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise WeightsError(f"{path}: a damaged zip ({brief(error)})") from None
    if not any(name.endswith("data.pkl") for name in names):
        raise WeightsError(f"{path}: a zip that torch.save did not write; unpack it")
    if size > path.stat().st_size:
        raise WeightsError(
            f"{path}: its parts say {size} bytes, more than the whole file has; "
            "torch.save never compresses"
        )


def _require_one_directory(file: BinaryIO) -> None:
    """Raise BadZipFile unless the directory of a zip ends where its end record begins.

    Readers look for it at the place that is stated, or just before the end: with any
    room between them, a file may show its checks one directory and torch another.
    """
    size = file.seek(-_END.size, os.SEEK_END)
    signature, length, start, comment = _END.unpack(file.read())
    if signature != b"PK\x05\x06" or comment:
        raise zipfile.BadZipFile("it does not end as torch.save ends it")
    end = size
    if size >= _LOCATOR.size + _END64.size:
        file.seek(size - _LOCATOR.size)
        locator, place = _LOCATOR.unpack(file.read(_LOCATOR.size))
        if locator == b"PK\x06\x07":
            end = size - _LOCATOR.size - _END64.size
            file.seek(end)
            signature, length, start = _END64.unpack(file.read(_END64.size))
            if signature != b"PK\x06\x06" or place != end:
                raise zipfile.BadZipFile("the end of its directory is elsewhere")
    if start + length != end:
        raise zipfile.BadZipFile("its directory is not where it ends")


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
            found = load_pickle(path)
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
