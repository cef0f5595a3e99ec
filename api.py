"""The Python API: the commands as functions, and a cache as arrays.

Conventions: paths are strings or Paths. Features are float32 (N, offsets, clips, D),
rows sorted by key, NaN where a row has fewer clips; scores are in judges' units, NaN
where unlabelled. Settings are the fields of the config dataclasses under their own
names (`hidden=64`, `iterations=2000`, `folds="fold"`), as the options of the commands
are; unknown ones raise AqaError.
`progress` is called with (done, total, label). Errors are `aqa.AqaError`.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aqa.cache.console import Progress, given, silent
from aqa.cache.errors import AqaError
from aqa.cache.processes import share_processors
from aqa.cache.store import FeatureCache

if TYPE_CHECKING:
    from aqa.extract.stage import Extraction
    from aqa.extract.videos.video import Decoded
    from aqa.regress.experiments.result import Result
    from aqa.regress.heads.fit import FitReport
    from aqa.regress.heads.model_file import Model
    from aqa.regress.heads.scoring import Scored
    from aqa.regress.report.write import Strips

AnyPath = str | PathLike[str]


@dataclass(frozen=True, eq=False)
class CacheArrays:
    """A cache in memory: `features` (N, offsets, clips, D) and `labels` by column.

    The last `clips` (N,) of each sample are real. Clips before them are padding, and
    are NaN, which `predict` of models and estimators ignores. `labels` has key, action,
    split, score, frames and any further columns, each (N,); "extra_" stands before the
    name of a further column that has one of these.
    """

    features: NDArray[np.float32]
    clips: NDArray[np.int32]
    labels: dict[str, NDArray[Any]]
    provenance: Mapping[str, Any]

    def frame(self) -> Any:
        """Return the labels as a pandas DataFrame, indexed by key."""
        import pandas as pd

        return pd.DataFrame(self.labels).set_index("key")


def open_cache(path: AnyPath = "features.h5") -> CacheArrays:
    """Read a cache whole; raises AqaError for a file that is not a sound cache."""
    with FeatureCache.open(Path(path)) as cache:
        samples = cache.samples
        labels: dict[str, NDArray[Any]] = {
            name: np.array(getattr(samples, name))
            for name in ("key", "action", "split", "score", "frames")
        }
        further = samples.extra_beside(labels).items()
        labels |= {name: np.array(texts) for name, texts in further}
        features, clips = cache.read(), cache.real_clips
        for row, padding in enumerate(features.shape[2] - clips):
            features[row, :, :padding] = np.nan
        return CacheArrays(features, clips, labels, cache.provenance.record)


def extract(
    videos: AnyPath,
    *,
    cache: AnyPath = "features.h5",
    weights: str | None = None,
    features: str = "c3d",
    poses: AnyPath | None = None,
    actions: Sequence[str] | None = None,
    shard: tuple[int, int] | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> "Extraction":
    """Extract features of a data set to a cache; a repeated call continues.

    `videos` is the AQA-7 folder, a CSV or a folder of videos; `shard` (i, N) is the
    i-th of N parts, 0-based; `settings` are fields of `ExtractConfig` and `ClipConfig`,
    for pose features of `PoseConfig`. Returns what was done, with `failures`.
    """
    share_processors()
    from aqa.extract.config import of_poses
    from aqa.extract.datasets import read_dataset
    from aqa.extract.extractor import make_extractor
    from aqa.extract.stage import extract as run

    if isinstance(actions, str):
        raise AqaError(f"actions: expected a list of names, found {actions!r}")
    if shard is not None and not 0 <= shard[0] < shard[1]:
        raise AqaError(f"shard: expected (i, N) with 0 <= i < N, found {shard}")
    dataset = read_dataset(Path(videos), actions, labels_only=of_poses(features))
    settings |= given(weights=weights, poses=poses)
    extractor = make_extractor(features, dataset.videos, settings)
    return run(dataset, Path(cache), extractor, shard, progress)


def fit(
    cache: AnyPath = "features.h5",
    *,
    out: AnyPath = "models",
    config: AnyPath | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> "FitReport":
    """Train heads on a cache, test them, and write model files into `out`.

    `config` is a TOML file of settings, `settings` are fields of `FitConfig` and what
    it contains. The returned report has `models` (paths), `results`, `average`.
    """
    from aqa.regress.config import FitConfig, configured
    from aqa.regress.heads.fit import fit as run

    made = configured(FitConfig(), Path(config) if config else None, settings)
    return run(Path(cache), made, Path(out), progress)


def compare(
    experiment: str = "single-vs-all",
    cache: AnyPath = "features.h5",
    *,
    also: AnyPath | Sequence[AnyPath] = (),
    videos: AnyPath | None = None,
    out: AnyPath = "report",
    config: AnyPath | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> "list[Result]":
    """Run an experiment of the paper, or "all", and write its report into `out`.

    `also` are further caches of the same videos; `videos` is the data set that
    `extract` was given, of which the page then shows frames; `settings` are fields of
    `CompareConfig` and what it contains. Each result has `report`, the object that
    report.json holds.
    """
    from aqa.regress.config import CompareConfig, configured
    from aqa.regress.experiments.compare import compare as run

    made = configured(CompareConfig(), Path(config) if config else None, settings)
    strips = None if videos is None else strips_of(videos, cache)
    also = _paths(also)
    return run(
        Path(cache), [experiment], made, Path(out), progress, also=also, strips=strips
    )


#: Frames of a strip, and their height in pixels.
STRIP_FRAMES, STRIP_HEIGHT = 6, 120


def strips_of(videos: AnyPath, cache: AnyPath) -> "Strips":
    """Return a function from keys to frames of those videos that can be decoded.

    They are evenly spaced over the frames that the features in `cache` were made of,
    whole pictures in the shape that they are shown in, uint8 (6, 120, w, 3). Videos are
    decoded with the limits of extraction, damaged ones too. Raises AqaError if
    `videos` is no data set, or has no video of the cache.
    """
    from aqa.extract.config import ClipConfig, config_like
    from aqa.extract.datasets import read_dataset
    from aqa.extract.preprocessing import Preprocessing
    from aqa.extract.videos.video import decode_all

    dataset = read_dataset(Path(videos), skip_missing=True)
    found = {video.key: video for video in dataset.videos}
    with FeatureCache.open(Path(cache)) as opened:
        record, keys = opened.provenance.record, opened.samples.key
    if found.keys().isdisjoint(keys):
        raise AqaError(
            f"{videos}: expected the videos of {cache}, such as {keys[0]}; found "
            f"others, such as {next(iter(found))}: name what `aqa extract` was given"
        )
    c3d = record.get("features") == "c3d"
    clips = config_like(record).clips if c3d else ClipConfig()
    whole = Preprocessing(STRIP_HEIGHT, STRIP_HEIGHT, 0, 0, STRIP_HEIGHT)

    def strips(keys: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
        wanted = [found[key] for key in dict.fromkeys(keys) if key in found]
        decoding = decode_all(wanted, whole, clips, allow_damaged=True)
        return {
            video.key: _strip(decoded)
            for video, decoded in decoding
            if not isinstance(decoded, AqaError)
        }

    return strips


def _strip(decoded: "Decoded") -> NDArray[np.uint8]:
    from PIL import Image

    last = len(decoded.frames) - 1
    places = np.linspace(0, last, STRIP_FRAMES).round().astype(int)
    # Between 1:2 and 2:1, so that no file makes a page of another shape.
    width = round(STRIP_HEIGHT * min(max(decoded.aspect or 1.0, 0.5), 2.0))
    pictures = [Image.fromarray(decoded.frames[place]) for place in places]
    return np.stack([np.asarray(p.resize((width, STRIP_HEIGHT))) for p in pictures])


def load_model(path: AnyPath) -> "Model":
    """Read a model file; its `predict` gives scores in judges' units."""
    from aqa.regress.heads.model_file import load_model as read

    return read(Path(path))


