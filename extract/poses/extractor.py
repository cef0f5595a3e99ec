"""Features of poses for the extraction stage: the same cache, another extractor.

Conventions: features are float32 (1, 1, D): one copy of one clip, which is the whole
video. `frames` are those of the poses, `source_sha256` is of the pose file, and
`damage` says what was missing and interpolated. The videos themselves are not opened.
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
from aqa.extract.stage import Extracted
from aqa.extract.videos.source import touched


class PoseExtractor:
    """Poses below a folder and what is made of them: a stage's `Extractor`."""

    notes = ()

    def __init__(
        self, folder: Path, config: PoseConfig, videos: Iterable[Video]
    ) -> None:
        """Take poses from `folder`; AqaError when there is none.

        The first of `videos` that has poses says how they are found: what was made
        otherwise does not go into the same cache.
        """
        if not folder.is_dir():
            raise AqaError(
                f"{folder}: expected a folder of poses, one file a video, named by "
                "the video's key (diving/001.json); `aqa poses` makes one"
            )
        self._folder, self._config = folder, config
        self._way = next(self._ways(videos), Provenance({}))
        self.provenance = Provenance({**pose_record(config), **self._way.record})

    def extract(
        self, videos: Iterable[Video]
    ) -> Generator[tuple[Video, Extracted | AqaError]]:
        """Features of each video, or why it has none, in order."""
        for video in videos:
            try:
                yield video, self._features(video)
            except (AqaError, OSError) as error:
                reason = error if isinstance(error, AqaError) else AqaError(str(error))
                yield video, reason

    def changed(self, video: Video, sha256: str, since: int) -> bool:
        """Whether the poses were replaced after `since` and are others now.

        Poses that are gone have not changed: their features stay.
        """
        try:
            path = find_poses(self._folder, video.key)
            return touched(path, since) and digest(path) != sha256
        except (AqaError, OSError):
            return False

    def _ways(self, videos: Iterable[Video]) -> Iterator[Provenance]:
        """How the poses of each video were found that has some."""
        for video in videos:
            with suppress(AqaError, OSError):
                way = made_with(find_poses(self._folder, video.key))
                yield Provenance({"found_with": way} if way else {})

    def _features(self, video: Video) -> Extracted:
        for way in self._ways([video]):
            if differences := way.differences(self._way):
                raise PoseError(
                    f"{video.key}: poses that were found otherwise than those of the "
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
