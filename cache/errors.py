"""Errors on bad input, their exit codes, and text that is safe to print.

Conventions: a message is written for the user: what was expected, what was found, what
to do. `AqaError` is the base of every error that the package raises on purpose; any
other exception is a defect of ours. A problem in a list of problems is one line without
a full stop that names its place first.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any


class AqaError(ValueError):
    """Bad input: a file, an option or a data set that cannot be used."""

    exit_code = 1


class UnreadableFile(AqaError):
    """The file could not be read (permission, I/O, memory).

    It may be sound: do not treat it as damaged.
    """


class ProvenanceMismatch(AqaError):
    """A cache or model was made with features other than those asked for."""

    exit_code = 4


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, plural unless it is 1: "3 heads"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def brief(words: object, most: int = 120) -> str:
    """Return text from a file or a library as one printable line of limited length."""
    text = " ".join(str(words).split())
    return "".join(c if c.isprintable() else "?" for c in text[:most])


def printable(text: object) -> str:
    """Return text with control characters and undecodable bytes escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


#: Problems that `raise_any` lists; further ones are counted.
MOST_SHOWN = 20


def raise_any(problems: Sequence[str], advice: str = "") -> None:
    """Raise AqaError listing `problems`, if there are any, with `advice` at the end."""
    if not problems:
        return
    lines = list(problems[:MOST_SHOWN])
    if len(problems) > MOST_SHOWN:
        lines.append(f"and {len(problems) - MOST_SHOWN} more")
    if advice:
        lines[-1] += f". {advice}"
    if len(problems) > 1:
        lines.insert(0, f"{len(problems)} problems:")
    raise AqaError("\n  ".join(lines))


def at_least(config: Any, least: int, *names: str) -> None:
    """Refuse numbers below `least` in the fields `names` that this config has."""
    _numbers(config, f"at least {least}", names, lambda value: value >= least)


def above_zero(config: Any, *names: str) -> None:
    """Refuse other numbers than finite ones above 0 in these fields."""
    _numbers(config, "a number above 0", names, lambda value: value > 0)


def _numbers(
    config: Any, wanted: str, names: Collection[str], fits: Callable[[float], bool]
) -> None:
    for name in names:
        value = getattr(config, name, None)
        for each in value if isinstance(value, tuple) else (value,):
            sound = each is None or (math.isfinite(each) and fits(each))
            if not sound:
                raise AqaError(f"{name}: expected {wanted}, found {each!r}")
