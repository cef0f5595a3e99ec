"""When frames are shown, and which of them are kept.

Conventions: times are float64 seconds on the clock that a player shows: 0 is where the
file's sound or pictures begin, whichever is first, whatever its time stamps are. Frames
are in the order of showing. A span is (start, end), end exclusive.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Span = tuple[float, float]
Seconds = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

#: Frame times are fractions of a second, bounds are decimals.
ROUNDING_SECONDS = 1e-6


def within(times: Seconds, span: Span) -> Indices:
    """Return the indices of the frames that are shown within a span."""
    start, end = (edge - ROUNDING_SECONDS for edge in span)
    return np.flatnonzero((times >= start) & (times < end))


def resample(times: Seconds, fps: float, most: int) -> Indices:
    """Return the index of the frame nearest to each tick of an even clock.

    Ticks are 1 / `fps` apart and begin with the first frame; the last frame is shown as
    long as frames usually are. Of two frames equally near, the earlier is taken. No
    more than `most` + 1 indices are returned.
    """
    order = np.argsort(times, kind="stable")
    steps = np.diff(times[order])
    usual = float(np.median(steps)) if len(steps) else 0.0
    length = times[order[-1]] - times[order[0]] + usual
    count = min(max(round(length * fps), 1), most + 1)
    ticks = times[order[0]] + np.arange(count) / fps
    later = np.searchsorted(times[order], ticks).clip(1, max(len(times) - 1, 1))
    earlier = later - 1
    later = later.clip(max=len(times) - 1)
    after = times[order[later]] - ticks
    before = ticks - times[order[earlier]]
    nearest = np.where(after < before - ROUNDING_SECONDS, later, earlier)
    return np.asarray(order[nearest], np.int64)


def frame_rate(times: Sequence[float]) -> float | None:
    """Return the mean frames per second of frames in the order of showing."""
    if len(times) < 2 or times[-1] <= times[0]:
        return None
    return (len(times) - 1) / (times[-1] - times[0])


#: Frame rates within this factor of each other are the same for an action's speed:
#: 24, 25 and 30 frames per second are mixed in every collection.
SIMILAR_RATES = 1.26


def describe_rates(
    rates: Mapping[str, float | None], length: int, usual: float | None = None
) -> str | None:
    """Say how far the frame rates of videos differ; None where they do not.

    `rates` are frames per second by video, None where unknown; `usual` is the rate to
    compare with, by default the most frequent one. `length` is the number of frames
    that features are made from.
    """
    known = {key: rate for key, rate in rates.items() if rate}
    if usual is None and known:
        usual = float(Counter(round(r) for r in known.values()).most_common(1)[0][0])
    if not usual:
        return None
    other = {
        key: rate
        for key, rate in known.items()
        if max(rate / usual, usual / rate) > SIMILAR_RATES
    }
    if not other:
        return None
    key = min(other)
    low, high = min(other.values()), max(other.values())
    found = f"{low:.3g}" if high - low < 0.5 else f"{low:.3g} to {high:.3g}"
    return (
        f"{len(other)} of {len(rates)} videos have {found} frames per second, not "
        f"{usual:.3g} (first: {key}): {length} frames show {length / other[key]:.2g} s "
        f"of it, not {length / usual:.2g} s; --fps {usual:.3g} resamples"
    )