def score(
    model: "AnyPath | Model",
    videos: AnyPath | Sequence[AnyPath] = (),
    *,
    poses: AnyPath | Sequence[AnyPath] = (),
    features: AnyPath | Sequence[AnyPath] = (),
    action: str | None = None,
    start: float | None = None,
    end: float | None = None,
    warn: Callable[[str], None] = warnings.warn,
    **settings: Any,
) -> "Iterator[tuple[Path, Scored | AqaError]]":
    """Score files with a model: videos, pose files or .npy files of features.

    Which of the three a model takes depends on the features that it was made with.
    `start` and `end` are seconds of a video; `settings` are fields of `ExtractConfig`
    (weights, device), for poses those that say how to read them (layout, third). Yields
    each path with its score, or with the error of a file that cannot be scored.

    Raises ProvenanceMismatch for other weights than the model's, AqaError for an
    unknown action and for files of a kind that the model was not made with.
    """
    from aqa.regress.heads.model_file import Model
    from aqa.regress.heads.scoring import Scored, action_of
    from aqa.regress.heads.scoring import score as score_features

    fitted = model if isinstance(model, Model) else load_model(model)
    name = action_of(fitted, action)
    record = fitted.provenance.record
    kind = str(record.get("features"))
    wanted = {"c3d": "videos"}.get(kind, "poses" if "pose-" in kind else "features")
    paths = {"videos": videos, "poses": poses, "features": features}
    asked = {what: _paths(each) for what, each in paths.items()}
    if found := [what for what, each in asked.items() if each and what != wanted]:
        raise AqaError(
            f"the model was made with {kind} features: expected {wanted}, found "
            f"{' and '.join(found)}"
        )
    if wanted == "videos":
        seconds = (start, end)
        yield from _score_videos(fitted, name, asked[wanted], seconds, warn, settings)
        return
    from aqa.cache.exchange import read_features
    from aqa.extract.config import PoseConfig, refuse_unused
    from aqa.extract.poses.features import pose_features_of_file

    refuse_unused(settings, *([PoseConfig] if wanted == "poses" else []))
    if start is not None or end is not None:
        raise AqaError(
            "start and end: seconds of a video; expected none of them with "
            f"{wanted}, which are scored whole"
        )
    for path in asked[wanted]:
        frames = None
        try:
            if wanted == "poses":
                x, read = pose_features_of_file(path, record, name, **settings)
                frames = read.joints.shape[1]
            else:  # a copy: torch takes no view of bytes that must not change
                x = read_features(path)[0].copy()
            yield path, Scored(path, score_features(fitted, x, name, frames=frames))
        except AqaError as error:
            yield path, error


