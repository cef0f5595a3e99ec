"""Features of athletes' joints: a fixed number, whatever the number of frames.

Conventions: joints are float64 (frames, joints, axes); series are (axes x joints,
frames), all x before all y before all z. Features are float32 (offsets, clips, D); of
two athletes, one after the other along D, with zeros if there is only one. Joints in
pixels are used as they are, joints in other units at a body size of `BODY_SIZE`.

pose-dct, (1, 1, D): absolute values of the lowest frequencies of the joints relative to
the head (Pirsiavash, Vondrick and Torralba, "Assessing the Quality of Actions", ECCV
2014). Type-II DCT, orthonormal as MATLAB's `dct`; zeros where a series has fewer frames
than coefficients.

pose-apen, (1, 1, D): approximate entropy of the same series, in nats (Venkataraman,
Vlachos and Turaga, "Dynamical Regularity for Action Analysis", BMVC 2015); does not
depend on scale. Definition, embedding 2 and tolerance 0.2 standard deviations follow
Pincus, "Approximate entropy as a measure of system complexity", PNAS 1991; the values
that the BMVC paper used are unverified.

pose-clips, (offsets, clips, D): a sequence for LSTM heads, of our own making. Joints
relative to the middle of the hips and the path of that middle, both at a body size of
1, are brought to the length of a video and cut into the same clips as its frames
(`aqa.extract.preprocessing`; zeros in front of a shorter one). Of each coordinate in
each clip the lowest coefficients of the orthonormal type-II DCT are kept, with signs.

For the extraction stage no video is opened: `frames` counts those of the poses,
`source_sha256` is of the pose file, `damage` says what was decided (frames, people,
missing joints). What the numbers of the first video's poses were taken for (layout,
axes, units, detector) goes into the provenance; a video with others is a failure.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import dct

from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance
from aqa.extract.config import ClipConfig, PoseConfig, of_poses, refuse_unused, taken
from aqa.extract.datasets.dataset import Video
from aqa.extract.extractor import Extracted
from aqa.extract.poses.conventions import read_pose_file
from aqa.extract.poses.read import PoseError, digest, find_poses, naming
from aqa.extract.poses.tracks import Poses, read_poses
from aqa.extract.preprocessing import clip_starts, fit_length

Series = npt.NDArray[np.float64]

#: In pixels: of an athlete about 200 pixels tall. The published SVR scales nothing.
BODY_SIZE = 50.0
#: What makes each kind of features: the transform, and the fields of `PoseConfig`.
MADE_WITH = {
    "pose-dct": ("dct-ii, orthonormal, absolute", "coefficients"),
    "pose-apen": ("approximate entropy", "embedding", "tolerance"),
    "pose-clips": ("dct-ii, orthonormal, per clip", "clips", "clip_coefficients"),
}


def pose_features(poses: Poses, config: PoseConfig) -> npt.NDArray[np.float32]:
    """Return the features of a video, (offsets, clips, D)."""
    layout, units = poses.file.layout, poses.file.facts["units"]
    per_athlete = []
    for joints in poses.joints:
        if config.features == "pose-clips":
            per_athlete.append(clip_features(joints, layout.centre, config))
            continue
        if units != "pixels":
            joints = joints * (BODY_SIZE / body_size(joints))
        series = head_centred(joints, layout.head)
        if config.features == "pose-dct":
            features = low_frequencies(series, config.coefficients)
        else:
            entropy = config.embedding, config.tolerance
            features = np.array([approximate_entropy(s, *entropy) for s in series])
        per_athlete.append(features.reshape(1, 1, -1))
    absent = [np.zeros_like(per_athlete[0])] * (config.athletes - len(per_athlete))
    return np.concatenate(per_athlete + absent, axis=2).astype(np.float32)


def pose_record(config: PoseConfig) -> dict[str, Any]:
    """Return the provenance of `pose_features`, except for the facts of the poses."""
    transform, *names = MADE_WITH[config.features]
    names += ["features", "athletes", "confidence", "missing"]
    names += [
        n for n in ("joints", "root", "picture") if getattr(config, n) is not None
    ]
    values = asdict(config)
    return {"transform": transform, **{name: values[name] for name in names}}


def body_size(joints: Series) -> float:
    """Return the median over time of the joints' RMS spread around their mean.

    Needs no names of joints. Raises `PoseError` where all joints are in one place.
    """
    spread = joints - joints.mean(axis=1, keepdims=True)
    size = float(np.median(np.sqrt((spread**2).sum(axis=2).mean(axis=1))))
    if not size > 0:
        raise PoseError("all joints of a person are in one place")
    return size


def head_centred(joints: Series, head: int) -> Series:
    """Return joints relative to the head: (T, J, axes) -> (axes (J - 1), T)."""
    relative = np.delete(joints - joints[:, [head]], head, axis=1)
    return relative.transpose(2, 1, 0).reshape(-1, len(joints))


def low_frequencies(series: Series, coefficients: int) -> Series:
    """Return absolute DCT coefficients, low first: (S, T) -> (S, coefficients)."""
    spectrum = np.abs(dct(series, type=2, norm="ortho", axis=1))[:, :coefficients]
    return np.pad(spectrum, ((0, 0), (0, coefficients - spectrum.shape[1])))


def approximate_entropy(
    series: Series, embedding: int = 2, tolerance: float = 0.2
) -> float:
    """Return the approximate entropy of one series (T,), in nats; 0 is regular.

    Two patterns of `embedding` values match when no value differs by more than
    `tolerance` standard deviations (ddof 0) of the series. Each pattern matches
    itself, so small negative values, down to about -1/T, occur.
    """
    count = len(series)
    if count < embedding + 2:
        raise PoseError(f"expected at least {embedding + 2} frames, found {count}")
    near = np.abs(series[:, None] - series) <= tolerance * series.std()
    matches = near
    regularity = []
    for length in range(1, embedding + 2):
        # Patterns of `length` match if their first length - 1 and last values do.
        patterns = count - length + 1
        matches = matches[:patterns, :patterns] & near[length - 1 :, length - 1 :]
        regularity.append(float(np.log(matches.mean(axis=1)).mean()))
    return regularity[-2] - regularity[-1]


def clip_features(
    joints: Series, centre: tuple[int, ...], config: PoseConfig
) -> Series:
    """Return DCT coefficients of clips: (T, J, axes) -> (offsets, clips, D).

    D is (J + 1) x axes x coefficients: joints in order, then the body's path.
    """
    clips = config.clips
    middle = joints[:, list(centre)].mean(axis=1, keepdims=True)
    path = middle - middle.mean(axis=0)
    moving = np.concatenate([joints - middle, path], axis=1) / body_size(joints)
    frames = clip_starts(clips)[..., None] + np.arange(clips.clip)
    spectrum = dct(fit_length(moving, clips)[frames], type=2, norm="ortho", axis=2)
    low = spectrum[:, :, : config.clip_coefficients]  # (offsets, clips, k, J + 1, axes)
    features: Series = np.moveaxis(low, 2, -1).reshape(clips.offsets, clips.clips, -1)
    return features


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


def extractor(
    features: str, videos: Sequence[Video], settings: Mapping[str, Any]
) -> PoseExtractor:
    """Return the extractor of pose features; `poses`, the folder, is among settings."""
    left = dict(settings)
    folder = left.pop("poses", None)
    if folder is None:
        raise AqaError(f"{features}: expected poses, a folder of pose files")
    clips = taken(ClipConfig, left)
    config = taken(PoseConfig, left, features=features, clips=clips)
    refuse_unused(left)
    return PoseExtractor(Path(folder), config, videos)


def pose_features_of_file(
    path: Path, record: Mapping[str, Any], action: str = "", **stated: Any
) -> tuple[npt.NDArray[np.float32], Poses]:
    """Return features (offsets, clips, D) as of a provenance, and the poses of a file.

    As many athletes are followed as in extraction for `action`. `stated` are fields of
    `PoseConfig` that say how the file is to be read (`layout`, `third`, `units`,
    `picture`).

    Raises:
        PoseError: the file cannot be read, or holds other joints or units.
        AqaError: the record is not one of pose features.
    """
    if not of_poses(str(record.get("features"))):
        raise AqaError(f"expected pose features, found {record.get('features')!r}")
    # Layout and units in the record are facts of other poses, not settings.
    names = {field.name for field in fields(PoseConfig)} - {"layout", "units"}
    own = {name: record[name] for name in names & record.keys()}
    if "clips" in own:
        own["clips"] = ClipConfig(**own["clips"])
    config = PoseConfig(**own | stated)
    poses = read_poses(path, action, config)
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
