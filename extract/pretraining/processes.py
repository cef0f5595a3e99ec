"""The processes of one training run: one alone, or those that torchrun started.

Conventions: torchrun says by environment which rank a process is, of how many, and
which device on its machine; without it a run is one process. Rank 0 writes files.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from aqa.cache.errors import AqaError
from aqa.extract.precision import choose_device


def rank() -> int:
    """Which of the processes this is; that of rank 0 speaks for all."""
    return int(os.environ.get("RANK", 0))


@dataclass(frozen=True)
class Processes:
    """This process among all; `device` is where it computes."""

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Return this process's part of a batch, all parts equal."""
        if batch % self.count:
            raise AqaError(
                f"batch: expected a multiple of the {self.count} processes, "
                f"found {batch}"
            )
        size = batch // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def any(self, here: bool) -> bool:
        """Whether it is so in any process; all have to ask."""
        if self.count == 1:
            return here
        told = torch.tensor(float(here), device=self.device)
        distributed.all_reduce(told)
        return bool(told)

    def wait(self) -> None:
        """Let no process go on before all are here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Join the other processes, for as long as the block runs."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    place = choose_device(device)
    if count == 1:
        yield Processes(0, 1, place)
        return
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Processes(rank(), count, place)
    finally:
        distributed.destroy_process_group()
