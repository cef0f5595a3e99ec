"""The n-th system call fails, or is the last one; the disk is full at any byte.

Everything that writes is run in a child (see `extraction.everything`), once for each
n, in an order of chance. Then it must be as if nothing had been: what the child told
is there, and running again ends in the golden bytes.
"""

import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from soak.extraction import (
    ESCAPED,
    Tell,
    complaint,
    everything,
    fork,
    snapshot,
    undisturbed,
)
from soak.tally import Attack

CALLS = ("open", "write", "ftruncate", "fsync", "close", "replace", "unlink", "mkdir")
ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES)
FAILS, DIES, FULL = "n-th call fails", "SIGKILL at the n-th call", "disk full at byte n"


def run(attack: Attack) -> None:
    golden = undisturbed(attack.folder / "golden", everything)
    total = count_calls(attack.folder / "counted")
    largest = max(map(len, golden.values()))
    cases = [(kind, n) for kind in (FAILS, DIES) for n in range(1, total + 1)]
    cases += [(FULL, n) for n in range(0, largest + 100, 211)]
    attack.rng.shuffle(cases)
    for kind, n in cases:
        if attack.over:
            break
        attack.rows[kind].tried += 1
        if what := attempt(attack, kind, n, golden):
            attack.lose(kind, f"n = {n} of {total}: {what}")
        else:
            attack.rows[kind].held += 1


def attempt(attack: Attack, kind: str, n: int, golden: dict[str, bytes]) -> str:
    """Do everything under one fault, and again without: what was lost, if anything."""
    place = attack.folder / "faulty"
    cache = place / "features.h5"
    hurt: dict[str, Callable[[int], None]] = {
        FAILS: partial(fail_at, error=attack.rng.choice(ERRORS)),
        DIES: partial(die_at, after=attack.rng.random() < 0.5),
        FULL: full_at,
    }
    child = fork(partial(_hurt_and_run, partial(hurt[kind], n), cache))
    code, told = child.wait()
    try:
        if code == ESCAPED or (code < 0 and kind != DIES):
            return f"ended in {code}, not in an AqaError"
        if what := complaint(cache, told):
            return what
        code, _ = fork(partial(everything, cache)).wait()
        if code:
            return f"running again ended in {code}"
        if (found := snapshot(place)) != golden:
            names = sorted(k for k in found | golden if found.get(k) != golden.get(k))
            return f"other files or bytes: {names}"
        return ""
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _hurt_and_run(hurt: Callable[[], None], cache: Path, tell: Tell) -> None:
    hurt()
    everything(cache, tell)


def count_calls(place: Path) -> int:
    """How many calls it takes to do everything."""
    counted: list[str] = []
    real = {name: getattr(os, name) for name in CALLS}
    try:
        for name in CALLS:
            setattr(
                os, name, _before(real[name], lambda name=name: counted.append(name))
            )
        everything(place / "features.h5", lambda key: None)
    finally:
        for name in CALLS:
            setattr(os, name, real[name])
    return len(counted)


def fail_at(n: int, error: int) -> None:
    """Make the n-th call from now on fail; a failing close closes all the same."""
    calls = iter(range(1, 1 << 40))
    close = os.close

    def faulty(real, name):
        def call(*arguments, **keywords):
            if next(calls) != n:
                return real(*arguments, **keywords)
            if name == "close":
                close(*arguments)
            raise OSError(error, os.strerror(error))

        return call

    for name in CALLS:
        setattr(os, name, faulty(getattr(os, name), name))


def die_at(n: int, after: bool) -> None:
    """Make the process kill itself right before or after the n-th call."""
    calls = iter(range(1, 1 << 40))

    def faulty(real):
        def call(*arguments, **keywords):
            last = next(calls) == n
            if last and after:
                real(*arguments, **keywords)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keywords)

        return call

    for name in CALLS:
        setattr(os, name, faulty(getattr(os, name)))


def full_at(n: int) -> None:
    """Let the kernel refuse to make any file longer than n bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))


def _before(real, note):
    def call(*arguments, **keywords):
        note()
        return real(*arguments, **keywords)

    return call
