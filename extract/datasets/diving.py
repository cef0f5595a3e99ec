"""MTL-AQA and FineDiving: dives listed in pickles, by two numbers or names.

MTL-AQA (1,412 dives, listed by a broadcast and a dive in it) has
`final_annotations_dict.pkl`, (broadcast, dive) -> labels, and
`{train,test}_split_0.pkl`, lists of such pairs, in `Ready_2_Use/MTL-AQA_split_0_data`;
of the videos it has whole broadcasts. Dives are expected as samples/BB_DDD.mp4, cut at
`start_frame` and `end_frame`, or as folders of frames samples/BB_DDD. Keys are
`01/001`, scores the judges' final ones; difficulty and the attributes of the dive are
kept as `Video.extra`. Source: Parmar and Morris, "What and How Well You Performed?",
CVPR 2019.

FineDiving (3,000 dives, listed by a competition and a dive in it) has
`fine-grained_annotation_aqa.pkl`, (competition, dive) -> [type, score, difficulty,
...], or `FineDiving_coarse_annotation.pkl` with dictionaries, and
`{train,test}_split.pkl`, lists of such pairs, in `Annotations`; the frames of dive 3
are in FINADiving_MTL_256s/<competition>/3. Keys are `<competition>/3`; type,
difficulty and competition are kept as `Video.extra`. Source: Xu et al., "FineDiving",
CVPR 2022.

A pickle may hold dictionaries, lists, tuples, texts, numbers and NumPy's arrays and
scalars; anything else is refused. It is read in a child process with limits
(`aqa.cache.sandbox`), and no code in it runs.
"""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.errors import AqaError
from aqa.cache.sandbox import Limits, call
from aqa.extract.datasets.dataset import (
    Dataset,
    Files,
    Layout,
    Request,
    Video,
    split_counts,
)

_MTL_LABELS = "final_annotations_dict.pkl"
_MTL_EXTRA = ("difficulty", "position", "armstand", "rotation_type", "ss_no", "tw_no")
_FINE_LABELS = (
    "fine-grained_annotation_aqa.pkl",
    "FineDiving_fine-grained_annotation.pkl",
    "FineDiving_coarse_annotation.pkl",
)
_FINE_FRAMES = ("FINADiving_MTL_256s", "FineDiving", "frames")


def _find_mtl(path: Path) -> Path | None:
    """Return the folder of the lists at `path` or in the release below it."""
    below = Path("Ready_2_Use/MTL-AQA_split_0_data")
    for folder in (path, path / below, path / "MTL-AQA_dataset_release" / below):
        names = (_MTL_LABELS, "train_split_0.pkl")
        if all((folder / name).is_file() for name in names):
            return folder
    return None


def _read_mtl(request: Request) -> Dataset:
    root, action = request.path, "mtl_aqa_diving"
    lists, files = _find_mtl(root) or root, Files(root, request)
    files.check_actions({action})
    videos = []
    for pair, split, found in _listed(lists / _MTL_LABELS, "{}_split_0.pkl", files):
        try:
            name, key = f"{pair[0]:02d}_{pair[1]:03d}", f"{pair[0]:02d}/{pair[1]:03d}"
            score = float(found["final_score"])
            extra = {each: str(found[each]) for each in _MTL_EXTRA if each in found}
            frames = f"frames {found['start_frame']} to {found['end_frame']}"
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{_MTL_LABELS}: {pair!r} has other labels ({error})"
            raise AqaError(reason) from None
        places = [f"samples/{name}{suffix}" for suffix in (".mp4", ".avi", "")]
        where = f" ({frames} of {pair[0]:02d}.mp4)"
        if path := files.find(*places, where=where):
            videos.append(Video(key, path, action, split, score, extra))
    return files.dataset("mtl-aqa", videos, f"MTL-AQA: {split_counts(videos)}")


MTL_AQA = Layout("mtl-aqa", "MTL-AQA", lambda path: bool(_find_mtl(path)), _read_mtl)


