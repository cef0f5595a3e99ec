"""What a weights file of ours says of itself: its stamp.

Conventions: the stamp is one JSON object, with sorted keys, so that the same
weights make the same bytes; it stands under "aqa" in safetensors' metadata and in
our training checkpoints. A mean that is an image is no JSON and lies beside the
weights as the tensor `MEAN_IMAGE`, (3, crop, crop) in the network's channel order.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from aqa.cache.errors import AqaError, brief
from aqa.extract.c3d import ARCHITECTURES, POOL5
from aqa.extract.preprocessing import Preprocessing
from aqa.extract.weights.kinds import WeightsError

VERSION = 1
KEY = "aqa"
MEAN_IMAGE = "mean_image"


@dataclass(frozen=True)
class Stamp:
    """The preset of weights, where they come from, and the digest of their numbers.

    An empty digest is one that nobody took: nothing is checked by it. `notes` is for
    people: a recipe, an accuracy; JSON values only.
    """

    name: str
    arch: str
    pool5: str
    preprocessing: Preprocessing
    origin: str
    state_sha256: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> str:
        """Write the stamp; an image mean is left out, for `MEAN_IMAGE`."""
        record = {part.name: getattr(self, part.name) for part in fields(self)}
        pre = self.preprocessing
        record["preprocessing"] = {
            part.name: getattr(pre, part.name) for part in fields(pre)
        }
        if isinstance(pre.mean, np.ndarray):
            record["preprocessing"]["mean"] = None
        record["notes"] = dict(self.notes)
        return json.dumps({"version": VERSION, **record}, sort_keys=True)

    @classmethod
    def parse(cls, text: str, mean: NDArray[np.float32] | None = None) -> "Stamp":
        """Read a stamp, with the image mean that lay beside it.

        Raises:
            WeightsError: if it is not what `json` writes.
        """
        try:
            record = json.loads(text)
            if record.pop("version") != VERSION:
                raise WeightsError(f"a stamp of another version than {VERSION}")
            values = dict(record.pop("preprocessing"))
            if values["mean"] is None:
                if mean is None:
                    raise WeightsError(f"its stamp promises a tensor {MEAN_IMAGE}")
                values["mean"] = mean
            else:
                values["mean"] = tuple(map(float, values["mean"]))
            values["std"] = tuple(map(float, values["std"]))
            for key in ("name", "arch", "pool5", "origin", "state_sha256"):
                if not isinstance(record[key], str) or not record[key].isprintable():
                    raise WeightsError(f"its {key} is no line of text")
            stamp = cls(preprocessing=_checked(Preprocessing(**values)), **record)
            if stamp.arch not in ARCHITECTURES or stamp.pool5 not in POOL5:
                raise WeightsError(f"unknown {stamp.arch} or {stamp.pool5}")
            if not isinstance(stamp.notes, dict):
                raise WeightsError("its notes are no object")
        except AqaError as error:
            raise WeightsError(f"its stamp cannot be used: {brief(error)}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise WeightsError("its stamp is not what aqa writes") from None
        return stamp


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 numbers, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].numpy().astype("<f4", copy=False)
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _checked(pre: Preprocessing) -> Preprocessing:
    """Refuse a stamp's sizes and numbers that no frame could go through."""
    sizes = [pre.height, pre.crop, pre.width or 1, pre.top or 0, pre.left or 0]
    numbers = [pre.scale, *pre.std, *np.ravel(pre.mean)]
    sound = (
        all(isinstance(size, int) and 0 <= size <= 4096 for size in sizes)
        and all(np.isfinite(number) for number in numbers)
        and min(pre.std) > 0
    )
    if not sound:
        raise WeightsError("a pre-processing that no frame can go through")
    return pre
