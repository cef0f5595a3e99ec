"""Many problems as one error: all are counted, the first of them are shown.

Conventions: a problem is one line without a full stop that names its place first.
"""

from collections.abc import Sequence

from aqa.cache.errors import AqaError

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
