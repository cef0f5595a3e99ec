"""Settings of extraction and pre-training; defaults are stated here and nowhere else.

Conventions: lengths and offsets are in frames. Pre-training counts batches as
iterations, and a batch counts clips over all processes together. Imports nothing heavy,
so that the command line can show defaults.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from aqa.cache.errors import AqaError, above_zero, at_least
from aqa.extract import FEATURES
from aqa.extract.poses.layouts import LAYOUTS

KEEP = ("last", "first", "middle")
PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")
THIRDS = ("score", "depth")
POSE_UNITS = ("pixels", "fraction", "metres")


Config = TypeVar("Config")


def taken(kind: type[Config], settings: dict[str, Any], **fixed: Any) -> Config:
    """Return a config of `fixed` and of those of `settings` that it has, taken out."""
    names = [part.name for part in fields(kind) if part.name in settings]  # type: ignore[arg-type]
    return kind(**fixed, **{name: settings.pop(name) for name in names})


def refuse_unused(settings: Mapping[str, Any], *kinds: Any) -> None:
    """Raise AqaError for settings that are fields of none of these configs."""
    unused = settings.keys() - {part.name for kind in kinds for part in fields(kind)}
    if unused:
        raise AqaError(f"settings without effect here: {', '.join(sorted(unused))}")


def of_poses(features: str) -> bool:
    """Return whether a kind of features is made of poses: videos need not exist."""
    return features.startswith("pose-")


def _require_among(config: object, name: str, allowed: Collection[str | None]) -> None:
    if (value := getattr(config, name)) not in allowed:
        names = ", ".join(filter(None, allowed))
        raise AqaError(f"{name}: expected one of {names}, found {value!r}")


@dataclass(frozen=True)
class ClipConfig:
    """How a video is cut into clips (paper, section 5).

    A video is brought to `length` frames and cut, once per start offset
    0 .. `offsets` - 1, into clips of `clip` frames, `stride` apart.
    """

    length: int = 103
    clip: int = 16
    stride: int = 16
    offsets: int = 6
    #: Which frames of a longer video stay: "last", "first" or "middle".
    keep: str = "last"
    #: Frames per second that videos are resampled to; None: every frame as it is.
    fps: float | None = None

    def __post_init__(self) -> None:
        """Raise AqaError for settings that leave no clip."""
        at_least(self, 1, "clip", "stride", "offsets")
        _require_among(self, "keep", KEEP)
        shortest = self.clip + self.offsets - 1
        if self.length < shortest:
            raise AqaError(
                f"length: expected at least {shortest} frames, for {self.offsets} "
                f"offsets of a clip of {self.clip}, found {self.length}"
            )
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise AqaError(f"fps: expected more than 0, at most 1000, found {self.fps}")

    @property
    def clips(self) -> int:
        """Clips per copy: six with the paper's settings."""
        return (self.length - (self.offsets - 1) - self.clip) // self.stride + 1


@dataclass(frozen=True)
class Limits:
    """Limits per video; one that exceeds them fails, and the others go on."""

    #: Wall clock, from when a worker starts on the video.
    seconds: float = 600.0
    #: Bytes on top of an idle worker's memory.
    memory: int = 2 << 30
    #: Width times height of a frame: 8K fits.
    pixels: int = 1 << 25
    #: Nine hours at thirty frames a second.
    frames: int = 1_000_000

    def __post_init__(self) -> None:
        """Raise AqaError for limits that no video can keep."""
        above_zero(self, "seconds")
        at_least(self, 1, "memory", "pixels", "frames")


@dataclass(frozen=True)
class ExtractConfig:
    """Settings of C3D extraction."""

    clips: ClipConfig = ClipConfig()
    weights: str | None = None
    #: None: that of the weights; "c3d-small" for random weights.
    arch: str | None = None
    device: str = "auto"
    precision: str = "auto"
    #: "ceil" or "padded"; None: as the weights file says.
    pool5: str | None = None
    #: A name in `preprocessing.PRESETS`; None: as the weights file says.
    preprocessing: str | None = None
    #: A mean file that replaces the channel means.
    mean: Path | None = None
    #: Share no computation between copies: the reference, several times slower. On CPU
    #: in fp32 the result is the same; in half precision single roundings differ.
    plain: bool = False
    allow_damaged: bool = False
    #: Decoding processes; None: one fewer than the processors, at least one.
    workers: int | None = None
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        """Raise AqaError for settings that are valid on no machine."""
        _require_among(self, "precision", PRECISIONS)
        at_least(self, 1, "workers")


