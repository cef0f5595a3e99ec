"""From decoded frames to the network's input: resize, crop, cut into clips, normalise.

Conventions: decoded frames are uint8 (T, H, W, 3) RGB, 0-255; the network takes
float32 (3, T, crop, crop) in the channel order of `Preprocessing.channels`. Black
padding is added between `resize_crop` and `normalise`, so that a padded frame reaches
the network as -mean and not as 0.

A start is the index of a clip's first frame in the video of `length` frames; arrays
over clips are (offsets, clips, ...). A copy is the sequence of clips at one offset.
Padding goes in front and cutting keeps the end by default, so that what decides the
score (the entry, the landing) falls at the same place of every video.

Sources: facebookarchive/C3D `image_io.cpp` (resize) and `video_data_layer.cpp`
(centre crop, mean); open-mmlab/mmaction2 `configs/_base_/models/c3d_sports1m_*`.
"""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from aqa.cache.errors import AqaError
from aqa.extract.config import ClipConfig

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value", bound=np.generic)

#: Three values in the network's channel order, or an image (3, crop, crop).
Mean = tuple[float, float, float] | npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """Resize, crop, channel order and scaling: value = (pixel * scale - mean) / std.

    `width` None keeps the aspect ratio and makes the shorter side `height`; `top` or
    `left` None centres the crop. The mean is the same for all frames of a clip, since
    copies of a video share frames. Objects are equal if their records are.
    """

    width: int | None = 171
    height: int = 128
    top: int | None = 8
    left: int | None = 29
    crop: int = 112
    channels: str = "BGR"
    scale: float = 1.0
    mean: Mean = (90.25, 97.66, 101.41)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        """Raise AqaError for an unknown channel order or a mean of another shape."""
        if self.channels not in ("RGB", "BGR"):
            raise AqaError(
                f'channels: expected "RGB" or "BGR", found {self.channels!r}'
            )
        expected = ((3,), (3, self.crop, self.crop))
        if (found := np.shape(self.mean)) not in expected:
            raise AqaError(
                f"mean: expected three values or an image of shape {expected[1]}, "
                f"found shape {found}; `with_mean_cube` averages and crops a cube"
            )

    def record(self) -> dict[str, Any]:
        """Return all settings as JSON values; an image mean as its digest."""
        record = {part.name: getattr(self, part.name) for part in fields(self)}
        record["resize"] = "bilinear on uint8, half-pixel centres, not antialiased"
        record["std"] = list(self.std)
        if isinstance(self.mean, np.ndarray):
            pixels = np.ascontiguousarray(self.mean, "<f4").tobytes()
            record["mean"] = {"image_sha256": hashlib.sha256(pixels).hexdigest()}
        else:
            record["mean"] = list(self.mean)
        return record

    def __eq__(self, other: object) -> bool:
        """Compare the records."""
        return isinstance(other, Preprocessing) and self.record() == other.record()

    def __hash__(self) -> int:
        """Hash the record."""
        return hash(repr(self.record()))

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of a frame of `height` x `width` after the resize."""
        if self.width is not None:
            return self.height, self.width
        short = min(height, width)
        return (
            int(height * self.height / short + 0.5),
            int(width * self.height / short + 0.5),
        )

    def corner(self, height: int, width: int) -> tuple[int, int]:
        """Return row and column where the crop of a resized frame starts."""
        top = (height - self.crop) // 2 if self.top is None else self.top
        left = (width - self.crop) // 2 if self.left is None else self.left
        if min(top, left, height - top - self.crop, width - left - self.crop) < 0:
            raise AqaError(
                f"expected a crop of {self.crop} x {self.crop} at ({top}, {left}) to "
                f"lie inside the resized frame, found {height} x {width} (rows x "
                "columns)"
            )
        return top, left

    def with_mean_cube(self, cube: npt.NDArray[np.floating]) -> "Preprocessing":
        """Use Caffe's mean volume (3, L, H, W), averaged over L and cropped.

        C3D's mean files hardly vary over their 16 frames.
        """
        if cube.ndim != 4 or cube.shape[0] != 3:
            raise AqaError(f"mean cube: expected (3, L, H, W), found {cube.shape}")
        image = cube.mean(axis=1, dtype=np.float64)  # (3, L, H, W) -> (3, H, W)
        if image.shape[1:] != (self.crop, self.crop):  # not cropped yet
            top, left = self.corner(*cube.shape[2:])
            image = image[:, top : top + self.crop, left : left + self.crop]
        return replace(self, mean=image.astype(np.float32))


#: By name, for the framework or data that weights were trained with.
PRESETS = {
    # Channel means of UCF-101's train split 1, widely used for Sports-1M weights.
    "c3d": Preprocessing(),
    "mmaction": Preprocessing(
        width=None, top=None, left=None, channels="RGB", mean=(104.0, 117.0, 128.0)
    ),
    "imagenet": Preprocessing(
        channels="RGB",
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
}


def resize(frames: npt.NDArray[np.uint8], pre: Preprocessing) -> npt.NDArray[np.uint8]:
    """Resize: uint8 (T, H, W, 3) -> (T, h, w, 3), as `pre.size` says.

    Within one grey level of OpenCV's INTER_LINEAR on 8-bit images, which C3D was
    trained with; antialiased resizing differs by up to 50 levels.
    """
    import torch
    from torch.nn import functional

    size = pre.size(*frames.shape[1:3])
    # (T, H, W, 3) -> (T, 3, H, W), channels last in memory.
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    if images.shape[2:] != size:
        images = functional.interpolate(
            images, size, mode="bilinear", align_corners=False
        )
    return images.permute(0, 2, 3, 1).numpy()


def resize_crop(
    frames: npt.NDArray[np.uint8], pre: Preprocessing
) -> npt.NDArray[np.uint8]:
    """Resize and crop: uint8 (T, H, W, 3) -> (T, crop, crop, 3)."""
    top, left = pre.corner(*pre.size(*frames.shape[1:3]))
    cropped = resize(frames, pre)[:, top : top + pre.crop, left : left + pre.crop]
    return np.ascontiguousarray(cropped)


def fit_length(frames: npt.NDArray[Value], config: ClipConfig) -> npt.NDArray[Value]:
    """Return `config.length` frames: (T, ...) -> (length, ...).

    Shorter videos get black frames (zeros) in front; of longer ones, the frames that
    `config.keep` says stay.
    """
    missing = config.length - len(frames)
    if missing > 0:
        return np.pad(frames, ((missing, 0), *[(0, 0)] * (frames.ndim - 1)))
    kept = kept_frames(len(frames), config)
    return frames[kept.start : kept.stop]


def kept_frames(total: int, config: ClipConfig) -> range:
    """Return the indices of the frames that `fit_length` keeps of `total`."""
    spare = max(total - config.length, 0)
    first = {"first": 0, "middle": spare // 2, "last": spare}[config.keep]
    return range(first, min(first + config.length, total))


def clip_starts(config: ClipConfig) -> npt.NDArray[np.int64]:
    """Return the first frame of every clip, (offsets, clips)."""
    offsets = np.arange(config.offsets)
    return offsets[:, None] + config.stride * np.arange(config.clips)


def shown_frames(count: int, config: ClipConfig) -> list[range]:
    """Return which of a video's `count` kept frames each clip of the first copy shows.

    The range of a clip that shows only padding is empty.
    """
    black = max(config.length - count, 0)
    return [
        range(max(start - black, 0), max(start + config.clip - black, 0))
        for start in clip_starts(config)[0].tolist()
    ]


def middle_frames(
    frames: npt.NDArray[np.uint8], config: ClipConfig
) -> npt.NDArray[np.uint8]:
    """Return the middle frame of each clip of the first copy: (clips, H, W, 3)."""
    starts = clip_starts(config)[0]
    middles: npt.NDArray[np.uint8] = fit_length(frames, config)[
        starts + config.clip // 2
    ]
    return middles


def normalise(frames: "torch.Tensor", pre: Preprocessing) -> "torch.Tensor":
    """Scale and centre: uint8 (T, crop, crop, 3) RGB -> float32 (3, T, crop, crop).

    Returns a view of channels-last memory on the device of `frames`.
    """
    import torch

    if pre.channels == "BGR":
        frames = frames.flip(-1)  # while a value is one byte
    mean, std = (
        torch.as_tensor(values, dtype=torch.float32, device=frames.device)
        for values in (pre.mean, pre.std)
    )
    if mean.ndim == 3:
        mean = mean.permute(1, 2, 0)  # (3, crop, crop) -> (crop, crop, 3)
    # Broadcasting three values in the last axis takes three times as long.
    picture = frames.shape[1:]
    mean, std = mean.expand(picture).contiguous(), std.expand(picture).contiguous()
    values = frames.float().mul_(pre.scale).sub_(mean).div_(std)
    return values.permute(3, 0, 1, 2)
