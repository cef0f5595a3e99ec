"""The processes of one training run: one alone, or those that torchrun started.

Conventions: torchrun says by environment which rank a process is, of how many, and
which device on its machine; without it a run is one process. Rank 0 writes files.

Frames of labelled videos, decoded and resized but not yet cropped.

Conventions: frames uint8 (T, h, w, 3) RGB, resized as the preset says (128 x 171 for
C3D's), whole, so that training can crop where it likes. What a video holds is what a
first decoding of all of it gave, never what its header says; a damaged one is refused
then, unless that is allowed.

Which clips a training run sees, and how each is cropped: a function of the seed.

Conventions: a clip is 16 frames from a start on; starts are a stride apart. Position
p of epoch e is the p-th clip of that epoch's own shuffle, and the batches follow one
another through the epochs without a gap. What is drawn for a clip depends on the
seed, e and p alone: not on the batch, the number of processes, or whether the run
was stopped and resumed.

Clips on their way from disk to the network, decoded by worker processes.

Conventions: a batch is uint8 (B, 16, crop, crop, 3) RGB with labels int64 (B,); the
mean is subtracted later, on the device. Batches come in the order they were asked
for and hold the same bytes whatever the number of processes. Each process keeps the
first decoded videos that fit into its part of the memory, and decodes the others
anew, as far as needed; it keeps none when it has no part.

The clips of both sides of a data set, after every video was decoded once.

Conventions: clips of both sides start `stride` frames apart. The digest is over the
classes, and every video's name, label and length: what the order of a run depends on.
"""

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from math import nan
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch import distributed
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from aqa.cache.console import Progress
from aqa.cache.errors import AqaError
from aqa.extract.c3d import CLIP
from aqa.extract.config import ClipConfig, Limits
from aqa.extract.datasets.dataset import Video
from aqa.extract.preprocessing import Preprocessing
from aqa.extract.pretraining.config import PretrainConfig
from aqa.extract.pretraining.ucf101 import ClassSet, LabelledVideo, read_classes
from aqa.extract.videos.integrity import Signs, VideoError, ffmpeg_log
from aqa.extract.videos.pool import decode_all
from aqa.extract.videos.video import Decoded, open_file


def rank() -> int:
    """Which of the processes this is; that of rank 0 speaks for all."""
    return int(os.environ.get("RANK", 0))


