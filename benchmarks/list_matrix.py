"""Every way in which a list of labels may be written, and what becomes of each.

The cells are the product of encoding, separator, decimal sign, end of line, normal form
of text, case of names and further columns. Each is written with Python's csv module and
read as labels, as an import and as a list of videos. Run it for the table:

    python benchmarks/list_matrix.py
"""

import csv
import io
import math
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from aqa.cache.errors import AqaError
from aqa.cache.exchange import import_features
from aqa.cache.labels import Label, read_labels
from aqa.cache.store import FeatureCache
from aqa.extract.datasets import read_dataset

ENCODINGS = {
    "UTF-8": "utf-8",
    "UTF-8, mark": "utf-8-sig",
    "UTF-16, mark": "utf-16",
    "UTF-16, no mark": "utf-16-le",
    "UTF-32, mark": "utf-32",
    "Latin-1": "latin-1",
}
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t"}
LINES = {"LF": "\n", "CRLF": "\r\n"}
FORMS = {"composed": "NFC", "decomposed": "NFD", "in blanks": "NFC"}
CASES = ("lower", "Title")
EXTRA = ("none", "fold", "index", "sep=")

#: What all cells say: key -> labels. Scores are written with a point or a comma.
LABELS = {
    "kür/1": Label("kür", 61.5, "train"),
    "kür/2": Label("kür", 70.25, "test"),
    "b": Label("knot tying", math.nan, ""),
}


@dataclass(frozen=True)
class Cell:
    """One way to write a list."""

    encoding: str
    separator: str
    decimal: str
    lines: str
    form: str
    case: str
    extra: str


def cells() -> Iterator[Cell]:
    """Yield the product of all properties."""
    axes = (ENCODINGS, SEPARATORS, ("point", "comma"), LINES, FORMS, CASES, EXTRA)
    for values in product(*axes):
        yield Cell(*values)


def written(cell: Cell, column: str, name: Callable[[str], str]) -> bytes | None:
    """Return the bytes of a list whose `column` holds `name(key)`.

    None where the encoding has no decomposed letters.
    """
    header = [column, "action", "score", "split"]
    header += ["file"] * (column == "key") + ["fold"] * (cell.extra == "fold")
    rows = []
    for number, (key, label) in enumerate(LABELS.items()):
        score = "" if math.isnan(label.score) else repr(label.score)
        score = score.replace(".", "," if cell.decimal == "comma" else ".")
        split = label.split.title() if cell.case == "Title" else label.split
        row = [name(key), label.action, score, split]
        row += ["x.npy"] * (column == "key") + ["2"] * (cell.extra == "fold")
        if cell.form == "in blanks":
            row[1:4] = [f" {text}\u00a0" if text else text for text in row[1:4]]
        rows.append([str(number)] * (cell.extra == "index") + row)
    if cell.case == "Title":
        header = [name.title() for name in header]
    header = [""] * (cell.extra == "index") + header
    text = io.StringIO(newline="")
    separator = SEPARATORS[cell.separator]
    if cell.extra == "sep=":
        text.write(f"sep={separator}{LINES[cell.lines]}")
    writer = csv.writer(
        text, delimiter=separator, lineterminator=LINES[cell.lines], strict=True
    )
    writer.writerows([header, *rows])
    form = FORMS[cell.form]
    normal = unicodedata.normalize(form, text.getvalue())  # type: ignore[arg-type]
    try:
        return normal.encode(ENCODINGS[cell.encoding])
    except UnicodeEncodeError:
        return None


def as_labels(path: Path) -> dict[str, Label]:
    """Read the list as `aqa cache relabel` does."""
    return dict(read_labels(path))


def as_import(path: Path) -> dict[str, Label]:
    """Read the list as `aqa cache import` does, and the cache that it makes."""
    cache = path.with_name("imported.h5")
    cache.unlink(missing_ok=True)
    import_features(path, "matrix", cache)
    with FeatureCache.open(cache) as opened:
        return {
            s.key: Label(s.action, s.score, s.split, s.extra) for s in opened.samples
        }


def as_videos(path: Path) -> dict[str, Label]:
    """Read the list as `aqa extract` does."""
    return {
        video.key: Label(
            video.action, video.score, video.split, getattr(video, "extra", {})
        )
        for video in read_dataset(path).videos
    }


READERS = {"labels": as_labels, "import": as_import, "videos": as_videos}


def prepare(folder: Path) -> None:
    """Make the files that the lists name."""
    np.save(folder / "x.npy", np.ones((2, 3), np.float32))
    for key in LABELS:
        (folder / key).parent.mkdir(exist_ok=True)
        (folder / key).with_name(f"{Path(key).name}.avi").touch()


def outcome(cell: Cell, reader: str, folder: Path) -> str:
    """Say what a reader makes of a cell: `read`, `refused: ...` or `WRONG: ...`."""
    column = "video" if reader == "videos" else "key"
    suffix = ".avi" if reader == "videos" else ""
    data = written(cell, column, lambda key: f"{key}{suffix}")
    if data is None:
        return "cannot be written"
    path = folder / "list.csv"
    path.write_bytes(data)
    try:
        found = READERS[reader](path)
    except AqaError as error:
        message = str(error).split("\n")[-1].removeprefix(f"{path}: ")
        return f"refused: {message[:100]}"
    fold = "Fold" if cell.case == "Title" else "fold"
    extra = {fold: "2"} if cell.extra == "fold" else {}
    expected = {
        f"{key}{suffix}": Label(label.action, label.score, label.split, extra)
        for key, label in LABELS.items()
    }
    if repr(sorted(found.items())) == repr(sorted(expected.items())):
        return "read"
    return f"WRONG: {sorted(found.items())}"


def table(folder: Path) -> str:
    """Return outcomes counted by encoding, separator and reader, as Markdown."""
    counts: dict[tuple[str, str], dict[str, Counter[str]]] = {}
    for cell in cells():
        row = counts.setdefault((cell.encoding, cell.separator), {})
        for reader in READERS:
            found = outcome(cell, reader, folder).split(":")[0]
            row.setdefault(reader, Counter())[found] += 1
    lines = [f"| encoding | separator | {' | '.join(READERS)} |", "|---" * 5 + "|"]
    for (encoding, separator), row in counts.items():
        said = (
            ", ".join(f"{count} {what}" for what, count in sorted(found.items()))
            for found in row.values()
        )
        lines.append(f"| {encoding} | {separator} | {' | '.join(said)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        print(table(Path(name)))