def _score_videos(
    model: "Model",
    action: str,
    paths: Sequence[Path],
    seconds: tuple[float | None, float | None],
    warn: Callable[[str], None],
    settings: dict[str, Any],
) -> "Iterator[tuple[Path, Scored | AqaError]]":
    share_processors()
    from aqa.extract.config import ExtractConfig, config_like, refuse_unused
    from aqa.extract.datasets.dataset import Video
    from aqa.extract.extractor import Facts
    from aqa.extract.network import C3DExtractor
    from aqa.extract.preprocessing import middle_frames, shown_frames
    from aqa.regress.heads.scoring import Scored
    from aqa.regress.heads.scoring import score as score_features

    refuse_unused(settings, ExtractConfig)
    config = replace(config_like(model.provenance.record), **settings)
    extractor = C3DExtractor(config)
    for note in extractor.notes:
        warn(note)
    for difference in model.require(extractor.provenance):
        warn(f"warning: the model knows other features: {difference}")
    videos = [Video(str(path), path, "", "", math.nan) for path in paths]
    for video, decoded in extractor.decode(videos, *seconds):
        if isinstance(decoded, AqaError):
            yield video.path, decoded
            continue
        facts = Facts()
        facts.add(video.key, None, extractor.squashed_aspect(decoded), decoded.notes)
        for line in facts.describe(config.clips.length):
            warn(line)
        shown = shown_frames(len(decoded.frames), config.clips)
        at = decoded.times
        result = score_features(
            model,
            extractor.features(decoded.frames),
            action,
            padding=sum(not clip for clip in shown),
            seconds=[(at[c[0]], at[c[-1]]) if c else None for c in shown] if at else (),
            frames=decoded.total,
            rate=decoded.rate,
        )
        strip = middle_frames(decoded.frames, config.clips)
        yield video.path, Scored(video.path, result, strip)


def _paths(given: AnyPath | Sequence[AnyPath]) -> list[Path]:
    """Return paths given as a sequence, or as one path alone."""
    if isinstance(given, (str, PathLike)):
        return [Path(given)]
    return [Path(path) for path in given]
