"""Where the videos are: the AQA-7 release, a CSV manifest or a bare folder.

Conventions: as in `video_list`, whose names this module hands on. Everything is
checked before anything runs, and all that is wrong is said at once.
"""

from collections.abc import Sequence
from pathlib import Path

from aqa.extract.datasets.aqa7 import find_release, read_release
from aqa.extract.datasets.dataset import Dataset, DatasetError, Video
from aqa.extract.datasets.folder import read_folder
from aqa.extract.datasets.manifest import read_manifest

__all__ = ["Dataset", "DatasetError", "Video", "read_dataset"]


def read_dataset(path: str | Path, actions: Sequence[str] | None = None) -> Dataset:
    """The data set at `path`, checked; of `actions` only, where given.

    A folder that holds AQA-7 (or is it) is read as the release, by default its six
    actions of the experiments; a .csv file as a manifest; any other folder as
    unlabelled videos.

    Raises:
        DatasetError: there is no data set, or it is not whole; names every problem.
    """
    path = Path(path)
    names = None if actions is None else tuple(actions)
    if path.is_dir():
        release = find_release(path)
        if release is not None:
            return read_release(release, names)
        if names is not None:
            raise DatasetError(
                f"{path}: expected AQA-7 or a CSV to choose actions from, found a "
                "folder, whose videos have none"
            )
        return read_folder(path)
    if path.is_file() and path.suffix.lower() == ".csv":
        return read_manifest(path, names)
    found = "another file" if path.exists() else "nothing"
    raise DatasetError(
        f"{path}: expected the AQA-7 folder, a CSV (video,action,score,split) or a "
        f"folder of videos, found {found}"
    )
