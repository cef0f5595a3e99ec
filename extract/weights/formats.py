"""Which format a weights file has, and why some are refused.

Conventions: a kind is "safetensors", "pytorch", "caffe" or "npy", recognised by content
and never by name; formats that cannot be read safely or unambiguously are refused with
what they are and what to do. Importing this module does not import torch, so that a
missing file is reported at once.
"""

from pathlib import Path

from aqa.cache.errors import AqaError


class WeightsError(AqaError):
    """A weights file that cannot be used, with the reason and what to do."""


#: First bytes of what `torch.save` wrote before it used zip.
_TORCH_MAGIC = b"\x8a\n" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
_TENSORFLOW_FOOTER = 0xDB4775248B80FB57.to_bytes(8, "little")

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
#: What the bytes from some place on say that a refused file is.
_REFUSED = (
    (
        *(0, b"\x89HDF\r\n\x1a\n"),
        "an HDF5 file (Keras or Theano): the order of its axes differs from port to "
        "port. Transpose convolutions to (out, in, time, row, column) and FC-6 to "
        "(out, C*T*H*W) with h5py, and save them under Caffe's names as safetensors",
    ),
    (0, b"7z\xbc\xaf\x27\x1c", _ARCHIVE),
    (0, b"\x1f\x8b", _ARCHIVE),
    (0, b"BZh", _ARCHIVE),
    (0, b"\xfd7zXZ\x00", _ARCHIVE),
    (0, b"version https://git-lfs", "a Git LFS pointer: fetch the file that it names"),
    (0, b"<", "a web page, not the file behind it: download it again"),
    (
        *(257, b"ustar"),
        "a tar archive, as torch.save wrote before 0.1.9: load it with such a torch "
        "and save it again, or unpack it",
    ),
    (12, b"V 1", _TORCH7),
)


def check_weights(spec: str | None) -> str:
    """Refuse a missing file, a foreign format or a wrong name, before torch is loaded.

    Raises:
        WeightsError: what `load_weights` would raise, or nothing was given.
    """
    if spec is None:
        raise WeightsError(
            "--weights: expected `tiny` (comes with aqa), `random`, or a C3D weights "
            "file: c3d_ucf101_iter_38000.caffemodel of video-caffe, "
            "conv3d_deepnetA_sport1m_iter_1900000 of C3D, c3d.pickle, or one that "
            "`aqa pretrain` made"
        )
    if spec != "tiny" and random_seed(spec) is None:
        kind_of(Path(spec))
    return spec


def random_seed(spec: str) -> int | None:
    """Return SEED of `random:SEED`, 0 for `random`, None for anything else.

    Raises:
        WeightsError: the seed is not a number.
    """
    kind, _, seed = spec.partition(":")
    if kind != "random":
        return None
    if seed and not (seed.isascii() and seed.isdigit() and len(seed) < 19):
        raise WeightsError(f"expected random or random:SEED, found random:{seed}")
    return int(seed or 0)


def kind_of(path: Path) -> str:
    """Return the kind of a file; "caffe" for one without a known signature.

    Raises:
        WeightsError: no such file, or a kind that is refused.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise WeightsError(f"{path}: expected a weights file, found no such thing")
        with path.open("rb") as file:
            head = file.read(512)  # tar's signature is at byte 257
            file.seek(max(0, size - len(_TENSORFLOW_FOOTER)))
            tail = file.read()
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read ({error.strerror}); pass a weights file, `tiny`, "
            "or `random` for untrained weights"
        ) from None
    if size == 0:
        raise WeightsError(f"{path}: an empty file; download it again")
    # First, because the length of the header may look like another signature.
    if int.from_bytes(head[:8], "little") <= size - 8 and head[8:9] == b"{":
        return "safetensors"
    if (reason := _refusal(path, head, tail)) is not None:
        raise WeightsError(f"{path} is {reason}")
    if head.startswith(b"PK\x03\x04") or _TORCH_MAGIC in head[:64]:
        return "pytorch"
    return "npy" if head.startswith(b"\x93NUMPY") else "caffe"


def _refusal(path: Path, head: bytes, tail: bytes) -> str | None:
    for place, signature, reason in _REFUSED:
        if head.startswith(signature, place):
            return reason
    if tail == _TENSORFLOW_FOOTER or path.name.endswith((".ckpt.meta", "-00001")):
        return _TENSORFLOW
    if path.suffix == ".t7":
        return _TORCH7
    pickled = (head[:1] == b"\x80" and head[1:2] <= b"\x05") or path.suffix == ".pkl"
    if pickled and not (head.startswith(b"PK") or _TORCH_MAGIC in head[:64]):
        return _PICKLE
    return None
