"""A training run on disk between two iterations: all that the next one depends on.

Conventions: a checkpoint holds the parameters and velocities under Caffe's names,
the iteration (how many are done), and the digest-like `asked` record of everything
that decides the course of a run. There is no random state in it: what an iteration
draws is a function of the seed and its number (see `sampling.py`). It is replaced
atomically, so that a kill leaves the one before.

It is a PyTorch file of plain values and arrays, which `load_weights` also reads: the
stamp in it says how the weights are to be used.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aqa.cache.errors import AqaError
from aqa.cache.replacement import remove_orphans, replacing
from aqa.extract.weights import archive
from aqa.extract.weights.stamp import KEY


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
            found = archive.load(path)
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
