"""What an extraction is asked to do: every default of the stage, stated once.

Conventions: frame counts and offsets in frames; `precision` is what the network
computes in. Imports nothing heavy, so that the command line can show defaults.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from aqa.cache.errors import AqaError

KEEP = ("last", "first", "middle")
PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")
POSE_FEATURES = ("pose-dct", "pose-apen")


@dataclass(frozen=True)
class ClipConfig:
    """How a video becomes clips (paper, section 5; the protocol's gaps closed).

    A video is brought to `length` frames and cut, once for each start offset
    0 .. `offsets` - 1, into clips of `clip` frames, `stride` apart.
    """

    length: int = 103
    clip: int = 16
    stride: int = 16
    offsets: int = 6
    #: Which frames of a longer video stay: "last", "first" or "middle".
    keep: str = "last"

    def __post_init__(self) -> None:
        """Refuse settings that leave no clip."""
        for name in ("clip", "stride", "offsets"):
            if (value := getattr(self, name)) < 1:
                raise AqaError(f"{name}: expected 1 or more, found {value}")
        shortest = self.clip + self.offsets - 1
        if self.length < shortest:
            raise AqaError(
                f"length: expected at least {shortest} frames, for {self.offsets} "
                f"offsets of a clip of {self.clip}, found {self.length}"
            )
        if self.keep not in KEEP:
            raise AqaError(f"keep: expected one of {KEEP}, found {self.keep!r}")

    @property
    def clips(self) -> int:
        """Clips per copy: six for the paper's numbers."""
        return (self.length - (self.offsets - 1) - self.clip) // self.stride + 1


@dataclass(frozen=True)
class Limits:
    """What one video may cost; one that costs more fails, and the others go on."""

    #: Wall clock, from the moment a worker takes the video up.
    seconds: float = 600.0
    #: Bytes beyond what an idle worker holds.
    memory: int = 2 << 30
    #: Of one frame, width times height: 8K fits.
    pixels: int = 1 << 25
    #: Nine hours at thirty frames a second.
    frames: int = 1_000_000


@dataclass(frozen=True)
class ExtractConfig:
    """One run of the extraction stage."""

    clips: ClipConfig = ClipConfig()
    weights: str | None = None
    #: None: what the weights say; random weights: "c3d-small".
    arch: str | None = None
    device: str = "auto"
    precision: str = "auto"
    #: None: the preset of the weights file; else "ceil" or "padded".
    pool5: str | None = None
    #: None: the preset of the weights file; else a name in `PRESETS`.
    preprocessing: str | None = None
    #: A mean file in place of the preset's channel means.
    mean: Path | None = None
    #: Use no sharing between copies: the oracle, several times slower. On CPU it gives
    #: the same bits in fp32; in half precision single roundings differ.
    plain: bool = False
    allow_damaged: bool = False
    #: (i, N): this run does the i-th of N parts of the samples, 0-based.
    shard: tuple[int, int] | None = None
    #: Decoding processes; None: one fewer than the processors, at least one.
    workers: int | None = None
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        """Refuse what no machine could do; the stage checks against this one."""
        if self.precision not in PRECISIONS:
            raise AqaError(
                f"precision: expected one of {PRECISIONS}, found {self.precision!r}"
            )
        if self.shard is not None and not 0 <= self.shard[0] < self.shard[1]:
            i, n = self.shard
            raise AqaError(f"shard: expected 1/{n} to {n}/{n}, found {i + 1}/{n}")
        if self.workers is not None and self.workers < 1:
            raise AqaError(f"workers: expected 1 or more, found {self.workers}")


@dataclass(frozen=True)
class PoseConfig:
    """Which poses are believed, and what is made of them (the paper's first row)."""

    #: "pose-dct" or "pose-apen".
    features: str = "pose-dct"
    #: Athletes followed: 1, or 2 for the synchronised dives.
    athletes: int = 1
    #: A joint found with less confidence counts as missing.
    confidence: float = 0.3
    #: A video whose share of missing joints is larger is a failure.
    missing: float = 0.5
    #: pose-dct: low frequencies kept of each series.
    coefficients: int = 50
    #: pose-apen: length of the compared patterns.
    embedding: int = 2
    #: pose-apen: how far two patterns may differ, in deviations of the series.
    tolerance: float = 0.2
    #: Joints of a pose: COCO's 17; of another layout its own count.
    joints: int = 17
    #: The joint that the others are measured from: COCO's nose.
    head: int = 0

    def __post_init__(self) -> None:
        """Refuse what no pose could satisfy."""
        if self.features not in POSE_FEATURES:
            raise AqaError(
                f"features: expected one of {POSE_FEATURES}, found {self.features!r}"
            )
        if self.athletes not in (1, 2):
            raise AqaError(f"athletes: expected 1 or 2, found {self.athletes}")
        for name in ("confidence", "missing"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise AqaError(f"{name}: expected 0 to 1, found {value}")
        for name in ("coefficients", "embedding"):
            if (value := getattr(self, name)) < 1:
                raise AqaError(f"{name}: expected 1 or more, found {value}")
        if not self.tolerance > 0:
            raise AqaError(f"tolerance: expected more than 0, found {self.tolerance}")
        if not 0 <= self.head < self.joints or self.joints < 2:
            raise AqaError(
                f"head: expected a joint below {self.joints}, found {self.head}"
            )


@dataclass(frozen=True)
class DetectorConfig:
    """How poses are found in videos (`aqa poses`)."""

    #: An RTMO model, or an RTMPose model; both .onnx files.
    model: Path
    #: RTMPose only: the YOLOX model that finds people first.
    detector: Path | None = None
    #: "auto", "cpu", "cuda" or "cuda:1".
    device: str = "auto"
    allow_damaged: bool = False
    limits: Limits = Limits()


def config_like(record: Mapping[str, Any]) -> ExtractConfig:
    """Read from a C3D provenance how its features were made, but for the weights."""
    if record.get("features") != "c3d":
        raise AqaError(
            f"expected C3D features, found {record.get('features')!r}: videos can "
            "be scored with models of C3D features only"
        )
    try:
        clips = {field.name: record[field.name] for field in fields(ClipConfig)}
        return ExtractConfig(clips=ClipConfig(**clips), precision=record["precision"])
    except (KeyError, TypeError) as error:
        raise AqaError(f"provenance without its clips or precision: {error}") from error
