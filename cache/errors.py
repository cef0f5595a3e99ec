"""What goes wrong on bad input, and the exit code each kind ends with.

Conventions: a message is written for the user and says what was expected, what
was found and what to do. `AqaError` is the base of every error that the package
raises on purpose; anything else is a defect of ours.

Many problems as one error: all are counted, the first of them are shown.

Conventions: a problem is one line without a full stop that names its place first.
"""

from collections.abc import Sequence


class AqaError(ValueError):
    """Bad input: a file, an option or a data set that cannot be used."""

    exit_code = 1


class UnreadableFile(AqaError):
    """A file that may be sound, but cannot be read now: nobody may act as if not."""


class ProvenanceMismatch(AqaError):
    """A cache or model was made with other features than those asked for."""

    exit_code = 4


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, plural unless it is 1: "3 heads"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def brief(words: object, most: int = 120) -> str:
    """Put what a file or a library says in one harmless line of bounded length."""
    text = " ".join(str(words).split())
    return "".join(c if c.isprintable() else "?" for c in text[:most])


def printable(text: object) -> str:
    """Text that a terminal shows and does not obey.

    Control characters, and bytes of a file's name that are no text, are escaped.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


MOST_SHOWN = 20


def raise_any(problems: Sequence[str], advice: str = "") -> None:
    """Raise AqaError listing `problems`, with `advice` at the end; nothing if none."""
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