@dataclass(frozen=True)
class Processes:
    """This process among all; `device` is where it computes."""

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Return this process's part of a batch, all parts equal."""
        if batch % self.count:
            raise AqaError(
                f"batch: expected a multiple of the {self.count} processes, "
                f"found {batch}"
            )
        size = batch // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def any(self, here: bool) -> bool:
        """Whether it is so in any process; all have to ask."""
        if self.count == 1:
            return here
        told = torch.tensor(float(here), device=self.device)
        distributed.all_reduce(told)
        return bool(told)

    def wait(self) -> None:
        """Let no process go on before all are here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Join the other processes, for as long as the block runs."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    # Here: decoding workers import this module under a memory limit, without torch.
    from aqa.cache.devices import choose_device

    place = choose_device(device)
    if count == 1:
        yield Processes(0, 1, place)
        return
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Processes(rank(), count, place)
    finally:
        distributed.destroy_process_group()


Frames = NDArray[np.uint8]

#: A labelled clip is seconds long; a film among them is a mistake.
MOST_FRAMES = 20_000


def count_frames(path: Path, allow_damaged: bool) -> int:
    """Decode all of a video and count.

    Raises:
        VideoError: if it is damaged and that is not allowed, or too long, or empty.
    """
    count = 0
    with _opened(path) as (promised, frames, signs):
        for _ in frames:
            count += 1
            if count > MOST_FRAMES:
                raise VideoError(
                    f"{path}: over {MOST_FRAMES} frames; cut it into single actions"
                )
        damage = "; ".join(signs.found(promised, count))
    if count == 0 or (damage and not allow_damaged):
        raise VideoError(
            f"{path}: expected a whole video, found {damage or 'no frames'}"
        )
    return count


def look_through(
    path: Path, pre: Preprocessing, *, allow_damaged: bool, **_: Any
) -> Decoded:
    """`count_frames` as `decode_all` takes it: `total` is all that comes back."""
    nothing = np.empty((0, pre.crop, pre.crop, 3), np.uint8)
    return Decoded(nothing, count_frames(path, allow_damaged), (), "")


def read_frames(path: Path, pre: Preprocessing, first: int, count: int) -> Frames:
    """Decode and resize `count` frames from `first` on: uint8 (T, h, w, 3).

    T is less than `count` where the video ends before.

    Raises:
        VideoError: if it ends even before `first`.
    """
    kept = []
    with _opened(path) as (_, frames, _):
        for index, frame in enumerate(frames):
            if index >= first:
                kept.append(_resize(frame, pre))
            if index == first + count - 1:
                break
    if not kept:
        raise VideoError(f"{path}: expected over {first} frames; has it changed?")
    return np.stack(kept)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int | None, Iterator[VideoFrame], Signs]]:
    """How many frames are promised, the frames, and the signs of damage."""
    try:
        with ffmpeg_log() as log:
            signs = Signs(log)
            with open_file(path, Limits(), signs, None) as (promised, frames):
                yield promised, frames, signs
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be decoded ({error.strerror})") from None


def _resize(frame: VideoFrame, pre: Preprocessing) -> Frames:
    """Turn a frame upright and resize it as `resize_crop` does: -> (h, w, 3)."""
    picture = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]  # (1, 3, H, W)
    size = pre.size(*picture.shape[:2])
    image = functional.interpolate(image, size, mode="bilinear", align_corners=False)
    return np.asarray(image[0].permute(1, 2, 0).contiguous(), np.uint8)


_SHUFFLE, _WINDOW = 1, 2


class Draw(NamedTuple):
    """One clip of one epoch."""

    epoch: int
    position: int
    clip: int


class Window(NamedTuple):
    """Where a training clip is cut from its frames, and whether it is mirrored."""

    top: int
    left: int
    mirrored: bool


@dataclass(frozen=True)
class ClipTable:
    """Video index and first frame of every clip, both (clips,)."""

    video: NDArray[np.int64]
    start: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the clips."""
        return len(self.video)


def cut(frames: Sequence[int], stride: int) -> ClipTable:
    """Cut videos of so many frames into clips; a shorter one is one clip all the same.

    >>> cut([40, 12], stride=16).start.tolist()
    [0, 16, 0]
    """
    starts = [np.arange(0, max(n - CLIP, 0) + 1, stride) for n in frames]
    video = np.repeat(np.arange(len(frames)), [len(part) for part in starts])
    return ClipTable(video, np.concatenate(starts))


def draws(iteration: int, batch: int, clips: int, seed: int) -> list[Draw]:
    """Return the clips of an iteration (0-based)."""
    places = [divmod(iteration * batch + i, clips) for i in range(batch)]
    return [Draw(e, p, int(_shuffle(seed, e, clips)[p])) for e, p in places]


@lru_cache(maxsize=2)
def _shuffle(seed: int, epoch: int, clips: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _SHUFFLE, epoch]).permutation(clips)


def window(draw: Draw, spare: tuple[int, int], mirror: bool, seed: int) -> Window:
    """Draw one crop and one flip for all frames of a clip.

    `spare` are the rows and columns that the crop leaves over: offsets 0 to one less,
    as Caffe's `rand % spare` gives.
    """
    rng = np.random.default_rng([seed, _WINDOW, draw.epoch, draw.position])
    top, left = (int(rng.integers(max(rows, 1))) for rows in spare)
    return Window(top, left, bool(mirror and rng.random() < 0.5))


