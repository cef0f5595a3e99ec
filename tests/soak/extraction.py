"""A real extraction of made-up features, in forked processes that may be killed.

Conventions: one video of the data set always fails, so that the bookkeeping of
failures is attacked, too. A `snapshot` is all that lies in a folder, byte by byte.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fakes import KEYS, MADE, FakeExtractor, dataset

from aqa.cache.errors import AqaError
from aqa.cache.labels import Label, relabel
from aqa.cache.parts import finished, verify
from aqa.extract.stage import extract

BROKEN = KEYS[5]
REFUSED, ESCAPED = 3, 9

Tell = Callable[[str], None]


def extractor() -> FakeExtractor:
    """An extractor on which one video of the data set always fails."""
    return FakeExtractor(broken=(BROKEN,))


def fill(cache: Path, tell: Tell, shard=None, keys=KEYS) -> None:
    """Extract, and tell each key once its video is stored, or has failed."""
    extract(dataset(keys), cache, extractor(), shard, lambda _, __, key: tell(key))


def everything(cache: Path, tell: Tell) -> None:
    """All that writes: shards, a merge into a new cache and an old one, new labels."""
    fill(cache, tell, (0, 2), KEYS[:4])
    fill(cache, tell, (1, 2), KEYS[:4])
    relabel(cache, {KEYS[1]: Label("diving", 61.0, "test")})
    fill(cache, tell)


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def undisturbed(folder: Path, work: Callable[[Path, Tell], None]) -> dict[str, bytes]:
    """What `work` leaves where nothing goes wrong."""
    folder.mkdir()
    work(folder / "features.h5", lambda key: None)
    return snapshot(folder)


def complaint(cache: Path, told: set[str]) -> str:
    """What has been lost of the videos `told` to be stored; empty if nothing."""
    lost = told - {BROKEN} - set(finished(cache, MADE))
    if lost:
        return f"lost {sorted(lost)}"
    if told - {BROKEN} and (problems := verify(cache)):
        return f"damaged: {problems}"
    return ""


@dataclass
class Child:
    """A forked process that works on a cache, and tells through a pipe."""

    pid: int
    pipe: int

    def kill(self) -> None:
        """Kill it at once."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> tuple[int, set[str]]:
        """Exit code, negative for a signal; and the keys that it told."""
        with os.fdopen(self.pipe) as told:
            keys = {line.rstrip("\n") for line in told if line.endswith("\n")}
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), keys


def fork(work: Callable[[Tell], None]) -> Child:
    """Do `work` in a child: exit code 0, REFUSED for an AqaError, else ESCAPED."""
    reading, writing = os.pipe()
    write = os.write  # before anyone makes it fail
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    code = ESCAPED

    def tell(key: str) -> None:
        write(writing, f"{key}\n".encode())

    try:
        work(tell)
        code = 0
    except AqaError:
        code = REFUSED
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)
