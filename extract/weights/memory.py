"""Memory that reading a file may take, held to what the file can honestly need.

Conventions: sizes in bytes. The limit is the kernel's, on writable private memory of
the whole process; only Linux has it, elsewhere nothing is held back. One thread at a
time is in here, and the others do well not to need much meanwhile.
"""

import re
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