@dataclass(frozen=True)
class PoseConfig:
    """Settings of pose features (the first row of the paper's Table 2)."""

    #: "pose-dct", "pose-apen" or "pose-clips".
    features: str = "pose-dct"
    #: Athletes per video: 1, or 2 for synchronised diving.
    athletes: int = 1
    #: Joints with a lower confidence count as missing.
    confidence: float = 0.3
    #: A video with a larger share of missing joints fails.
    missing: float = 0.5
    #: pose-dct: low frequencies kept per series.
    coefficients: int = 50
    #: pose-apen: embedding dimension m.
    embedding: int = 2
    #: pose-apen: tolerance r, in standard deviations of the series.
    tolerance: float = 0.2
    #: Joint layout, one of `aqa.extract.poses.layouts.LAYOUTS`; None: told by the file.
    layout: str | None = None
    #: Another layout: its number of joints, and the joint to measure from.
    joints: int | None = None
    root: int | None = None
    #: Third number of a joint: "score" or "depth" (z); None: told by the file.
    third: str | None = None
    #: "pixels", "fraction" (of the picture) or "metres" (any length); None: as file.
    units: str | None = None
    #: Width and height of the picture that fractions are of.
    picture: tuple[int, int] | None = None
    #: pose-clips: how frames become clips, as for videos.
    clips: ClipConfig = ClipConfig()
    #: pose-clips: DCT coefficients kept per clip and coordinate.
    clip_coefficients: int = 4

    def __post_init__(self) -> None:
        """Raise AqaError for settings that no pose could satisfy."""
        _require_among(self, "features", [name for name in FEATURES if of_poses(name)])
        _require_among(self, "third", (None, *THIRDS))
        _require_among(self, "units", (None, *POSE_UNITS))
        _require_among(self, "layout", (None, *LAYOUTS))
        at_least(self, 1, "coefficients", "embedding", "clip_coefficients")
        if self.athletes not in (1, 2):
            raise AqaError(f"athletes: expected 1 or 2, found {self.athletes}")
        for name in ("confidence", "missing"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise AqaError(f"{name}: expected 0 to 1, found {value}")
        above_zero(self, "tolerance")
        if self.picture is not None and min(self.picture) < 1:
            raise AqaError(f"picture: expected width and height, found {self.picture}")
        if (self.joints is None) != (self.root is None):
            raise AqaError("joints and root: expected both, or none")
        if self.joints is not None and self.root is not None:
            if not 0 <= self.root < self.joints or self.joints < 2:
                raise AqaError(
                    f"root: expected a joint below {self.joints}, found {self.root}"
                )
            if self.layout is not None:
                raise AqaError("layout: expected a layout or joints and root, not both")


@dataclass(frozen=True)
class DetectorConfig:
    """Settings of pose detection (`aqa poses`)."""

    #: An RTMO or RTMPose model (.onnx).
    model: Path
    #: RTMPose only: a YOLOX model that detects people.
    detector: Path | None = None
    #: "auto", "cpu", "cuda" or "cuda:1".
    device: str = "auto"
    allow_damaged: bool = False
    limits: Limits = Limits()


def config_like(record: Mapping[str, Any]) -> ExtractConfig:
    """Return the settings in a C3D provenance, except for the weights.

    Raises:
        AqaError: the features are not C3D's, or the record is incomplete.
    """
    if record.get("features") != "c3d":
        raise AqaError(
            f"expected C3D features, found {record.get('features')!r}: videos can "
            "be scored with models of C3D features only"
        )
    try:
        names = {field.name for field in fields(ClipConfig)} - {"fps"}
        clips = {name: record[name] for name in names} | {"fps": record.get("fps")}
        return ExtractConfig(clips=ClipConfig(**clips), precision=record["precision"])
    except (KeyError, TypeError) as error:
        raise AqaError(f"provenance without its clips or precision: {error}") from error


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of one pre-training run.

    Defaults are the paper's (section 5): C3D on UCF-101, rate 0.001 divided by 10 every
    40,000 iterations, 100,000 iterations. Batch, clips and dropout, which the paper
    does not give, are those of C3D's UCF-101 recipe.
    """

    #: A folder of class folders: UCF-101 or any other.
    videos: Path
    #: The weights file to write, with checkpoint and loss curve beside it.
    out: Path
    #: A `trainlist0N.txt`, with `testlist0N.txt` and `classInd.txt` beside it. None:
    #: those in `videos` if there are any, else part of each class is held out.
    split: Path | None = None
    #: Without lists, the part of each class to test on.
    held_out: float = 0.25
    #: None: the network of `init`, "c3d-small" without it.
    arch: str | None = None
    #: Weights to start from, as for `load_weights`. None: C3D's Gaussian values.
    init: str | None = None
    #: A name in `PRESETS`. None: that of `init`, "c3d" without it. `random` weights
    #: need inputs of standard deviation 1, as "imagenet" gives.
    preprocessing: str | None = None
    seed: int = 0

    iterations: int = 100_000
    batch: int = 30
    learning_rate: float = 0.001
    step: int = 40_000
    gamma: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.005
    #: After FC-6 and FC-7, in training.
    dropout: float = 0.5

    #: Frames between the starts of a video's clips.
    stride: int = 16
    mirror: bool = True
    evaluate_every: int = 5_000
    #: Whichever comes first, iterations or seconds.
    checkpoint_every: int = 1_000
    checkpoint_seconds: float = 300.0
    device: str = "auto"
    #: "auto" (bf16 or fp16 on CUDA, else fp32), "fp32", "bf16" or "fp16".
    precision: str = "auto"
    #: Decoding processes. 0: decode in this one; None: all processors but one.
    workers: int | None = None
    #: Decoded videos kept in memory, MiB over all decoding processes of a GPU.
    memory: int = 1024
    #: Train on what can be decoded of damaged videos.
    allow_damaged: bool = False
    #: Limits per video when all are checked, before the training.
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        """Raise AqaError for numbers that no training can have."""
        at_least(self, 1, "iterations", "batch", "step", "stride")
        at_least(self, 1, "evaluate_every", "checkpoint_every")
        at_least(self, 0, "seed", "weight_decay", "checkpoint_seconds")
        at_least(self, 0, "workers", "memory")
        above_zero(self, "learning_rate", "gamma")
        for name in ("momentum", "dropout"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise AqaError(f"{name}: expected 0 up to 1, found {value}")
        if not 0 < self.held_out < 1:
            raise AqaError(
                f"held_out: expected a part between 0 and 1, found {self.held_out}"
            )
