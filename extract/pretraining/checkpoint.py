"""Ctrl-C and SIGTERM, held back until the work at hand can be laid down.

Conventions: the first signal is only noted, a second one interrupts at once. Python
hands signals to the main thread: from another one nothing is held back.

The course of a training run: a CSV file always, TensorBoard where it is installed.

Conventions: one row an iteration (counted from 1): the rate, the loss of the batch;
and, where the test list was tried after it, the accuracies, 0 to 1. A resumed run
goes on after the row of its checkpoint, so that the file reads as if it had never
stopped.

A training run on disk between two iterations: all that the next one depends on.

Conventions: a checkpoint holds the parameters and velocities under Caffe's names,
the iteration (how many are done), and the digest-like `asked` record of everything
that decides the course of a run. There is no random state in it: what an iteration
draws is a function of the seed and its number (see `sampling.py`). It is replaced
atomically, so that a kill leaves the one before.

It is a PyTorch file of plain values and arrays, which `load_weights` also reads: the
stamp in it says how the weights are to be used.
"""

import csv
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from aqa.cache.errors import AqaError
from aqa.cache.files import remove_orphans, replacing
from aqa.extract.pretraining.classifier import Accuracy
from aqa.extract.weights import formats
from aqa.extract.weights.formats import KEY


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


HEADER = ("iteration", "learning_rate", "loss", "clip_accuracy", "video_accuracy")


class Curve:
    """Writes rows as they come; a context manager."""

    def __init__(self, path: Path, after: int) -> None:
        """Keep the rows up to iteration `after` of an earlier part of the run."""
        kept: list[list[str]] = []
        if after and path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                kept = list(csv.reader(file))[1 : after + 1]
        with (
            replacing(path) as descriptor,
            open(descriptor, "w", newline="", encoding="utf-8", closefd=False) as file,
        ):
            csv.writer(file, lineterminator="\n").writerows([HEADER, *kept])
        self._file = path.open("a", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._board = _board(path.with_suffix(".tensorboard"), after)

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def add(
        self, iteration: int, rate: float, loss: float, accuracy: Accuracy | None
    ) -> None:
        """Write the row of an iteration."""
        tried = accuracy or ("", "")
        self._rows.writerow([iteration, f"{rate:.8g}", f"{loss:.8g}", *tried])
        self._file.flush()
        if self._board is not None:
            values = {"loss": loss, "learning rate": rate}
            if accuracy is not None:
                values["clip accuracy"], values["video accuracy"] = accuracy
            for name, value in values.items():
                self._board.add_scalar(name, value, iteration)


def _board(folder: Path, after: int) -> Any:
    """Open TensorBoard's log, dropping what a stopped run wrote past `after`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=after + 1)


@dataclass(frozen=True)
class Checkpoint:
    """The state after `iteration` iterations of the run that `asked` describes."""

    iteration: int
    asked: Mapping[str, Any]
    stamp: str
    model: Mapping[str, Tensor]
    velocity: Mapping[str, Tensor]
    #: Of the loss scaling of fp16; empty in other precisions.
    scaler: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write to a temporary file, and put it in the place of the last one.

        What killed runs have left half-written goes.
        """
        remove_orphans(path.parent, path.name)
        values = {
            KEY: self.stamp,
            "iteration": self.iteration,
            "asked": dict(self.asked),
            "state_dict": dict(self.model),
            "velocity": dict(self.velocity),
            "scaler": dict(self.scaler),
        }
        with (
            replacing(path) as descriptor,
            os.fdopen(descriptor, "wb", closefd=False) as file,
        ):
            torch.save(values, file)

    @classmethod
    def load(cls, path: Path, asked: Mapping[str, Any]) -> "Checkpoint | None":
        """Read the checkpoint of a run, None where there is none.

        Raises:
            AqaError: if it cannot be read, or is of a run that was asked for otherwise.
        """
        if not path.exists():
            return None
        try:
            found = formats.load_pickle(path)
            checkpoint = cls(
                iteration=int(found["iteration"]),
                asked=found["asked"],
                stamp=found[KEY],
                model=found["state_dict"],
                velocity=found["velocity"],
                scaler=found["scaler"],
            )
        except Exception as error:  # whatever a foreign or damaged file brings about
            reason = error if isinstance(error, AqaError) else type(error).__name__
            raise AqaError(
                f"{path}: not a checkpoint of ours ({reason}); remove it to begin anew"
            ) from None
        different = [
            f"{key} was {checkpoint.asked.get(key)}, is {asked.get(key)}"
            for key in sorted({*checkpoint.asked, *asked})
            if checkpoint.asked.get(key) != asked.get(key)
        ]
        if different:
            raise AqaError(
                f"{path} is of another run ({'; '.join(different)}); remove it to "
                "begin anew, or write to another file"
            )
        return checkpoint
