"""Finished heads on disk, each under the digest of everything that made it.

Conventions: one safetensors file a head, `<digest>.safetensors`: its parameters as
`w_x`, `w_h`, `b`, `v`, `c` (none where the task keeps none), `iterations`, `watched`
and `loss`. A file is written under a temporary name and renamed, so a name that
exists is a head that is complete.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from aqa.cache.errors import AqaError, brief
from aqa.cache.replacement import replacing
from aqa.regress.tasks import TrainedHead

NOTES = ("iterations", "watched", "loss")


class HeadStore:
    """A folder of finished heads."""

    def __init__(self, folder: Path) -> None:
        """Look at a folder, which need not exist yet."""
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Where the head of this digest lies, or will lie."""
        return self.folder / f"{digest}.safetensors"

    def __contains__(self, digest: str) -> bool:
        """Whether the head of this digest is finished."""
        return self.path(digest).is_file()

    def write(self, digest: str, head: TrainedHead) -> None:
        """Keep a head."""
        arrays: dict[str, NDArray[Any]] = {
            **head.parameters,
            "iterations": np.array(head.iterations, np.int64),
            "watched": head.watched,
            "loss": head.loss,
        }
        with replacing(self.path(digest)) as descriptor:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(save(arrays))

    def read(self, digest: str) -> TrainedHead:
        """The head of a digest; raises `AqaError` where the file is damaged."""
        path = self.path(digest)
        try:
            arrays = load_file(path)
            notes = {name: arrays.pop(name) for name in NOTES}
        except (SafetensorError, KeyError) as error:
            raise AqaError(
                f"{path}: not a finished head ({brief(error)}); remove it, and it is "
                "made anew"
            ) from error
        return TrainedHead(
            parameters=arrays,
            iterations=tuple(int(done) for done in notes["iterations"]),
            watched=notes["watched"],
            loss=notes["loss"],
        )


class StoredHeads(Sequence[TrainedHead]):
    """Heads of a store in an order of their own, read anew whenever asked for."""

    def __init__(self, store: HeadStore, digests: Sequence[str]) -> None:
        """Take heads by their digests; all of them are in the store."""
        self._store = store
        self._digests = digests

    def __len__(self) -> int:
        """How many heads there are."""
        return len(self._digests)

    @overload
    def __getitem__(self, place: int) -> TrainedHead: ...
    @overload
    def __getitem__(self, place: slice) -> "StoredHeads": ...
    def __getitem__(self, place: int | slice) -> "TrainedHead | StoredHeads":
        """One head, or some of them."""
        if isinstance(place, slice):
            return StoredHeads(self._store, self._digests[place])
        return self._store.read(self._digests[place])
