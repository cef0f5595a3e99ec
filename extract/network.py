"""Where the network runs, and what its arithmetic is done in.

Conventions: a precision is "fp32"; "tf32", which is fp32 with CUDA's rounded products;
"bf16" or "fp16", in which weights and activations are held as well, and sums are
taken in fp32 by the kernels. What is named is what runs: fp32 on CUDA is not TF32,
as torch would have it.

Values on their way from the device that computes them to the host.

Conventions: a copy to pinned memory is queued behind the work itself, and a mark
behind the copy; only the mark is waited for, not what the device is given afterwards.

C3D on a device and in a precision: videos in, features out.

Conventions: frames uint8 (t, crop, crop, 3) RGB, t at most `length`; features float32
(offsets, clips, D). Videos are decoded ahead in other processes, and each goes
through the network alone, so that its features are the same whatever else is done.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property, partial
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance
from aqa.extract.c3d import ARCHITECTURES, CLIP, build
from aqa.extract.clips import clip_starts, fit_length
from aqa.extract.config import ExtractConfig
from aqa.extract.datasets.dataset import Video
from aqa.extract.overlap import CPU, CUDA, plain_features, shared_features
from aqa.extract.preprocessing import normalise
from aqa.extract.stage import Extracted
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.pool import decode_all
from aqa.extract.videos.source import video_changed
from aqa.extract.videos.video import Decoded
from aqa.extract.weights.load import load_weights

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

#: What a device can do; "auto" takes the first that it can do natively.
OFFERED = {"cpu": ("fp32", "bf16"), "cuda": ("bf16", "fp16", "tf32", "fp32")}


def choose_device(name: str) -> torch.device:
    """Take `name`, or for "auto" CUDA where it is; AqaError where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in OFFERED:
        raise AqaError(f"device: expected auto, cpu, cuda or cuda:N, found {name!r}")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise AqaError(f"device: asked for {name}, found {count} GPUs for CUDA")
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Take `name`; "auto" is fp32 on CPU, and on CUDA bf16 or, on old GPUs, fp16."""
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


def remark(precision: str, device: torch.device) -> str | None:
    """Say what the user should know of such a run, if anything."""
    if precision == "bf16" and device.type == "cpu":
        able = torch.cpu.get_capabilities()
        if not any(has for name, has in able.items() if "bf16" in name):
            return "this processor has no bf16 instructions: fp32 is far faster here"
    return None


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Make CUDA compute in `precision`, and choose the same kernels every time."""
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


class Arrival:
    """Values of any shape, which come as float32."""

    def __init__(self, values: Tensor) -> None:
        """Send them off; this does not wait."""
        # From a GPU into pinned memory; on the CPU they are there already.
        self._host = values.float().to("cpu", non_blocking=True)
        self._mark = None
        if values.is_cuda:
            self._mark = torch.cuda.current_stream(values.device).record_event()

    def wait(self) -> npt.NDArray[np.float32]:
        """Return the values as soon as they are there."""
        if self._mark is not None:
            self._mark.synchronize()
        values: npt.NDArray[np.float32] = self._host.numpy()
        return values


#: Waits for what was begun.
Result = Callable[[], Extracted | AqaError]


