"""Doing many independent pieces of work in processes, in order.

Conventions: `workers` None means one per processor; 1 works in this process. New
processes are spawned, never forked, so it is safe from any thread and with torch
loaded.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Protocol, TypeVar

from aqa.cache.progress import Progress


class Labelled(Protocol):
    """A piece of work that can say what it is."""

    @property
    def label(self) -> str:
        """What to show while it is done."""


Piece = TypeVar("Piece", bound=Labelled)
Result = TypeVar("Result")


def work_through(
    work: Callable[[Piece], Result],
    pieces: Sequence[Piece],
    workers: int | None,
    progress: Progress,
) -> list[Result]:
    """Return `work` of each piece, in the order of `pieces`."""
    total = len(pieces)
    workers = min(workers or len(os.sched_getaffinity(0)), total)
    if workers <= 1:
        results = []
        for done, piece in enumerate(pieces):
            progress(done, total, piece.label)
            results.append(work(piece))
        progress(total, total, "")
        return results
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(work, piece): piece for piece in pieces}
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            progress(done, total, futures[future].label)
        return [future.result() for future in futures]
