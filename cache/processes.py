"""Processors, devices, what one process may take, and a map over processes.

Conventions: a device is named as torch names it: cpu, cuda, cuda:1; "auto" is CUDA
where there is a GPU, else the CPU. Worker processes are started fresh (spawn), so they
are safe beside threads and torch; they ignore Ctrl-C, which is the caller's to handle,
and end with the caller, however that ends. A function for a worker must be importable.
Memory is in bytes.
"""

import ctypes
import multiprocessing
import os
import re
import resource
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError

if TYPE_CHECKING:
    import torch


class ProcessDied(AqaError):
    """A worker process crashed, or was ended after its time; does not name the item."""


Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_processors() -> int:
    """Count the processors that affinity and a container's quota leave this process."""
    from joblib import cpu_count

    count: int = cpu_count()
    return count


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


def limit_memory(extra: int) -> None:
    """Let this process allocate `extra` bytes beyond what it holds now (Linux only).

    The limit is on private writable memory: one on addresses would count what torch's
    libraries reserve without using it.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return
    if held := re.search(r"VmData:\s+(\d+) kB", status):
        most = int(held[1]) * 1024 + extra
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def kill_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that forked it ends (Linux).

    Only for direct children: a worker of a fork server needs `exit_with_parent`.
    """
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def exit_with_parent() -> None:
    """Exit as soon as the process that started this multiprocessing worker is gone.

    Works for workers of a fork server, too, which is their parent to the kernel.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def process_outcomes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None = None,
    *,
    seconds: float | None = None,
    prepare: Callable[..., object] | None = None,
    arguments: tuple[Any, ...] = (),
    preload: str | None = None,
) -> Generator[Result | AqaError, None, None]:
    """Yield `function(item)` or the AqaError it ended in, in the order of `items`.

    At most `workers` processes (None: one per usable processor) run at once, none more
    than a few items ahead of what was yielded; each calls `prepare(*arguments)` first.
    One that crashes, or takes more than `seconds` over an item, costs that item only.
    With `preload`, they are forked from a server that has imported this module.
    Closing the iterator ends them.

    Raises AqaError when processes die before they do anything, and whatever else than
    an AqaError `function` raises.
    """
    from pebble import ProcessExpired, ProcessPool

    workers = min(workers or usable_processors(), max(1, len(items)))
    context = multiprocessing.get_context("forkserver" if preload else "spawn")
    if preload:
        context.set_forkserver_preload([preload])
    pool: Any = ProcessPool(
        workers,
        initializer=_start_worker,
        initargs=(prepare, arguments),
        context=context,
    )
    pending: deque[Any] = deque()

    def oldest() -> Result | AqaError:
        try:
            result: Result = pending.popleft().result()
            return result
        except AqaError as error:
            return error
        except TimeoutError:
            return ProcessDied(f"takes longer than {seconds:g} s")
        except ProcessExpired as error:
            return ProcessDied(f"its process crashed ({exit_cause(error.exitcode)})")

    try:
        for item in items:
            if len(pending) == 3 * workers:
                yield oldest()
            pending.append(pool.schedule(function, (item,), timeout=seconds))
        while pending:
            yield oldest()
    except (BrokenProcessPool, RuntimeError) as error:
        if isinstance(error, RuntimeError) and pool.active:
            raise
        raise AqaError(
            "worker processes die before they do anything: is there memory for "
            f"{workers} of them, and does the calling script start under "
            '`if __name__ == "__main__":`?'
        ) from error
    finally:
        pool.stop()
        pool.join()


def process_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None = None,
    progress: Progress = silent,
    label: Callable[[Item], str] = str,
) -> list[Result]:
    """Return `function(item)` for all items, in order; one worker works in here.

    `progress` counts items and shows their `label`. Raises what the first failing
    item raises, and AqaError naming the item whose process died.
    """
    total = len(items)
    workers = min(workers or usable_processors(), total)
    if workers > 1:
        outcomes = process_outcomes(function, items, workers)
    else:
        outcomes = (function(item) for item in items)
    results: list[Result] = []
    with closing(outcomes):
        for done, item in enumerate(items):
            progress(done, total, label(item))
            outcome = next(outcomes)
            if isinstance(outcome, ProcessDied):
                raise AqaError(f"{label(item)}: {outcome}")
            if isinstance(outcome, AqaError):
                raise outcome
            results.append(outcome)
    progress(total, total, "done")
    return results


def exit_cause(code: int) -> str:
    """Say how a process ended: `exit code 3` or the name of a signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _start_worker(prepare: Callable[..., object] | None, arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with_parent()
    if prepare is not None:
        prepare(*arguments)
