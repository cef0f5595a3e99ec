"""Features of an athlete's joints: a fixed number, whatever the number of frames.

Conventions: joints are float64 (frames, joints, 2) in pixels. Series are
(2 (joints - 1), frames): each joint except the head minus the head of the same frame,
all x before all y. Features are float32 (D,), in pixels for pose-dct, in nats for
pose-apen. Two athletes are concatenated, with zeros if there is only one.

pose-dct: absolute values of the lowest frequencies of each series (Pirsiavash,
Vondrick and Torralba, "Assessing the Quality of Actions", ECCV 2014). Type-II DCT,
orthonormal as MATLAB's `dct`, not scaled; zeros where a series has fewer frames than
coefficients.

pose-apen: approximate entropy of each series (Venkataraman, Vlachos and Turaga,
"Dynamical Regularity for Action Analysis", BMVC 2015). Definition, embedding 2 and
tolerance 0.2 standard deviations follow Pincus, "Approximate entropy as a measure of
system complexity", PNAS 1991; the values that the BMVC paper used are unverified.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import dct

from aqa.extract.config import PoseConfig
from aqa.extract.poses.read import PoseError

Series = npt.NDArray[np.float64]


def pose_features(joints: Series, config: PoseConfig) -> npt.NDArray[np.float32]:
    """Return the features of a video: (athletes, frames, joints, 2) -> (D,)."""
    per_athlete = []
    for one in joints:
        series = head_centred(one, config.head)
        if config.features == "pose-dct":
            features = low_frequencies(series, config.coefficients).ravel()
        else:
            entropy = config.embedding, config.tolerance
            features = np.array([approximate_entropy(s, *entropy) for s in series])
        per_athlete.append(features)
    absent = [np.zeros_like(per_athlete[0])] * (config.athletes - len(per_athlete))
    return np.concatenate(per_athlete + absent).astype(np.float32)


def pose_record(config: PoseConfig) -> dict[str, Any]:
    """Return the provenance of `pose_features`: everything that decides the values."""
    if config.features == "pose-dct":
        made: dict[str, Any] = {
            "transform": "dct-ii, orthonormal, absolute",
            "coefficients": config.coefficients,
        }
    else:
        made = {"embedding": config.embedding, "tolerance": config.tolerance}
    common = ("features", "athletes", "confidence", "missing", "joints", "head")
    return {name: getattr(config, name) for name in common} | made


def head_centred(joints: Series, head: int) -> Series:
    """Return joints relative to the head: (T, J, 2) -> (2 (J - 1), T)."""
    relative = np.delete(joints - joints[:, [head]], head, axis=1)
    return relative.transpose(2, 1, 0).reshape(-1, len(joints))


def low_frequencies(series: Series, coefficients: int) -> Series:
    """Return absolute DCT coefficients, low first: (S, T) -> (S, coefficients)."""
    spectrum = np.abs(dct(series, type=2, norm="ortho", axis=1))[:, :coefficients]
    return np.pad(spectrum, ((0, 0), (0, coefficients - spectrum.shape[1])))


def approximate_entropy(
    series: Series, embedding: int = 2, tolerance: float = 0.2
) -> float:
    """Return the approximate entropy of one series (T,), in nats; 0 is regular.

    Two patterns of `embedding` values match when no value differs by more than
    `tolerance` standard deviations (ddof 0) of the series. Each pattern matches
    itself, so small negative values, down to about -1/T, occur.
    """
    count = len(series)
    if count < embedding + 2:
        raise PoseError(f"expected at least {embedding + 2} frames, found {count}")
    near = np.abs(series[:, None] - series) <= tolerance * series.std()
    matches = near
    regularity = []
    for length in range(1, embedding + 2):
        # Patterns of `length` match if their first length - 1 and last values do.
        patterns = count - length + 1
        matches = matches[:patterns, :patterns] & near[length - 1 :, length - 1 :]
        regularity.append(float(np.log(matches.mean(axis=1)).mean()))
    return regularity[-2] - regularity[-1]
