"""Which frames show a video at another frame rate, and how frame rates differ.

Conventions: times are float64 seconds on the clock that a player shows, whatever the
file's time stamps are: 0 is the first picture, or where sound begins if that is at
least `stream.SOUND_AHEAD` earlier. Frames are in the order of showing.
"""

from collections.abc import Mapping
from statistics import median_low

import numpy as np
import numpy.typing as npt

from aqa.cache.samples import SIMILAR_RATES

Seconds = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

#: Frame times are fractions of a second, bounds are decimals.
ROUNDING_SECONDS = 1e-6
#: A frame is at another rate if it is shown this much longer than the lower quartile;
#: a larger share of the time than this is said.
MANY_STEPS, UNEVEN_SHARE = 1.7, 0.2


def resample(times: Seconds, fps: float, most: int) -> Indices:
    """Return the indices of the frames nearest to the ticks of an even clock.

    Ticks are 1 / `fps` apart and begin with the first frame; the last frame is shown as
    long as frames usually are. Of two frames equally near, the earlier is taken. No
    more than `most` + 1 indices are returned.
    """
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    usual = float(np.median(np.diff(ordered))) if len(ordered) > 1 else 0.0
    count = max(round((ordered[-1] - ordered[0] + usual) * fps), 1)
    ticks = ordered[0] + np.arange(min(count, most + 1)) / fps
    later = np.searchsorted(ordered, ticks).clip(max=len(ordered) - 1)
    earlier = np.maximum(later - 1, 0)
    is_later = ordered[later] - ticks < ticks - ordered[earlier] - ROUNDING_SECONDS
    return np.asarray(order[np.where(is_later, later, earlier)], np.int64)


def is_uneven(times: Seconds) -> bool:
    """Return whether much of the time is shown at another rate than is usual.

    Pulldown, dropped frames and times rounded to milliseconds do not count.
    """
    steps = np.diff(np.sort(times))
    if len(steps) < 2:
        return False
    other = steps > MANY_STEPS * np.percentile(steps, 25)
    return bool(steps[other].sum() > UNEVEN_SHARE * steps.sum())


def describe_rates(rates: Mapping[str, float | None], length: int) -> str | None:
    """Say how far the frame rates of videos differ; None where they do not.

    `rates` are frames per second by video, None where unknown; they are compared with
    their median. `length` is the number of frames that features are made from.
    """
    known = {key: rate for key, rate in rates.items() if rate}
    if not known:
        return None
    usual = float(median_low(round(rate) for rate in known.values()))
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
