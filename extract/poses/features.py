"""What is made of an athlete's joints: a fixed number of features, however long.

Conventions: joints are float64 (frames, joints, 2) in pixels; series are
(2 x (joints - 1), frames): every joint but the head, minus the head of the same
frame, first all x, then all y. Features are float32 (D,), in pixels for pose-dct, in
nats for pose-apen; of two athletes, one after the other, zeros where there is one.

pose-dct: absolute values of the lowest frequencies of each series (Pirsiavash,
Vondrick and Torralba, "Assessing the Quality of Actions", ECCV 2014): type-II DCT,
orthonormal as MATLAB's `dct`. A series shorter than the frequencies asked for has
one for each frame; the rest are zeros. Nothing is scaled, as published.

pose-apen: approximate entropy of each series, one after the other, the encoding of
Venkataraman, Vlachos and Turaga, "Dynamical Regularity for Action Analysis", BMVC
2015. Definition, embedding 2 and a tolerance of 0.2 deviations are Pincus's,
"Approximate entropy as a measure of system complexity", PNAS 1991; which values
the later paper took we could not verify.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import dct

from aqa.extract.config import PoseConfig
from aqa.extract.poses.read import PoseError

Series = npt.NDArray[np.float64]


def head_centred(joints: Series, head: int) -> Series:
    """Series of the joints seen from the head: (T, J, 2) -> (2 (J - 1), T)."""
    relative = np.delete(joints - joints[:, [head]], head, axis=1)
    return relative.transpose(2, 1, 0).reshape(-1, len(joints))


def low_frequencies(series: Series, coefficients: int) -> Series:
    """Absolute DCT coefficients, low first: (S, T) -> (S, coefficients)."""
    spectrum = np.abs(dct(series, type=2, norm="ortho", axis=1))[:, :coefficients]
    return np.pad(spectrum, ((0, 0), (0, coefficients - spectrum.shape[1])))


def approximate_entropy(
    series: Series, embedding: int = 2, tolerance: float = 0.2
) -> float:
    """Approximate entropy of one series (T,), in nats; 0 is perfect regularity.

    Two patterns of `embedding` values are alike when no value differs by more than
    `tolerance` standard deviations (ddof 0) of the series; every pattern is like
    itself. Negative values, down to about -1/T, can arise from that.
    """
    count = len(series)
    if count < embedding + 2:
        raise PoseError(f"expected at least {embedding + 2} frames, found {count}")
    near = np.abs(series[:, None] - series) <= tolerance * series.std()
    alike = near
    regularity = []
    for length in range(1, embedding + 2):
        # Patterns are alike when they were one value sooner, and are in the new one.
        patterns = count - length + 1
        alike = alike[:patterns, :patterns] & near[length - 1 :, length - 1 :]
        regularity.append(float(np.log(alike.mean(axis=1)).mean()))
    return regularity[-2] - regularity[-1]


def pose_features(joints: Series, config: PoseConfig) -> npt.NDArray[np.float32]:
    """Features of a video: joints (athletes, frames, joints, 2) -> (D,)."""
    described = [_describe(head_centred(one, config.head), config) for one in joints]
    absent = [np.zeros_like(described[0])] * (config.athletes - len(described))
    return np.concatenate(described + absent).astype(np.float32)


def pose_record(config: PoseConfig) -> dict[str, Any]:
    """Provenance of `pose_features`: everything that decides what comes out."""
    if config.features == "pose-dct":
        made: dict[str, Any] = {
            "transform": "dct-ii, orthonormal, absolute",
            "coefficients": config.coefficients,
        }
    else:
        made = {"embedding": config.embedding, "tolerance": config.tolerance}
    common = ("features", "athletes", "confidence", "missing", "joints", "head")
    return {name: getattr(config, name) for name in common} | made


def _describe(series: Series, config: PoseConfig) -> Series:
    if config.features == "pose-dct":
        return low_frequencies(series, config.coefficients).ravel()
    return np.array(
        [approximate_entropy(s, config.embedding, config.tolerance) for s in series]
    )