class C3DExtractor:
    """The network and all that decides its features: an `aqa.extract.stage.Extractor`.

    `notes` say what the user should know of the device or the precision.
    """

    changed = staticmethod(video_changed)

    def __init__(self, config: ExtractConfig) -> None:
        """Load the weights and put them on the device.

        Raises:
            AqaError: for weights, clips, a device or a precision that cannot be had.
        """
        if config.weights is None:
            raise AqaError(
                "--weights: expected `tiny` (comes with aqa), `random`, or a C3D "
                "weights file: c3d_ucf101_iter_38000.caffemodel of video-caffe, "
                "conv3d_deepnetA_sport1m_iter_1900000 of C3D, c3d.pickle, or one "
                "that `aqa pretrain` made"
            )
        if config.clips.clip != CLIP:
            raise AqaError(
                f"clip: C3D sees {CLIP} frames at a time, found {config.clips.clip}"
            )
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        note = remark(self.precision, self.device)
        self.notes = (note,) if note else ()
        weights = load_weights(
            config.weights,
            config.arch,
            preprocessing=config.preprocessing,
            pool5=config.pool5,
            mean=config.mean,
        )
        self.config = config
        self.preprocessing = weights.preprocessing
        net = build(ARCHITECTURES[weights.arch], weights.state, weights.pool5)
        net = net.to(self.device, DTYPES[self.precision])
        self._net = net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._batches = CPU if self.device.type == "cpu" else CUDA
        starts = clip_starts(config.clips)
        #: Distinct first frames, and which of them each clip of each copy has.
        self._starts, self._places = np.unique(starts, return_inverse=True)
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
        """Features of each video, or why there are none, in order.

        A GPU is given the next video before the last one's features are waited for,
        and for no longer than they take, so that it works while they are stored.
        """
        ahead = 1 if self.device.type == "cuda" else 0
        under_way: deque[tuple[Video, Result]] = deque()
        with closing(self.decode(videos)) as decoding:
            for video, decoded in decoding:
                under_way.append((video, self._begin(video, decoded)))
                if len(under_way) > ahead:
                    first, result = under_way.popleft()
                    yield first, result()
            for first, result in under_way:
                yield first, result()

    def extracted(
        self, video: Video, decoded: Decoded | VideoError
    ) -> Extracted | AqaError:
        """Make of a decoded video what the cache keeps, or say why not."""
        return self._begin(video, decoded)()

    def features(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Features of one video: (t, crop, crop, 3) -> (offsets, clips, D)."""
        return self._fetch(Arrival(self._compute(frames)))

    def _begin(self, video: Video, decoded: Decoded | VideoError) -> Result:
        """Set the network to work, and return what waits for the result."""
        if isinstance(decoded, AqaError):
            return lambda: decoded
        features = Arrival(self._compute(decoded.frames))
        return partial(self._end, video, decoded, features)

    def _end(
        self, video: Video, decoded: Decoded, features: Arrival
    ) -> Extracted | AqaError:
        made = self._fetch(features)
        if not np.isfinite(made).all():
            return AqaError(
                f"{video.path}: expected finite features, found others in "
                f"{self.precision}; try another --precision, or look at the weights"
            )
        damage = "; ".join(decoded.damage)
        return Extracted(made, decoded.total, decoded.source_sha256, damage)

    def _fetch(self, features: Arrival) -> npt.NDArray[np.float32]:
        """(distinct clips, D) -> (offsets, clips, D)."""
        return features.wait()[self._places]

    def _compute(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """Features of the distinct clips: (t, crop, crop, 3) -> (distinct, D)."""
        fitted = fit_length(frames, self.config.clips)
        starts = self._starts.tolist()
        if self.config.plain:
            return self._run(plain_features, fitted, starts)
        black = max(len(fitted) - len(frames), 0)
        lit = [start for start in starts if start + CLIP > black]
        dark = self._of_black.expand(len(starts) - len(lit), -1)
        if not lit:
            return dark
        features = self._run(partial(shared_features, black=black), fitted, lit)
        return torch.cat([dark, features])

    @cached_property
    def _of_black(self) -> Tensor:
        """Features of a clip of black frames, which many short videos have: (1, D)."""
        crop = self.preprocessing.crop
        return self._run(plain_features, np.zeros((CLIP, crop, crop, 3), np.uint8), [0])

    def _run(
        self, way: Callable[..., Tensor], frames: npt.NDArray[np.uint8], at: list[int]
    ) -> Tensor:
        """Run the network one way, in smaller batches where memory does not suffice.

        The next video is tried in full ones again: its features, which may depend on
        their size, shall not depend on what came before.
        """
        batches = self._batches
        while True:
            try:
                with torch.inference_mode(), arithmetic(self.precision):
                    video = self._on_device(frames)
                    return way(self._net, video, at, batches=batches)
            except torch.OutOfMemoryError:
                smaller = batches.halved()
            # Only here, after the handler, has the failed run let go of its memory.
            if smaller is None:
                raise AqaError(
                    f"{self.device}: expected memory for one clip, found too little; "
                    "use another device, or a smaller network"
                )
            batches = smaller
            torch.cuda.empty_cache()

    def _on_device(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """Copy without waiting, and normalise there: (T, crop, crop, 3)."""
        pixels = torch.from_numpy(frames)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        values = normalise(pixels, self.preprocessing)  # (3, T, crop, crop)
        return values.permute(1, 2, 3, 0).to(DTYPES[self.precision])


def decoder_versions() -> dict[str, Any]:
    """Name what decodes and resizes: a new version may change a pixel."""
    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    return {"pyav": av.__version__, "libavcodec": libavcodec}
