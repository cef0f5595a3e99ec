"""The clips of both sides of a data set, after every video was decoded once.

Conventions: clips of both sides start `stride` frames apart. The digest is over the
classes, and every video's name, label and length: what the order of a run depends on.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from torch import distributed

from aqa.cache.errors import AqaError
from aqa.cache.progress import Progress
from aqa.extract.config import ClipConfig
from aqa.extract.datasets.dataset import Video
from aqa.extract.preprocessing import Preprocessing
from aqa.extract.pretraining.config import PretrainConfig
from aqa.extract.pretraining.footage import look_through
from aqa.extract.pretraining.loading import (
    Footage,
    TestClips,
    TrainingClips,
    worker_count,
)
from aqa.extract.pretraining.processes import Processes
from aqa.extract.pretraining.sampling import cut
from aqa.extract.pretraining.ucf101 import ClassSet, LabelledVideo, read_classes
from aqa.extract.videos.decoding import decode_all

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
