"""Choice of the device that both stages compute on.

Conventions: a device is named as torch names it: cpu, cuda, cuda:1; "auto" is CUDA
where there is a GPU, else the CPU.
"""

import os
from typing import TYPE_CHECKING

from aqa.cache.errors import AqaError

if TYPE_CHECKING:
    import torch


def share_processors() -> None:
    """Let OpenMP's waiting threads give their processor away, unless set otherwise.

    A thread that waits for one whose processor another process has would burn its own.
    Has no effect after torch was imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def choose_device(name: str) -> "torch.device":
    """Return the device `name`; raises `AqaError` where there is no such device."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise AqaError(f"device: expected auto, cpu, cuda or cuda:N, found {name!r}")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise AqaError(f"device: asked for {name}, found {count} CUDA GPUs")
    return device
