"""The course of a training run: a CSV file always, TensorBoard where it is installed.

Conventions: one row an iteration (counted from 1): the rate, the loss of the batch;
and, where the test list was tried after it, the accuracies, 0 to 1. A resumed run
goes on after the row of its checkpoint, so that the file reads as if it had never
stopped.
"""

import csv
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aqa.cache.replacement import replacing
from aqa.extract.pretraining.evaluation import Accuracy

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
