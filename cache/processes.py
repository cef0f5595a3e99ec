"""Processors, devices, and work in child processes.

Conventions: a device is named as torch names it: cpu, cuda, cuda:1; "auto" is CUDA
where there is a GPU, else the CPU. What a child process is, and what its function may
be, says `aqa.cache.child`; a thread here waits for each. Memory is in bytes.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import closing
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from aqa.cache.child import Child, Job, ProcessDied
from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError

if TYPE_CHECKING:
    import torch


Item = TypeVar("Item")
Result = TypeVar("Result")
#: Items for each process: one in work, one done and one to follow.
AHEAD = 3


def usable_processors() -> int:
    """Count the processors that affinity and a container's quota leave this process."""
    from joblib import cpu_count

    count: int = cpu_count()
    return count


def other_processors() -> int:
    """Count the usable processors but one, which computes while they decode."""
    return max(usable_processors() - 1, 1)


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


def call(
    function: Callable[..., Result],
    *args: Any,
    seconds: float = 60.0,
    memory: int = 1 << 30,
) -> Result:
    """Return `function(*args)`, computed in a child process: for foreign files.

    It may take `seconds`, and `memory` bytes beyond what the child holds before the
    call; neither may the result be larger, nor can the child write files. Raises
    AqaError, in one line that does not name the file, where the function raised,
    crashed or exceeded a limit; UnreadableFile where the system refused (permission,
    I/O) or no child could start: this says nothing about the file.
    """
    child = Child(Job(function, seconds=seconds, memory=memory))
    with closing(child):
        outcome = child.outcome(*args)
    if isinstance(outcome, AqaError):
        raise outcome
    result: Result = outcome
    return result


def process_outcomes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int | None = None,
    **job: Any,
) -> Generator[Result | AqaError, None, None]:
    """Yield `function(item)` or the AqaError it ended in, in the order of `items`.

    At most `workers` processes (None: one per usable processor) run at once; of the
    items at most `AHEAD` for each are taken before their turn. `job` are fields of
    `Job`: `prepare` and `arguments`, `seconds` and `memory`. A process that crashes or
    takes too long costs its item only. Closing the iterator ends them.

    Raises AqaError when processes die before they do anything, and whatever else than
    an AqaError `function` raises.
    """
    workers = workers or usable_processors()
    tasks: SimpleQueue[tuple[Item, Future[Any]] | None] = SimpleQueue()
    pending: deque[Future[Any]] = deque()
    children: list[Child] = []
    threads: list[Thread] = []

    def work(child: Child) -> None:
        with closing(child):
            while task := tasks.get():
                item, future = task
                try:
                    future.set_result(child.outcome(item))
                except BaseException as error:
                    future.set_exception(error)

    try:
        for item in items:
            if len(pending) == AHEAD * workers:
                yield pending.popleft().result()
            if len(children) < workers:
                children.append(Child(Job(function, **job)))
                thread = Thread(target=work, args=children[-1:], daemon=True)
                thread.start()
                threads.append(thread)
            pending.append(Future())
            tasks.put((item, pending[-1]))
        while pending:
            yield pending.popleft().result()
    finally:
        for child in children:
            child.stop()
            tasks.put(None)
        for thread in threads:
            thread.join()


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
