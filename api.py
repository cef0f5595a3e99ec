"""The Python API: the commands as functions, and a cache as arrays.

Conventions: paths are strings or Paths. Features are float32 (N, offsets, clips, D),
rows sorted by key; scores are in judges' units, NaN where unlabelled. Settings are the
fields of the config dataclasses under their own names (`hidden=64`, `iterations=2000`,
`folds="fold"`), as the options of the commands are; unknown ones raise AqaError.
`progress` is called with (done, total, label). Errors are `aqa.AqaError`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.cache.store import FeatureCache

if TYPE_CHECKING:
    from aqa.extract.stage import Extraction
    from aqa.regress.experiments.result import Result
    from aqa.regress.heads.fit import FitReport
    from aqa.regress.heads.model_file import Model

AnyPath = str | PathLike[str]


@dataclass(frozen=True, eq=False)
class CacheArrays:
    """A cache in memory: `features` (N, offsets, clips, D) and `labels` by column.

    `labels` has key, action, split, score, frames and any further columns, each (N,).
    """

    features: NDArray[np.float32]
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
        labels |= {name: np.array(texts) for name, texts in samples.extra.items()}
        return CacheArrays(cache.read(), labels, cache.provenance.record)


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
    from aqa.extract.config import ClipConfig, ExtractConfig, PoseConfig
    from aqa.extract.datasets.reader import read_dataset
    from aqa.extract.stage import extract as run

    dataset = read_dataset(Path(videos), actions)
    clips = ClipConfig(**_taken(settings, ClipConfig))
    if features == "c3d":
        from aqa.extract.network import C3DExtractor

        config = ExtractConfig(
            weights=weights, clips=clips, **_taken(settings, ExtractConfig)
        )
        _refuse(settings)
        return run(dataset, Path(cache), C3DExtractor(config), shard, progress)
    from aqa.extract.poses.extractor import PoseExtractor

    if poses is None:
        raise AqaError(f"features={features!r}: expected poses, a folder of pose files")
    of_poses = PoseConfig(
        features=features, clips=clips, **_taken(settings, PoseConfig)
    )
    _refuse(settings)
    extractor = PoseExtractor(Path(poses), of_poses, dataset.videos)
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
    also: Sequence[AnyPath] = (),
    out: AnyPath = "report",
    config: AnyPath | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> "list[Result]":
    """Run an experiment of the paper, or "all", and write its report into `out`.

    `also` are further caches of the same videos; `settings` are fields of
    `CompareConfig` and what it contains. Each result has `report`, the object that
    report.json holds.
    """
    from aqa.regress.config import CompareConfig, configured
    from aqa.regress.experiments.compare import compare as run

    made = configured(CompareConfig(), Path(config) if config else None, settings)
    further = [Path(path) for path in also]
    return run(Path(cache), [experiment], made, Path(out), progress, also=further)


def load_model(path: AnyPath) -> "Model":
    """Read a model file; its `predict` gives scores in judges' units."""
    from aqa.regress.heads.model_file import load_model as read

    return read(Path(path))


def _taken(settings: dict[str, Any], config: type) -> dict[str, Any]:
    """Take the fields of a config dataclass out of `settings`."""
    names = [field.name for field in fields(config) if field.name in settings]
    return {name: settings.pop(name) for name in names}


def _refuse(left: Mapping[str, Any]) -> None:
    if left:
        raise AqaError(f"unknown settings: {', '.join(sorted(left))}")