#: Clips (B, 16, crop, crop, 3) and what each is: a label, or a video to judge.
Batch = tuple[Frames, NDArray[np.int64]]


@dataclass
class Footage:
    """Videos by index, and as many of them in memory as fit into `memory` bytes."""

    paths: Sequence[Path]
    frames: Sequence[int]
    pre: Preprocessing
    memory: int
    kept: dict[int, Frames] = field(default_factory=dict)
    used: int = 0

    def span(self, video: int, first: int, count: int) -> Frames:
        """Return `count` frames from `first` on, the last one repeated past the end."""
        if video not in self.kept and self.used < self.memory:
            whole = read_frames(self.paths[video], self.pre, 0, self.frames[video])
            fits = self.used + whole.nbytes <= self.memory
            if fits:
                self.kept[video] = whole
            # Full with the first that does not fit: no other is decoded in vain.
            self.used = self.used + whole.nbytes if fits else self.memory
        if video in self.kept:
            frames = self.kept[video][first : first + count]
        else:
            frames = read_frames(self.paths[video], self.pre, first, count)
        missing = count - len(frames)
        return np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])


@dataclass(frozen=True)
class TrainingClips(Dataset[Any]):
    """Clips cropped and mirrored at random; an item is a batch, asked for by draws.

    `labels` are of the clips, (clips,).
    """

    footage: Footage
    table: ClipTable
    labels: NDArray[np.int64]
    mirror: bool
    seed: int

    def __getitem__(self, draws: Sequence[Draw]) -> Batch | AqaError:
        """Return a batch, its labels those of its videos, or why there is none."""
        clips = []
        crop = self.footage.pre.crop
        try:
            for draw in draws:
                video, start = self.table.video[draw.clip], self.table.start[draw.clip]
                frames = self.footage.span(int(video), int(start), CLIP)
                spare = (frames.shape[1] - crop, frames.shape[2] - crop)
                drawn = window(draw, spare, self.mirror, self.seed)
                clips.append(_crop(frames, drawn, crop))
        except AqaError as error:
            return error
        return np.stack(clips), self.labels[[draw.clip for draw in draws]]


@dataclass(frozen=True)
class TestClips(Dataset[Any]):
    """Clips cropped as at extraction; an item is some of them, asked for by index."""

    footage: Footage
    table: ClipTable

    def __getitem__(self, clips: Sequence[int]) -> Batch | AqaError:
        """Return a batch and the videos that its clips are of, or why there is none.

        Clips of one video that follow one another are decoded together.
        """
        pre, cropped = self.footage.pre, []
        try:
            for video, group in groupby(clips, key=self.table.video.__getitem__):
                starts = self.table.start[list(group)]
                length = int(starts[-1] - starts[0]) + CLIP
                frames = self.footage.span(int(video), int(starts[0]), length)
                drawn = Window(*pre.corner(*frames.shape[1:3]), False)
                for begin in starts - starts[0]:
                    clip = frames[begin : begin + CLIP]
                    cropped.append(_crop(clip, drawn, pre.crop))
        except AqaError as error:
            return error
        return np.stack(cropped), self.table.video[list(clips)]


def load_batches(
    clips: TrainingClips | TestClips, asked: Iterable[Any], workers: int
) -> Iterator[Batch]:
    """Yield the batches that are asked for, in that order, made by worker processes.

    Raises:
        AqaError: naming the video that could not be decoded; or if a process died or
            got stuck, although every video was looked through before.
    """
    loader: Iterable[Any] = DataLoader(
        clips,
        batch_size=None,
        sampler=asked,
        num_workers=workers,
        multiprocessing_context=_context() if workers else None,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_interrupts,
        timeout=Limits.seconds if workers else 0,
    )
    try:
        for batch in loader:
            if isinstance(batch, AqaError):
                raise batch
            yield batch
    except RuntimeError as error:
        if not str(error).startswith("DataLoader"):
            raise
        raise AqaError(f"a decoding process died ({str(error)[:120]})") from None


