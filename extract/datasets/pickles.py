"""Lists that are released as pickles: read without running any code in them.

Conventions: a pickle may hold dictionaries, lists, tuples, texts, numbers and NumPy's
arrays and scalars; anything else is refused. It is read in a child process with limits
(`aqa.cache.sandbox`).
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.errors import AqaError
from aqa.cache.sandbox import Limits, call

MAX_BYTES = 64 << 20
_LIMITS = Limits(seconds=60, memory=1 << 30)
_CORE: Any = np._core  # type: ignore[attr-defined]
_ALLOWED = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("multiarray", "scalar"): _CORE.multiarray.scalar,
    ("multiarray", "_reconstruct"): _CORE.multiarray._reconstruct,
    ("numeric", "_frombuffer"): _CORE.numeric._frombuffer,
    # Bytes in protocols 0 to 2, always with this codec.
    ("_codecs", "encode"): lambda text, _: text.encode("latin-1"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few allowed functions."""
        if module.startswith("numpy"):
            module = module.rpartition(".")[2]
        if (module, name) not in _ALLOWED:
            raise AqaError(
                f"expected plain data, found {module}.{name}: convert it to a CSV"
            )
        return _ALLOWED[module, name]


def read_pairs(path: Path) -> list[tuple[Any, Any]]:
    """Return a list of pairs, which name samples; AqaError if it is none."""
    found = read_pickle(path)
    if not isinstance(found, list) or not all(map(_is_pair, found)):
        raise AqaError(f"{path.name}: expected a list of pairs, found another value")
    return [(first, second) for first, second in found]


def read_labels(path: Path) -> dict[tuple[Any, Any], Any]:
    """Return labels by pair; AqaError if it is no such dictionary."""
    found = read_pickle(path)
    if not isinstance(found, dict) or not all(map(_is_pair, found)):
        raise AqaError(f"{path.name}: expected labels by pair, found another value")
    return found


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def read_pickle(path: Path) -> Any:
    """Return the content of a pickle; AqaError names the file."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise AqaError(f"{path.name}: expected a list, found {size} bytes")
    try:
        return call(_load, path, limits=_LIMITS)
    except AqaError as error:
        raise type(error)(f"{path.name}: {error}") from error


def _load(path: Path) -> Any:
    return _plain(_Unpickler(io.BytesIO(path.read_bytes())).load())


def _plain(value: Any) -> Any:
    """Return a value with NumPy's types turned into Python's."""
    if isinstance(value, dict):
        return {_plain(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
