"""Pose features for the extraction stage; videos are not opened and need not exist.

Conventions: `frames` counts those of the poses, `source_sha256` is of the pose file,
and `damage` says what was decided for a video: frames, people, missing joints. What the
numbers of the first video's poses were taken for (layout, axes, units, detector) goes
into the provenance; a video with others is a failure.
"""

from collections.abc import Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance
from aqa.extract.config import ClipConfig, PoseConfig
from aqa.extract.datasets.dataset import Video
from aqa.extract.extractor import Extracted
from aqa.extract.poses.conventions import read_pose_file
from aqa.extract.poses.features import pose_features, pose_record
from aqa.extract.poses.read import PoseError, digest, find_poses, naming
from aqa.extract.poses.tracks import Poses, read_poses


class PoseExtractor:
    """An `Extractor` that transforms the poses in a folder."""

    workload = ""

    def __init__(
        self, folder: Path, config: PoseConfig, videos: Iterable[Video]
    ) -> None:
        """Read poses from `folder`; AqaError when there is no such folder."""
        if not folder.is_dir():
            raise AqaError(
                f"{folder}: expected a folder of poses, one file per video, named by "
                "the video's key (diving/001.json); `aqa poses` makes one"
            )
        self._folder, self._config = folder, config
        self._facts: dict[str, Any] = {}
        self.notes: tuple[str, ...] = ()
        for video in videos:
            with suppress(AqaError, OSError):
                first = read_pose_file(find_poses(folder, video.key), config)
                self._facts = first.facts
                self.notes = (f"poses: {first.summary}",)
                break
        self.provenance = Provenance({**pose_record(config), **self._facts})

    def extract(
        self, videos: Iterable[Video]
    ) -> Generator[tuple[Video, Extracted | AqaError]]:
        """Yield each video with its features, or with the reason it has none."""
        for video in videos:
            try:
                yield video, self._features(video)
            except (AqaError, OSError) as error:
                reason = error if isinstance(error, AqaError) else AqaError(str(error))
                yield video, reason

    def source(self, video: Video) -> Path:
        """Return the pose file of a video; PoseError if there is none."""
        return find_poses(self._folder, video.key)

    def source_sha256(self, path: Path) -> str:
        """Return the digest of a pose file."""
        return digest(path)

    def _features(self, video: Video) -> Extracted:
        path = self.source(video)
        poses = read_poses(path, video.action, self._config)
        with naming(path):
            _require_same(poses.file.facts, self._facts, "the first video's")
            return Extracted(
                pose_features(poses, self._config),
                frames=poses.joints.shape[1],
                source_sha256=digest(path),
                damage=poses.notes,
            )


def pose_features_of_file(
    path: Path, record: Mapping[str, Any], **stated: Any
) -> tuple[npt.NDArray[np.float32], Poses]:
    """Return features (offsets, clips, D) as of a provenance, and the poses of a file.

    `stated` are fields of `PoseConfig` that say how the file is to be read (`layout`,
    `third`, `units`, `picture`).

    Raises:
        PoseError: the file cannot be read, or holds other joints or units.
        AqaError: the record is not one of pose features.
    """
    if not str(record.get("features")).startswith("pose-"):
        raise AqaError(f"expected pose features, found {record.get('features')!r}")
    # Layout and units in the record are facts of other poses, not settings.
    names = {field.name for field in fields(PoseConfig)} - {"layout", "units"}
    own = {name: record[name] for name in names & record.keys()}
    if "clips" in own:
        own["clips"] = ClipConfig(**own["clips"])
    config = PoseConfig(**own | stated)
    poses = read_poses(path, "", config)
    expected = {name: record.get(name) for name in ("layout", "axes", "units")}
    found = {name: poses.file.facts[name] for name in expected}
    with naming(path):
        _require_same(found, expected, "the model's")
        return pose_features(poses, config), poses


def _require_same(
    found: Mapping[str, Any], expected: Mapping[str, Any], whose: str
) -> None:
    if differences := Provenance(found).differences(Provenance(expected)):
        raise PoseError(f"poses unlike {whose}: {'; '.join(differences)}")