def _context() -> BaseContext:
    """Where processes come from: a server that has imported torch and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _leave_interrupts(_: int) -> None:
    """Leave Ctrl-C to the caller, who has a step to finish and to save."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def worker_count(workers: int | None) -> int:
    """Decoding processes for `workers`; None: all processors but one, at least one."""
    return max(1, (os.cpu_count() or 1) - 1) if workers is None else max(0, workers)


def _as_it_is(item: Any) -> Any:
    """Leave NumPy's arrays alone: they cross processes without shared memory."""
    return item


def _crop(frames: Frames, drawn: Window, crop: int) -> Frames:
    """Cut a window, the same for all frames: (16, h, w, 3) -> (16, crop, crop, 3)."""
    top, left, mirrored = drawn
    part = frames[:, top : top + crop, left : left + crop]
    return part[:, :, ::-1] if mirrored else part


_MIB = 1 << 20


@dataclass(frozen=True)
class Material:
    """What there is to train and to test on; `test_labels` are of the test videos."""

    classes: tuple[str, ...]
    train: TrainingClips
    test: TestClips
    test_labels: tuple[int, ...]
    division: str
    sha256: str

    def record(self) -> dict[str, Any]:
        """Everything that decides a run, as JSON values."""
        return {
            "classes": list(self.classes),
            "division": self.division,
            "train_clips": len(self.train.table),
            "test_clips": len(self.test.table),
            "data_sha256": self.sha256,
        }


def survey(
    config: PretrainConfig, pre: Preprocessing, group: Processes, progress: Progress
) -> Material:
    """Read the lists, decode every video once, and cut them into clips.

    Rank 0 decodes, and tells the others.

    Raises:
        AqaError: naming the videos that cannot be used.
    """
    classes = read_classes(config.videos, config.split, config.held_out, config.seed)
    videos = (*classes.train, *classes.test)
    told: list[list[int]] = [[]]
    if group.leads:
        told = [_lengths(config, pre, classes, videos, progress)]
    if group.count > 1:
        distributed.broadcast_object_list(told)
    lengths = told[0]
    described = [(v.name, v.label, n) for v, n in zip(videos, lengths, strict=True)]
    text = json.dumps([classes.classes, len(classes.train), described])
    split = len(classes.train)
    # Test clips come round seldom: training clips have all the memory.
    memory = config.memory * _MIB // max(1, worker_count(config.workers))
    train, test = (
        Footage([classes.root / v.name for v in part], counts, pre, size)
        for part, counts, size in (
            (classes.train, lengths[:split], memory),
            (classes.test, lengths[split:], 0),
        )
    )
    table = cut(train.frames, config.stride)
    labels = np.array([video.label for video in classes.train])[table.video]
    return Material(
        classes=classes.classes,
        train=TrainingClips(train, table, labels, config.mirror, config.seed),
        test=TestClips(test, cut(test.frames, config.stride)),
        test_labels=tuple(video.label for video in classes.test),
        division=classes.division,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def _lengths(
    config: PretrainConfig,
    pre: Preprocessing,
    classes: ClassSet,
    videos: Sequence[LabelledVideo],
    progress: Progress,
) -> list[int]:
    """Count the frames of every video, or name those that cannot be used."""
    asked = (Video(each.name, classes.root / each.name, "", "", nan) for each in videos)
    seen = decode_all(
        asked,
        pre,
        ClipConfig(),
        workers=config.workers or None,
        allow_damaged=config.allow_damaged,
        limits=config.limits,
        decoder=look_through,
    )
    lengths, problems = [], []
    with closing(seen):
        for count, (_, found) in enumerate(seen, start=1):
            if isinstance(found, AqaError):
                problems.append(str(found))
            else:
                lengths.append(found.total)
            progress(count, len(videos), "looking through the videos")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise AqaError(f"{'; '.join(problems[:5])}{more}")
    return lengths
