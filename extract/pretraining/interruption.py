"""Ctrl-C and SIGTERM, held back until the work at hand can be laid down.

Conventions: the first signal is only noted, a second one interrupts at once. Python
hands signals to the main thread: from another one nothing is held back.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether a signal came since it was made."""

    def __init__(self) -> None:
        """None has come yet."""
        self.came = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take a signal, as `signal.signal` wants it."""
        if self.came:
            raise KeyboardInterrupt
        self.came = True


@contextmanager
def held_back() -> Iterator[Interruption]:
    """Hold signals back for as long as the block runs; who asked has to look."""
    interruption = Interruption()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, interruption.note)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
