"""C3D on a device, in a precision: videos in, features out.

Conventions: frames are uint8 (t, crop, crop, 3) RGB, t at most `length`; features are
float32 (offsets, clips, D). Videos are decoded ahead in other processes and each goes
through the network alone, so that its features do not depend on any other video.

A precision is "fp32"; "tf32", which is fp32 with products rounded by CUDA; or "bf16"
or "fp16", in which weights and activations are stored as well, while kernels sum in
fp32. On CUDA "fp32" means fp32: torch's default of TF32 convolutions is switched off.
"""

from collections import deque
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import closing, contextmanager
from functools import cached_property, partial
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aqa.cache.errors import AqaError
from aqa.cache.processes import choose_device
from aqa.cache.provenance import Provenance
from aqa.extract.c3d import ARCHITECTURES, CLIP, build
from aqa.extract.config import ClipConfig, ExtractConfig, refuse_unused, taken
from aqa.extract.datasets.dataset import Video
from aqa.extract.extractor import Extracted, VideoSource
from aqa.extract.overlap import CPU, CUDA, plain_features, shared_features
from aqa.extract.preprocessing import clip_starts, fit_length, normalise
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.video import Decoded, decode_all
from aqa.extract.weights.formats import check_weights
from aqa.extract.weights.load import load_weights
from aqa.extract.winograd import prepare

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

#: Precisions per device type; "auto" takes the first that is native.
OFFERED = {"cpu": ("fp32", "bf16"), "cuda": ("bf16", "fp16", "tf32", "fp32")}


def choose_precision(name: str, device: torch.device) -> str:
    """Return the precision `name`; "auto" is fp32 on CPU and bf16 or fp16 on CUDA.

    Raises:
        AqaError: the device does not offer it.
    """
    offered = OFFERED[device.type]
    if name == "auto":
        if device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
            return "fp16"
        return offered[0]
    if name not in offered:
        raise AqaError(
            f"precision: expected auto, {' or '.join(offered)} on {device.type}, "
            f"found {name}"
        )
    return name


def precision_note(precision: str, device: torch.device) -> str | None:
    """Return a warning if the precision is slow on this device."""
    able = torch.cpu.get_capabilities()
    native = any(has for name, has in able.items() if "bf16" in name)
    if precision == "bf16" and device.type == "cpu" and not native:
        return "this processor has no bf16 instructions: fp32 is much faster here"
    return None


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Make CUDA compute in `precision`, with deterministic kernels."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    conv = cudnn.conv  # type: ignore[attr-defined]
    before = conv.fp32_precision, matmul.fp32_precision, cudnn.deterministic
    products = "tf32" if precision == "tf32" else "ieee"
    try:
        conv.fp32_precision = matmul.fp32_precision = products
        cudnn.deterministic = True
        yield
    finally:
        conv.fp32_precision, matmul.fp32_precision, cudnn.deterministic = before


class HostCopy:
    """An asynchronous copy to the host, as float32.

    The copy is queued behind the computation and an event behind the copy, so that
    `wait` does not wait for work queued on the device afterwards.
    """

    def __init__(self, values: Tensor) -> None:
        """Queue the copy of values of any shape."""
        self._host = values.float().to("cpu", non_blocking=True)
        self._copied = None
        if values.is_cuda:
            self._copied = torch.cuda.current_stream(values.device).record_event()

    def wait(self) -> npt.NDArray[np.float32]:
        """Return the values as soon as they are copied."""
        if self._copied is not None:
            self._copied.synchronize()
        values: npt.NDArray[np.float32] = self._host.numpy()
        return values


