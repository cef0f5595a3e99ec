"""Stand-ins that many tests share: small videos, a data set, samples, an extractor.

Conventions: frames are RGB uint8 (H, W, 3); features are float32 (2, 3, 4), a function
of the video's key alone, so that every run of an extraction can be checked.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np

from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.extract.datasets.dataset import Dataset, Video
from aqa.extract.extractor import Extracted, VideoSource

KEYS = tuple(f"diving/{number:03d}" for number in range(1, 8))
MADE = Provenance({"features": "made"})
OTHER = Provenance({"features": "other"})


def encode(path, frames, codec="ffv1", pix_fmt=None, rate=25, options=None):
    """Encode RGB frames as a video, by default without loss; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt or ("bgr0" if codec == "ffv1" else "yuv420p")
        stream.codec_context.thread_count = 1
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def touch(root, *names):
    """Make empty files, and their folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def noise(count, height=48, width=64, seed=0):
    """Return `count` frames of noise."""
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def numbered(count, height=120, width=160):
    """Return `count` frames; frame n is of grey level n everywhere."""
    return [np.full((height, width, 3), n, np.uint8) for n in range(count)]


def dataset(keys=KEYS, score=50.0):
    """Return a data set whose videos need not exist; `score` may map keys."""
    scores = score if isinstance(score, dict) else dict.fromkeys(keys, score)
    videos = tuple(
        Video(key, Path(key), key.split("/")[0], "train", scores[key]) for key in keys
    )
    return Dataset(Path("."), videos, ())


def features_of(key, seed=0):
    """Return what FakeExtractor makes of the video `key`, with seed 0."""
    generator = np.random.default_rng([*key.encode(), seed])
    return generator.random((2, 3, 4), dtype=np.float32)


def sample(key, **changes):
    """Return a sound sample with the fields in `changes`."""
    fields = dict(action="diving", split="train", score=1.5, frames=103)
    return Sample(key, **{**fields, "source_sha256": "0" * 64, **changes})


def numbers(*shape, seed=0):
    """Return random float32 of a shape."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def ours():
    """Return an environment in which a new interpreter imports what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def names(folder):
    """List the names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def spoil(path, *arrays):
    """Damage a file where it holds the bytes of these arrays."""
    data = path.read_bytes()
    for array in arrays:
        assert array.tobytes() in data
        data = data.replace(array.tobytes(), array.tobytes()[::-1])
    path.write_bytes(data)


def at_once(work, arguments):
    """Call `work` in a thread for each argument, and pass on what they raise."""
    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(work, arguments))


class FakeExtractor(VideoSource):
    """Features by key; videos in `broken` fail; `dies_at` raises `Killed`."""

    notes = ()

    def __init__(self, broken=(), dies_at=None, provenance=MADE):
        self.provenance = provenance
        self.broken, self.dies_at = broken, dies_at
        self.seen = []

    def extract(self, videos):
        for place, video in enumerate(videos):
            if place == self.dies_at:
                raise Killed
            self.seen.append(video.key)
            if video.key in self.broken:
                yield video, AqaError(f"{video.path}: expected a video, found noise")
            else:
                yield video, Extracted(features_of(video.key), 97, "ab" * 32)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def compare(*arguments, **options):
    """Run experiments; return their report.json objects."""
    # Here: a stage that is broken must not break the others' tests.
    from aqa.regress.experiments.compare import compare as run
    from aqa.regress.experiments.result import to_json

    return [to_json(each.report) for each in run(*arguments, **options)]
