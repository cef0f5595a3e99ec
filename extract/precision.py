"""Where the network runs, and what its arithmetic is done in.

Conventions: a precision is "fp32"; "tf32", which is fp32 with CUDA's rounded products;
"bf16" or "fp16", in which weights and activations are held as well, and sums are
taken in fp32 by the kernels. What is named is what runs: fp32 on CUDA is not TF32,
as torch would have it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from aqa.cache.errors import AqaError

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

#: What a device can do; "auto" takes the first that it can do natively.
OFFERED = {"cpu": ("fp32", "bf16"), "cuda": ("bf16", "fp16", "tf32", "fp32")}


def choose_device(name: str) -> torch.device:
    """Take `name`, or for "auto" CUDA where it is; AqaError where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in OFFERED:
        raise AqaError(f"device: expected auto, cpu, cuda or cuda:N, found {name!r}")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise AqaError(f"device: asked for {name}, found {count} GPUs for CUDA")
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Take `name`; "auto" is fp32 on CPU, and on CUDA bf16 or, on old GPUs, fp16."""
    offered = OFFERED[device.type]
    if name == "auto":
        if device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
            return "fp16"
        return offered[0]
    if name not in offered:
        raise AqaError(
            f"precision: expected auto, {' or '.join(offered)} on {device.type}, "
            f"found {name}"
        )
    return name


def remark(precision: str, device: torch.device) -> str | None:
    """Say what the user should know of such a run, if anything."""
    if precision == "bf16" and device.type == "cpu":
        able = torch.cpu.get_capabilities()
        if not any(has for name, has in able.items() if "bf16" in name):
            return "this processor has no bf16 instructions: fp32 is far faster here"
    return None


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Make CUDA compute in `precision`, and choose the same kernels every time."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    conv = cudnn.conv  # type: ignore[attr-defined]
    before = conv.fp32_precision, matmul.fp32_precision, cudnn.deterministic
    products = "tf32" if precision == "tf32" else "ieee"
    try:
        conv.fp32_precision = matmul.fp32_precision = products
        cudnn.deterministic = True
        yield
    finally:
        conv.fp32_precision, matmul.fp32_precision, cudnn.deterministic = before
