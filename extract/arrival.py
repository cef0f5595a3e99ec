"""Values on their way from the device that computes them to the host.

Conventions: a copy to pinned memory is queued behind the work itself, and a mark
behind the copy; only the mark is waited for, not what the device is given afterwards.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Arrival:
    """Values of any shape, which come as float32."""

    def __init__(self, values: Tensor) -> None:
        """Send them off; this does not wait."""
        # From a GPU into pinned memory; on the CPU they are there already.
        self._host = values.float().to("cpu", non_blocking=True)
        self._mark = None
        if values.is_cuda:
            self._mark = torch.cuda.current_stream(values.device).record_event()

    def wait(self) -> npt.NDArray[np.float32]:
        """Return the values as soon as they are there."""
        if self._mark is not None:
            self._mark.synchronize()
        values: npt.NDArray[np.float32] = self._host.numpy()
        return values
