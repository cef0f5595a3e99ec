"""Read a data set in any of the known layouts.

Everything is checked before anything runs, and all problems are reported at once. To
add a layout, write a module with a `Layout` and add one line to `LAYOUTS`.
"""

from collections.abc import Sequence
from pathlib import Path

from aqa.extract.datasets import aqa7, own_data, released
from aqa.extract.datasets.dataset import (
    SUFFIXES,
    Dataset,
    DatasetError,
    Layout,
    Request,
)

#: The first that matches is read.
LAYOUTS: list[Layout] = [
    aqa7.AQA7,
    released.MTL_AQA,
    released.FINEDIVING,
    released.UNLV,
    released.JIGSAWS,
    own_data.MANIFEST,
    own_data.FOLDER,
]


def read_dataset(
    path: str | Path,
    actions: Sequence[str] | None = None,
    *,
    roots: Sequence[str | Path] = (),
    skip_missing: bool = False,
    labels_only: bool = False,
) -> Dataset:
    """Return the data set at `path`, checked; of `actions` only, if given.

    `roots`, `skip_missing` and `labels_only` are as in `Request`.

    Raises:
        DatasetError: no known layout, or not complete; names every problem.
    """
    path = Path(path)
    for root in (folders := tuple(map(Path, roots))):
        if not root.is_dir():
            raise DatasetError(f"--root {root}: expected a folder, found none")
    names = None if actions is None else tuple(actions)
    request = Request(path, names, folders, skip_missing, labels_only)
    for layout in LAYOUTS:
        if layout.matches(path):
            return layout.read(request)
    *forms, last = (layout.form for layout in LAYOUTS)
    found = "another file" if path.exists() else "nothing"
    if path.suffix.lower() in SUFFIXES and path.is_file():
        found = "one video: name its folder, or `aqa score` it with a model"
    raise DatasetError(f"{path}: expected {', '.join(forms)} or {last}, found {found}")
