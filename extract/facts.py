"""What is unusual about the videos of a run, one line per kind.

Conventions: rates are frames per second; an aspect is width / height as shown.
"""

from collections.abc import Iterator

from aqa.extract.datasets.dataset import listed
from aqa.extract.videos.timeline import describe_rates

#: Aspects from upright to wide screen that the resize to 171 x 128 leaves recognisable.
MIN_ASPECT, MAX_ASPECT = 1.0, 2.0


class Facts:
    """Frame rates, aspects and notes of videos, collected by key."""

    def __init__(self) -> None:
        """Start without videos."""
        self._rates: dict[str, float | None] = {}
        self._aspects: dict[str, float] = {}
        self._notes: dict[str, list[str]] = {}

    def add(
        self,
        key: str,
        rate: float | None,
        aspect: float | None,
        notes: tuple[str, ...],
    ) -> None:
        """Add a video; None where a fact is unknown or does not matter."""
        self._rates[key] = rate
        if aspect is not None and not MIN_ASPECT <= aspect <= MAX_ASPECT:
            self._aspects[key] = aspect
        for note in notes:
            self._notes.setdefault(note, []).append(key)

    def describe(self, length: int) -> Iterator[str]:
        """Yield what the user should know; `length` is the frames that are used."""
        if line := describe_rates(dict(sorted(self._rates.items())), length):
            yield line
        if self._aspects:
            first, aspect = min(self._aspects.items())
            yield (
                f"{len(self._aspects)} of {len(self._rates)} videos are upright or "
                f"very wide (first: {first}, width / height {aspect:.2f}): the network "
                "sees them squashed to 4 : 3"
            )
        for note, keys in sorted(self._notes.items()):
            yield f"{note}: {listed(sorted(keys))}"