class C3DExtractor(VideoSource):
    """The network and all settings that determine its features; a stage's `Extractor`.

    `notes` tell the user about the device and the precision.
    """

    def __init__(self, config: ExtractConfig) -> None:
        """Load the weights and move them to the device.

        Raises:
            AqaError: weights, clips, device or precision are not available.
        """
        spec = check_weights(config.weights)
        if config.clips.clip != CLIP:
            raise AqaError(
                f"clip: C3D sees {CLIP} frames at a time, found {config.clips.clip}"
            )
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        note = precision_note(self.precision, self.device)
        weights = load_weights(
            spec,
            config.arch,
            preprocessing=config.preprocessing,
            pool5=config.pool5,
            mean=config.mean,
        )
        self.notes = (*([note] if note else []), *weights.warnings)
        self.config = config
        self.workload = (
            f"{weights.arch} {self.precision} {config.clips.length} frames, "
            f"{self.device}, {torch.get_num_threads()} threads, "
            f"{config.workers or 'default'} workers{', plain' * config.plain}"
        )
        self.preprocessing = weights.preprocessing
        net = build(ARCHITECTURES[weights.arch], weights.state, weights.pool5)
        net = net.to(self.device, DTYPES[self.precision])
        self._net = net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._batch = CPU if self.device.type == "cpu" else CUDA
        on_cpu = self.device.type == "cpu" and self.precision == "fp32"
        #: Layers that are not computed directly.
        self._faster = prepare(self._net) if on_cpu and not config.plain else {}
        starts = clip_starts(config.clips)
        #: Distinct first frames, and for each clip of each copy the index of its own.
        self._starts, self._start_of = np.unique(starts, return_inverse=True)
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
                **({"fps": config.clips.fps} if config.clips.fps else {}),
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
        """Decode videos ahead, in order, from `start` to `end` seconds if given."""
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
        """Yield the features of each video, or why there are none, in order.

        A GPU is given the next video before the features of the last are fetched, so
        that it computes while those are stored.
        """
        ahead = 1 if self.device.type == "cuda" else 0
        queued: deque[tuple[Video, VideoError | tuple[Decoded, HostCopy]]] = deque()
        with closing(self.decode(videos)) as decoding:
            for video, decoded in decoding:
                queued.append((video, self._begin(decoded)))
                if len(queued) > ahead:
                    first, begun = queued.popleft()
                    yield first, self._finish(first, begun)
            for first, begun in queued:
                yield first, self._finish(first, begun)

    def features(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return features of one video: (t, crop, crop, 3) -> (offsets, clips, D)."""
        return HostCopy(self._compute(frames)).wait()[self._start_of]

    def _begin(
        self, decoded: Decoded | VideoError
    ) -> VideoError | tuple[Decoded, HostCopy]:
        if isinstance(decoded, VideoError):
            return decoded
        return decoded, HostCopy(self._compute(decoded.frames))

    def _finish(
        self, video: Video, begun: VideoError | tuple[Decoded, HostCopy]
    ) -> Extracted | AqaError:
        if isinstance(begun, VideoError):
            return begun
        decoded, copy = begun
        features = copy.wait()[self._start_of]  # (distinct, D) -> (offsets, clips, D)
        if not np.isfinite(features).all():
            return AqaError(
                f"{video.path}: expected finite features, found others in "
                f"{self.precision}; try another --precision, or look at the weights"
            )
        return Extracted(
            features,
            decoded.total,
            decoded.source_sha256,
            damage="; ".join(decoded.damage),
            notes=decoded.notes,
            rate=decoded.rate,
            aspect=self.squashed_aspect(decoded),
        )

    def squashed_aspect(self, decoded: Decoded) -> float | None:
        """Return the aspect of pictures whose shape the resize does not keep."""
        return decoded.aspect if self.preprocessing.width else None

    def _compute(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """Return features of distinct clips: (t, crop, crop, 3) -> (distinct, D)."""
        fitted = fit_length(frames, self.config.clips)
        starts = self._starts.tolist()
        if self.config.plain:
            return self._run(plain_features, fitted, starts)
        black = max(len(fitted) - len(frames), 0)
        lit = [start for start in starts if start + CLIP > black]
        dark = self._black_clip.expand(len(starts) - len(lit), -1)
        if not lit:
            return dark
        shared = partial(shared_features, black=black, faster=self._faster)
        features = self._run(shared, fitted, lit)
        return torch.cat([dark, features])

    @cached_property
    def _black_clip(self) -> Tensor:
        """Features (1, D) of a clip of black frames, which many short videos have."""
        crop = self.preprocessing.crop
        return self._run(plain_features, np.zeros((CLIP, crop, crop, 3), np.uint8), [0])

    def _run(
        self,
        method: Callable[..., Tensor],
        frames: npt.NDArray[np.uint8],
        starts: list[int],
    ) -> Tensor:
        """Run the network, with smaller batches if the device is out of memory.

        Each video starts with full batches again: its features may depend on the
        batch size, and must not depend on the videos before it.
        """
        batch = self._batch
        while True:
            try:
                with torch.inference_mode(), arithmetic(self.precision):
                    video = self._to_device(frames)
                    return method(self._net, video, starts, batch=batch)
            except torch.OutOfMemoryError:
                smaller = batch.halved()
            # The failed run's memory is free only here, after the handler.
            if smaller is None:
                raise AqaError(
                    f"{self.device}: expected memory for one clip, found too little; "
                    "use another device, or a smaller network"
                )
            batch = smaller
            torch.cuda.empty_cache()

    def _to_device(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """Copy without waiting and normalise on the device: (T, crop, crop, 3)."""
        pixels = torch.from_numpy(frames)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        values = normalise(pixels, self.preprocessing)  # (3, T, crop, crop)
        return values.permute(1, 2, 3, 0).to(DTYPES[self.precision])


def c3d_config(settings: Mapping[str, Any]) -> ExtractConfig:
    """Return settings as a config; AqaError for those that C3D does not have."""
    left = dict(settings)
    config = taken(ExtractConfig, left, clips=taken(ClipConfig, left))
    refuse_unused(left)
    return config


def extractor(
    features: str, videos: Sequence[Video], settings: Mapping[str, Any]
) -> C3DExtractor:
    """Return C3D with these settings; see `aqa.extract.extractor.make_extractor`."""
    return C3DExtractor(c3d_config(settings))


def decoder_versions() -> dict[str, Any]:
    """Return the versions of the decoder: another one may change pixels."""
    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    return {"pyav": av.__version__, "libavcodec": libavcodec}
