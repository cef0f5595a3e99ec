"""What a training run keeps on disk, and the signals that stop it.

Conventions: a checkpoint is a PyTorch file of plain values and arrays under Caffe's
names, replaced atomically; it holds no random state, since what an iteration draws
depends on the seed and its number. `asked` is a record of everything that determines a
run. A loss curve has one row per iteration, counted from 1; accuracies are 0 to 1.
"""

import csv
import io
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from aqa.cache.errors import AqaError
from aqa.cache.files import remove_orphans, replacing, write_file
from aqa.extract.pretraining.classifier import Accuracy
from aqa.extract.weights.read import in_child, load_pickle

#: Iteration, rate, loss, accuracy where the test list was classified.
AddRow = Callable[[int, float, float, Accuracy | None], None]
_COLUMNS = ("iteration", "learning_rate", "loss", "clip_accuracy", "video_accuracy")


def write_checkpoint(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a checkpoint, and remove what killed runs left half-written."""
    remove_orphans(path.parent, path.name)
    with replacing(path) as file:
        torch.save(dict(values), file)


def read_checkpoint(path: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the checkpoint of the run that `asked` describes, or None.

    Raises:
        AqaError: it cannot be read, or belongs to another run.
    """
    if not path.exists():
        return None
    try:
        found = in_child(_load_checkpoint, path)
        for part in ("state_dict", "velocity"):
            found[part] = {k: torch.from_numpy(v) for k, v in found[part].items()}
        saved = dict(found["asked"])
    except (AqaError, TypeError, KeyError, AttributeError, ValueError) as error:
        reason = str(error) if isinstance(error, AqaError) else type(error).__name__
        raise AqaError(
            f"{path}: not a checkpoint of ours ({reason.removeprefix(f'{path}: ')}); "
            "remove it to start again"
        ) from None
    different = [
        f"{key} was {saved.get(key)}, is {asked.get(key)}"
        for key in sorted({*saved, *asked})
        if saved.get(key) != asked.get(key)
    ]
    if different:
        raise AqaError(
            f"{path} is of another run ({'; '.join(different)}); remove it to start "
            "again, or write to another file"
        )
    return found


def _load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint in a child process, with its tensors as NumPy arrays."""
    found = load_pickle(path)
    return {
        "iteration": int(found["iteration"]),
        "asked": dict(found["asked"]),
        "state_dict": {k: v.numpy() for k, v in found["state_dict"].items()},
        "velocity": {k: v.numpy() for k, v in found["velocity"].items()},
        "scaler": dict(found["scaler"]),
    }


@contextmanager
def loss_curve(out: Path, after: int) -> Iterator[AddRow]:
    """Yield a function that adds an iteration to `out`.csv, and to TensorBoard if that
    is installed. Rows after iteration `after`, of an interrupted run, are dropped.
    """
    path = out.with_name(f"{out.name}.csv")
    kept: list[list[str]] = []
    if after and path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            kept = list(csv.reader(file))[1 : after + 1]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *kept])
    write_file(path, text.getvalue())
    board: Any = None
    with suppress(ImportError):
        from torch.utils.tensorboard import SummaryWriter

        folder = path.with_suffix(".tensorboard")
        board = SummaryWriter(str(folder), purge_step=after + 1)
    with path.open("a", newline="", encoding="utf-8", buffering=1) as file:
        rows = csv.writer(file, lineterminator="\n")

        def add(
            iteration: int, rate: float, loss: float, accuracy: Accuracy | None
        ) -> None:
            accuracies = accuracy or ("", "")
            rows.writerow([iteration, f"{rate:.8g}", f"{loss:.8g}", *accuracies])
            if board is not None:
                values = {"loss": loss, "learning rate": rate}
                if accuracy is not None:
                    values["clip accuracy"], values["video accuracy"] = accuracy
                for name, value in values.items():
                    board.add_scalar(name, value, iteration)

        try:
            yield add
        finally:
            if board is not None:
                board.close()


@contextmanager
def signals_deferred() -> Iterator[threading.Event]:
    """Yield an event that SIGINT or SIGTERM set; a second one interrupts at once.

    In threads other than the main one, which Python gives no signals, nothing changes.
    """
    came = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