def _find_fine(path: Path) -> Path | None:
    """Return the list at `path` or in its folder `Annotations`."""
    for folder in (path, path / "Annotations"):
        for name in _FINE_LABELS:
            if (folder / name).is_file() and (folder / "train_split.pkl").is_file():
                return folder / name
    return None


def _read_fine(request: Request) -> Dataset:
    root, action = request.path, "finediving"
    labels, files = _find_fine(root) or root, Files(root, request)
    files.check_actions({action})
    videos = []
    for pair, split, found in _listed(labels, "{}_split.pkl", files):
        key = f"{pair[0]}/{pair[1]}"
        try:
            if isinstance(found, dict):
                names = ("action_type", "dive_score", "difficulty")
                found = [found[name] for name in names]
            kind, score, difficulty = found[:3]
            extra = {"action_type": str(kind), "difficulty": str(difficulty)}
            video = action, split, float(score), extra | {"competition": str(pair[0])}
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{labels.name}: {key} has other labels ({error})"
            raise AqaError(reason) from None
        if path := files.find(*(f"{folder}/{key}" for folder in _FINE_FRAMES)):
            videos.append(Video(key, path, *video))
    return files.dataset("finediving", videos, f"FineDiving: {split_counts(videos)}")


FINEDIVING = Layout(
    "finediving", "FineDiving", lambda path: bool(_find_fine(path)), _read_fine
)


def _listed(
    path: Path, lists: str, files: Files
) -> Iterator[tuple[tuple[Any, Any], str, Any]]:
    """Yield pair, split and labels of each dive in the lists beside the labels."""
    labels = read_pickle(path)
    if not isinstance(labels, dict) or not all(map(_is_pair, labels)):
        raise AqaError(f"{path.name}: expected labels by pair, found another value")
    splits: dict[tuple[Any, Any], str] = {}
    for split in ("train", "test"):
        name = lists.format(split)
        pairs = read_pickle(path.parent / name)
        if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
            raise AqaError(f"{name}: expected a list of pairs, found another value")
        for first, second in pairs:
            if (first, second) not in labels:
                kind = f"{split} split names a dive without labels"
                files.problems.add(kind, f"{first}/{second}")
            elif splits.setdefault((first, second), split) != split:
                files.problems.add("dive in both splits", f"{first}/{second}")
    for pair, split in splits.items():
        yield pair, split, labels[pair]


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(each, int | str) for each in value)
    )


MAX_BYTES = 64 << 20
_LIMITS = Limits(seconds=60, memory=1 << 30)
_CORE: Any = np._core  # type: ignore[attr-defined]
_ALLOWED = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("multiarray", "scalar"): _CORE.multiarray.scalar,
    ("multiarray", "_reconstruct"): _CORE.multiarray._reconstruct,
    ("numeric", "_frombuffer"): _CORE.numeric._frombuffer,
    # Bytes in protocols 0 to 2, always with this codec.
    ("_codecs", "encode"): lambda text, _: text.encode("latin-1"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few allowed functions."""
        if module.startswith("numpy"):
            module = module.rpartition(".")[2]
        if (module, name) not in _ALLOWED:
            raise AqaError(
                f"expected plain data, found {module}.{name}: convert it to a CSV"
            )
        return _ALLOWED[module, name]


def read_pickle(path: Path) -> Any:
    """Return the content of a pickle; AqaError names the file."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise AqaError(f"{path.name}: expected a list, found {size} bytes")
    try:
        return call(_load, path, limits=_LIMITS)
    except AqaError as error:
        raise type(error)(f"{path.name}: {error}") from error


def _load(path: Path) -> Any:
    return _plain(_Unpickler(io.BytesIO(path.read_bytes())).load())


def _plain(value: Any) -> Any:
    """Return a value with NumPy's types turned into Python's."""
    if isinstance(value, dict):
        return {_plain(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
