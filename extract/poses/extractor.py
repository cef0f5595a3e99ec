"""Pose features for the extraction stage; the videos themselves are not opened.

Conventions: features are float32 (1, 1, D): one copy of one clip, the whole video.
`frames` counts those of the poses, `source_sha256` is of the pose file, and `damage`
says what was missing and interpolated.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance
from aqa.extract.config import PoseConfig
from aqa.extract.datasets.dataset import Video
from aqa.extract.poses.features import pose_features, pose_record
from aqa.extract.poses.read import PoseError, digest, find_poses, made_with
from aqa.extract.poses.tracks import read_poses
from aqa.extract.source import touched
from aqa.extract.stage import Extracted


class PoseExtractor:
    """An `Extractor` that transforms the poses in a folder."""

    notes = ()

    def __init__(
        self, folder: Path, config: PoseConfig, videos: Iterable[Video]
    ) -> None:
        """Read poses from `folder`; AqaError when there is no such folder.

        The first of `videos` that has poses decides which detector made them; a video
        whose poses another detector made is a failure.
        """
        if not folder.is_dir():
            raise AqaError(
                f"{folder}: expected a folder of poses, one file per video, named by "
                "the video's key (diving/001.json); `aqa poses` makes one"
            )
        self._folder, self._config = folder, config
        self._detector = next(self._detectors(videos), Provenance({}))
        self.provenance = Provenance({**pose_record(config), **self._detector.record})

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

    def changed(self, video: Video, sha256: str, since: int) -> bool:
        """Tell whether the poses were touched after `since` and differ now.

        Poses that have been removed have not changed: their features stay.
        """
        try:
            path = find_poses(self._folder, video.key)
            return touched(path, since) and digest(path) != sha256
        except (AqaError, OSError):
            return False

    def _detectors(self, videos: Iterable[Video]) -> Iterator[Provenance]:
        """Yield what made the poses of each video that has some."""
        for video in videos:
            with suppress(AqaError, OSError):
                made = made_with(find_poses(self._folder, video.key))
                yield Provenance({"found_with": made} if made else {})

    def _features(self, video: Video) -> Extracted:
        for detector in self._detectors([video]):
            if differences := detector.differences(self._detector):
                raise PoseError(
                    f"{video.key}: poses made by another detector than those of the "
                    f"first video: {'; '.join(differences)}"
                )
        poses = read_poses(self._folder, video.key, video.action, self._config)
        features = pose_features(poses.joints, self._config)
        return Extracted(
            features[None, None],  # (D,) -> (offsets, clips, D)
            frames=poses.joints.shape[1],
            source_sha256=poses.source_sha256,
            damage=poses.repairs,
        )
