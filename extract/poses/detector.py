"""Finding the poses of a whole data set: one JSON file a video.

Conventions: the file of the video `diving/001` is `<out>/diving/001.json`, a COCO
annotation file: `images` are the frames, with ids from 0 on, `annotations` the
people, joints in pixels to 1/100 and scores to 1/1000; `info` says what made it, and
of which video. `aqa.extract.poses.files` reads it back.

A file is there whole or not at all, so the same command goes on where it stopped; the
file of a video that has been replaced since is made anew. A video that is damaged,
crashes the process that looks at it, takes too long or too much memory is a `Failure`,
also listed in `failures.json` beside `<out>`; the others go on. Frames are looked at
one at a time, at their own size.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Generator, Sequence
from concurrent.futures import TimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pebble import ProcessExpired, ProcessPool

from aqa.cache.errors import AqaError
from aqa.cache.progress import Progress, silent
from aqa.cache.provenance import Provenance, require_same
from aqa.cache.replacement import replacing
from aqa.extract.config import DetectorConfig
from aqa.extract.datasets.dataset import Dataset, Video
from aqa.extract.failures import Failure, FailureLog
from aqa.extract.poses.files import MAX_FRAMES
from aqa.extract.poses.keypoints import Person, PoseError, load_json
from aqa.extract.poses.model import PoseModel, pose_model_record
from aqa.extract.sources import video_changed
from aqa.extract.videos.decoding_worker import limit_memory
from aqa.extract.videos.video import VideoError, watch


@dataclass(frozen=True)
class Detection:
    """What a run did; `failures` are the videos that have no poses, and why."""

    folder: Path
    done: int
    skipped: int
    failures: tuple[Failure, ...]
    seconds: float

    def record(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {**asdict(self), "folder": str(self.folder)}


def detect_poses(
    dataset: Dataset, out: Path, config: DetectorConfig, progress: Progress = silent
) -> Detection:
    """Find everybody in every frame of what is left to do of the data set.

    Raises:
        PoseError: the model cannot be used.
        ProvenanceMismatch: poses in `out` were found with other models.
    """
    begun = time.monotonic()
    made_with = Provenance(pose_model_record(config))
    todo = [video for video in dataset.videos if not _is_done(video, out, made_with)]
    PoseModel(config)  # what is wrong with it shall be said once, not once a video
    failures = []
    with closing(_look_at(todo, config)) as results:
        for count, (video, found) in enumerate(results, start=1):
            if isinstance(found, AqaError):
                failures.append(Failure(video.key, str(video.path), str(found)))
            else:
                _write(_path(out, video), found, made_with)
            progress(count, len(todo), video.key)
    FailureLog(out).list_for_user(failures)
    return Detection(
        folder=out,
        done=len(todo) - len(failures),
        skipped=len(dataset.videos) - len(todo),
        failures=tuple(failures),
        seconds=time.monotonic() - begun,
    )


@dataclass(frozen=True)
class Found:
    """Everybody in each frame of a video of `width` by `height` pixels."""

    people: Sequence[Sequence[Person]]
    width: int
    height: int
    damage: tuple[str, ...]
    source_sha256: str


def find_people(path: Path, model: PoseModel, config: DetectorConfig) -> Found:
    """Look at one video, in this process; raises `VideoError` as `watch` does."""
    people: list[list[Person]] = []
    sizes: list[tuple[int, int]] = []

    def see(frame: npt.NDArray[np.uint8]) -> None:
        sizes.append((frame.shape[1], frame.shape[0]))
        people.append(model(frame))

    frames = min(config.limits.frames, MAX_FRAMES)
    limits = replace(config.limits, frames=frames)
    seen = watch(path, see, limits=limits, allow_damaged=config.allow_damaged)
    return Found(people, *sizes[0], seen.damage, seen.source_sha256)


_model: PoseModel
_config: DetectorConfig


def _prepare(config: DetectorConfig) -> None:
    global _model, _config
    _model, _config = PoseModel(config), config
    limit_memory(config.limits.memory)


def _work(path: Path) -> Found:
    try:
        return find_people(path, _model, _config)
    except AqaError:
        raise
    except Exception as error:  # ONNX Runtime's own have no base
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise VideoError(f"{path}: {reason}") from error


def _look_at(
    videos: Sequence[Video], config: DetectorConfig
) -> Generator[tuple[Video, Found | AqaError]]:
    """Look at each video in a process that may die, in order."""
    context = multiprocessing.get_context("spawn")
    pool: Any = ProcessPool(
        1, initializer=_prepare, initargs=(config,), context=context
    )
    try:
        for video in videos:
            future = pool.schedule(_work, (video.path,), timeout=config.limits.seconds)
            try:
                yield video, future.result()
            except AqaError as error:
                yield video, error
            except TimeoutError:
                reason = f"takes longer than {config.limits.seconds:g} s to look at"
                yield video, VideoError(f"{video.path}: {reason}")
            except ProcessExpired as error:
                reason = f"the detector crashed (exit code {error.exitcode})"
                yield video, VideoError(f"{video.path}: {reason}")
    except BrokenProcessPool as error:
        raise PoseError(
            "the process that looks at videos died with none in hand: is there "
            "memory for the model? The same command goes on from here"
        ) from error
    finally:
        pool.stop()
        pool.join()


def _path(out: Path, video: Video) -> Path:
    return out / f"{video.key}.json"


def _is_done(video: Video, out: Path, made_with: Provenance) -> bool:
    path = _path(out, video)
    if not path.exists():
        return False
    try:
        info = load_json(path)["info"]
        found, source = info["made_with"], info["source_sha256"]
    except (TypeError, KeyError) as error:
        raise PoseError(
            f"{path}: expected poses that `aqa poses` found, or no file; "
            "choose another folder"
        ) from error
    require_same(Provenance(found), made_with, str(path))
    return not video_changed(video, source, path.stat().st_mtime_ns)


def _write(path: Path, found: Found, made_with: Provenance) -> None:
    size = {"width": found.width, "height": found.height}
    record: dict[str, Any] = {
        "info": {
            "made_with": made_with.record,
            "source_sha256": found.source_sha256,
            "damage": list(found.damage),
        },
        "categories": [{"id": 1, "name": "person"}],
        "images": [{"id": frame, **size} for frame in range(len(found.people))],
        "annotations": [
            {"image_id": frame, "category_id": 1, "keypoints": _rounded(person)}
            for frame, people in enumerate(found.people)
            for person in people
        ],
    }
    text = json.dumps(record, separators=(",", ":"), allow_nan=False)
    with replacing(path) as descriptor, os.fdopen(descriptor, "wb", closefd=False) as f:
        f.write(text.encode())


def _rounded(person: Person) -> list[float]:
    return [float(v) for row in person for v in (*row[:2].round(2), row[2].round(3))]
