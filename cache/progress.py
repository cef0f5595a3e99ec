"""How a stage tells what it is doing, without knowing who listens.

Conventions: `done` and `total` are in the stage's own unit of work, `done` never
falls within one call of a stage; `label` names what is under work.
"""

from collections.abc import Callable

Progress = Callable[[float, float, str], None]


def silent(done: float, total: float, label: str) -> None:
    """Listen to nothing: the default of every stage."""
