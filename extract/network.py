"""C3D on a device and in a precision: decoded frames in, features out.

Conventions: frames uint8 (t, crop, crop, 3) RGB, t at most `length`; features float32
(offsets, clips, D). `precision` names what the arithmetic is done in and stands in
the provenance: "fp32", "tf32" (CUDA's rounded products), "bf16", "fp16".
"""

from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch

from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance
from aqa.extract.c3d import ARCHITECTURES, build
from aqa.extract.clips import clip_starts, fit_length
from aqa.extract.config import ExtractConfig
from aqa.extract.decoding import decode_all
from aqa.extract.preprocessing import normalise
from aqa.extract.sharing import CPU, Batches, plain_features, shared_features
from aqa.extract.stage import Extracted
from aqa.extract.video import Decoded, VideoError
from aqa.extract.video_list import Video
from aqa.extract.weights import load_weights

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def choose_device(name: str) -> torch.device:
    """Take `name`, or CUDA where it is for "auto"; AqaError where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise AqaError(f"device: expected cpu or cuda, found {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise AqaError(f"device: expected cpu or cuda, found {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise AqaError(f"device: {name!r} was asked for, but CUDA finds no GPU here")
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Take `name`; "auto" is fp32 on CPU, half of the width on CUDA."""
    if name == "auto":
        if device.type == "cpu":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if device.type == "cpu" and name not in ("fp32", "bf16"):
        raise AqaError(f"precision: expected fp32 or bf16 on CPU, found {name}")
    return name


class C3DExtractor:
    """The network and all that decides its features: an `aqa.extract.stage.Extractor`.

    Raises AqaError for weights, a device or a precision that cannot be had.
    """

    def __init__(self, config: ExtractConfig) -> None:
        """Load the weights and put them on the device."""
        if config.weights is None:
            raise AqaError(
                "--weights: expected a C3D weights file (see the README for where "
                "such files come from), `tiny` (comes with aqa) or `random`"
            )
        weights = load_weights(
            config.weights,
            config.arch,
            preprocessing=config.preprocessing,
            pool5=config.pool5,
            mean=config.mean,
        )
        self.config = config
        self.preprocessing = weights.preprocessing
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        self._dtype = DTYPES[self.precision]
        net = build(ARCHITECTURES[weights.arch], weights.state, weights.pool5)
        self._net = net.to(self.device, self._dtype)
        self._batches = CPU
        self.provenance = Provenance(
            {
                "features": "c3d",
                "arch": weights.arch,
                "weights": {"name": weights.name, "sha256": weights.sha256},
                "pool5": weights.pool5,
                "preprocessing": weights.preprocessing.record(),
                "length": config.clips.length,
                "clip": config.clips.clip,
                "stride": config.clips.stride,
                "offsets": config.clips.offsets,
                "keep": config.clips.keep,
                "layer": "fc6-relu",
                "precision": self.precision,
                "decoder": decoder_versions(),
            }
        )

    def decode(
        self,
        videos: Iterable[Video],
        start: float | None = None,
        end: float | None = None,
    ) -> Generator[tuple[Video, Decoded | VideoError]]:
        """Decode ahead as the network wants its frames, in order.

        `start` and `end` are seconds: what lies between them is the video.
        """
        return decode_all(
            videos,
            self.preprocessing,
            self.config.clips,
            workers=self.config.workers,
            allow_damaged=self.config.allow_damaged,
            limits=self.config.limits,
            start=start,
            end=end,
        )

    def extract(
        self, videos: Iterable[Video]
    ) -> Generator[tuple[Video, Extracted | AqaError]]:
        """Features of each video, or why there are none, in order."""
        with closing(self.decode(videos)) as decoding:
            for video, decoded in decoding:
                if isinstance(decoded, AqaError):
                    yield video, decoded
                    continue
                extracted = Extracted(
                    self.features(decoded.frames),
                    decoded.total,
                    decoded.source_sha256,
                    "; ".join(decoded.damage),
                )
                yield video, extracted

    def features(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Features of one video: (t, crop, crop, 3) -> (offsets, clips, D)."""
        fitted = fit_length(frames, self.config.clips)
        starts = clip_starts(self.config.clips)
        unique, places = np.unique(starts, return_inverse=True)
        video = self._on_device(fitted)
        black = len(fitted) - len(frames)
        while True:
            try:
                features = self._run(video, unique.tolist(), max(black, 0))
                break
            except torch.OutOfMemoryError:
                self._batches = self._smaller()
        made = features.float().cpu().numpy()[places]  # (clips, D) -> (starts, D)
        return made.reshape(*starts.shape, -1)

    @torch.inference_mode()
    def _run(self, video: torch.Tensor, starts: list[int], black: int) -> torch.Tensor:
        tf32 = self.precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        if self.config.plain:
            return plain_features(self._net, video, starts, batches=self._batches)
        return shared_features(
            self._net, video, starts, black=black, batches=self._batches
        )

    def _on_device(self, frames: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Normalise on the device: (T, crop, crop, 3), the copy asynchronous."""
        pixels = torch.from_numpy(np.ascontiguousarray(frames))
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        values = normalise(pixels, self.preprocessing)  # (3, T, crop, crop)
        return values.permute(1, 2, 3, 0).to(self._dtype)

    def _smaller(self) -> Batches:
        halved = self._batches.halved()
        if halved is None:
            raise AqaError(
                f"{self.device}: too little memory for one clip of "
                f"{self.provenance.record['arch']}; use another device or network"
            )
        torch.cuda.empty_cache()
        return halved


def decoder_versions() -> dict[str, Any]:
    """Name what decodes and resizes: a new version may change a pixel."""
    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    return {"pyav": av.__version__, "libavcodec": libavcodec}
