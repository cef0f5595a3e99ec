"""Provenance: the settings that features were made with, as JSON and its digest.

Conventions: a record is a JSON object; its canonical text has sorted keys, no spaces
and no NaN, and is identified by its SHA-256 (of UTF-8, lower-case hexadecimal). Two
provenances are equal when their canonical texts are, so 1 and 1.0 differ. A path like
`weights.sha256` is the chain of keys from the top of the record.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aqa.cache.errors import AqaError, ProvenanceMismatch

#: HDF5 keeps an attribute in an object header of at most 64 KiB.
MAX_BYTES = 60_000
MAX_DEPTH = 16


@dataclass(frozen=True)
class Provenance:
    """The record, its canonical text `json`, and the text's digest `sha256`.

    Raises AqaError when the record is no JSON object, too long or too deep.
    """

    record: Mapping[str, Any] = field(compare=False)
    json: str = field(init=False, repr=False)
    sha256: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Convert the record to canonical form; tuples become lists."""
        try:
            text = json.dumps(
                dict(self.record),
                sort_keys=True,
                separators=(",", ":"),
                ensure_ascii=False,
                allow_nan=False,
            )
            encoded = text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise AqaError(f"provenance is not a JSON object: {error}") from error
        if len(encoded) > MAX_BYTES:
            raise AqaError(
                f"provenance of {len(encoded)} bytes; at most {MAX_BYTES} fit a cache"
            )
        record = json.loads(text)
        for _ in _leaves(record):
            pass  # refuses a record that is too deep
        object.__setattr__(self, "record", record)
        object.__setattr__(self, "json", text)
        object.__setattr__(self, "sha256", hashlib.sha256(encoded).hexdigest())

    @classmethod
    def parse(cls, text: str, sha256: str | None = None) -> "Provenance":
        """Parse a record, in any spacing and order of keys.

        Raises AqaError when `text` is not a JSON object, or its digest not `sha256`.
        """
        if len(text) > MAX_BYTES:
            raise AqaError(
                f"provenance of {len(text)} characters; at most {MAX_BYTES} are read"
            )
        found = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
        if sha256 is not None and sha256 != found:
            raise AqaError(
                f"provenance is damaged: its SHA-256 is {found[:12]}…, "
                f"recorded as {_shown(_json(sha256))}"
            )
        try:
            record = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise AqaError(f"provenance is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise AqaError("provenance is JSON, but not an object")
        return cls(record)

    def differences(self, other: "Provenance") -> list[str]:
        """List where this record (found) differs from `other` (asked for).

        Like `["weights.sha256: found 12ab…, asked for 34cd…"]`; empty when equal.
        """
        found, asked = dict(_leaves(self.record)), dict(_leaves(other.record))
        return [
            f"{path}: found {_shown(found.get(path))}, "
            f"asked for {_shown(asked.get(path))}"
            for path in sorted(found.keys() | asked.keys())
            if found.get(path) != asked.get(path)
        ]


def require_same(found: Provenance, asked: Provenance, where: str) -> None:
    """Raise ProvenanceMismatch, naming every difference, unless both are equal."""
    if found != asked:
        raise ProvenanceMismatch(
            f"{where}: made with features other than those asked for: "
            f"{'; '.join(found.differences(asked))}. "
            "Ask for what was found, or use another cache or model"
        )


def _leaves(
    value: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, str]]:  # -> (dotted path, JSON text of the leaf)
    if len(path) > MAX_DEPTH:
        raise AqaError(f"provenance is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            # As JSON, since the path is printed and a key may be anything.
            yield from _leaves(inner, (*path, _json(key)[1:-1]))
    elif isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, str(index)))
    else:
        yield ".".join(path), _json(value)


def _json(value: Any) -> str:
    """Return a value as JSON of printable characters."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def _shown(leaf: str | None) -> str:
    if leaf is None:
        return "nothing"
    if re.fullmatch('"?[0-9a-f]{64}"?', leaf):
        return leaf.strip('"')[:12] + "…"
    return leaf if len(leaf) <= 60 else leaf[:59] + "…"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
