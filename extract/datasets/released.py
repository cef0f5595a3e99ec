"""Released data sets other than AQA-7: MTL-AQA, FineDiving, UNLV and JIGSAWS.

MTL-AQA (1,412 dives) has `final_annotations_dict.pkl`, (broadcast, dive) -> labels, and
`{train,test}_split_0.pkl`, lists of such pairs, in `Ready_2_Use/MTL-AQA_split_0_data`;
of the videos it has whole broadcasts. Dives are expected as samples/BB_DDD.mp4, cut at
`start_frame` and `end_frame`, or as folders of frames samples/BB_DDD. Keys are
`01/001`. Source: Parmar and Morris, "What and How Well You Performed?", CVPR 2019.

FineDiving (3,000 dives) has `fine-grained_annotation_aqa.pkl`, (competition, dive) ->
[type, score, difficulty, ...], or `FineDiving_coarse_annotation.pkl` with dictionaries,
and `{train,test}_split.pkl`, lists of such pairs, in `Annotations`; the frames of dive
3 are in FINADiving_MTL_256s/<competition>/3. Keys are `<competition>/3`. Source: Xu et
al., "FineDiving", CVPR 2022.

UNLV-Dive and UNLV-Vault have `diving_overall_scores.mat` (one score per video), beside
it `diving_difficulty_level.mat`, `diving_samples_len_ori/001.avi` or such, and
`split_300_70/{training,testing}_idx.mat` with numbers from 1; gym_vault likewise. Keys
are `diving/001`; videos of the original length are preferred. Source: Parmar and
Morris, "Learning to Score Olympic Events", CVPR workshops 2017.

JIGSAWS has a folder per surgical task with `meta_file_<Task>.txt`, one trial per line:
name (`Suturing_B001`), self-proclaimed skill (E, I, N), global rating score, six
element scores; and `video/Suturing_B001_capture1.avi` and `..._capture2.avi`, of which
the first is used. Keys are `suturing/Suturing_B001`. No trial is assigned to a split:
the usual folds leave a trial number or a surgeon out. Source: Gao et al., "JHU-ISI
Gesture and Skill Assessment Working Set", 2014.

Conventions: scores are in judges' units; difficulty, surgeon and the like are kept as
`Video.extra`. A pickle may hold dictionaries, lists, tuples, texts, numbers and NumPy's
arrays and scalars; anything else is refused. It is read in a child process with limits
(`aqa.cache.processes.call`), and no code in it runs.
"""

import io
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.errors import AqaError
from aqa.cache.processes import call
from aqa.cache.tables import read_matrix
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
    """Return the labels at `path` or in the release below it."""
    below = Path("Ready_2_Use/MTL-AQA_split_0_data")
    folders = path, path / below, path / "MTL-AQA_dataset_release" / below
    return _labels(folders, (_MTL_LABELS,), "train_split_0.pkl")


def _find_fine(path: Path) -> Path | None:
    """Return the labels at `path` or in its folder `Annotations`."""
    return _labels((path, path / "Annotations"), _FINE_LABELS, "train_split.pkl")


def _labels(
    folders: tuple[Path, ...], names: tuple[str, ...], split: str
) -> Path | None:
    """Return the first file of some name that has a list of the split beside it."""
    for path in (folder / name for folder in folders for name in names):
        if path.is_file() and path.with_name(split).is_file():
            return path
    return None


def _read_mtl(request: Request) -> Dataset:
    files, action = Files(request), "mtl_aqa_diving"
    files.check_actions({action})
    videos = []
    path = _find_mtl(request.path) or request.path
    for (broadcast, dive), split, found in _listed(path, "{}_split_0.pkl", files):
        with _labels_of(path, (broadcast, dive)):
            name, key = f"{broadcast:02d}_{dive:03d}", f"{broadcast:02d}/{dive:03d}"
            score = float(found["final_score"])
            extra = {each: str(found[each]) for each in _MTL_EXTRA if each in found}
            frames = f"frames {found['start_frame']} to {found['end_frame']}"
        places = [f"samples/{name}{suffix}" for suffix in (".mp4", ".avi", "")]
        if place := files.find(*places, where=f" ({frames} of {broadcast:02d}.mp4)"):
            videos.append(Video(key, place, action, split, score, extra))
    return files.dataset(videos, f"MTL-AQA: {split_counts(videos)}")


def _read_fine(request: Request) -> Dataset:
    files, action = Files(request), "finediving"
    files.check_actions({action})
    videos = []
    path = _find_fine(request.path) or request.path
    for (competition, dive), split, found in _listed(path, "{}_split.pkl", files):
        key = f"{competition}/{dive}"
        with _labels_of(path, (competition, dive)):
            if isinstance(found, dict):
                names = ("action_type", "dive_score", "difficulty")
                found = [found[name] for name in names]
            kind, score, difficulty = found[:3]
            score = float(score)
        extra = {"action_type": str(kind), "difficulty": str(difficulty)}
        extra["competition"] = str(competition)
        if place := files.find(*(f"{folder}/{key}" for folder in _FINE_FRAMES)):
            videos.append(Video(key, place, action, split, score, extra))
    return files.dataset(videos, f"FineDiving: {split_counts(videos)}")


@contextmanager
def _labels_of(path: Path, dive: tuple[Any, Any]) -> Iterator[None]:
    """Raise AqaError where a dive has other labels than are read in the block."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise AqaError(f"{path.name}: {dive!r} has other labels ({error})") from None


MTL_AQA = Layout("MTL-AQA", _find_mtl, _read_mtl)
FINEDIVING = Layout("FineDiving", _find_fine, _read_fine)


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
        for pair in map(tuple, pairs):
            dive = "/".join(map(str, pair))
            if pair not in labels:
                files.add(f"{split} split names a dive without labels", dive)
            elif splits.setdefault(pair, split) != split:
                files.add("dive in both splits", dive)
    for pair, split in splits.items():
        yield pair, split, labels[pair]


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(each, int | str) for each in value)
    )


_MOST_BYTES = 64 << 20
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
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise AqaError(f"{path.name}: expected a list, found {size} bytes")
    try:
        return call(_load, path)
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


_SCORES = "_overall_scores.mat"


def _unlv_actions(path: Path) -> list[str]:
    actions = ("diving", "gym_vault")
    return [action for action in actions if (path / f"{action}{_SCORES}").is_file()]


def _read_unlv(request: Request) -> Dataset:
    root, files = request.path, Files(request)
    files.check_actions(set(_unlv_actions(root)))
    videos = []
    for action in filter(files.asked, _unlv_actions(root)):
        scores = read_matrix(root / f"{action}{_SCORES}", "overall_scores").ravel()
        splits = _unlv_splits(root, len(scores))
        extras: list[dict[str, str]] = [{}] * len(scores)
        if (path := root / f"{action}_difficulty_level.mat").is_file():
            levels = read_matrix(path, "difficulty_level").ravel()
            extras = [{"difficulty": f"{level:g}"} for level in levels.tolist()]
        original = f"{action}_samples_len_ori"
        others = sorted(path.name for path in root.glob(f"{action}_samples_len_*"))
        folders = dict.fromkeys([original, *others])
        for number, score in enumerate(scores.tolist(), start=1):
            places = (f"{folder}/{number:03d}.avi" for folder in folders)
            if place := files.find(*places):
                labels = action, splits.get(number, ""), score, extras[number - 1]
                videos.append(Video(f"{action}/{number:03d}", place, *labels))
    return files.dataset(videos, f"UNLV: {split_counts(videos)}")


def _unlv_splits(root: Path, count: int) -> dict[int, str]:
    """Return the split of each listed number of `count` videos."""
    splits: dict[int, str] = {}
    folders = sorted(path.parent for path in root.glob("split*/training_idx.mat"))
    if len(folders) > 1:
        found = ", ".join(folder.name for folder in folders)
        raise AqaError(f"{root}: expected one split, found {found}; remove the others")
    for folder in folders:
        for split, listed in (("train", "training_idx"), ("test", "testing_idx")):
            numbers = read_matrix(folder / f"{listed}.mat", listed).ravel()
            if not np.isin(numbers, np.arange(1, count + 1)).all():
                raise AqaError(
                    f"{folder.name}: expected numbers 1 to {count}, found others"
                )
            splits |= dict.fromkeys(numbers.astype(int).tolist(), split)
    return splits


UNLV = Layout("UNLV-Dive or UNLV-Vault", _unlv_actions, _read_unlv)

_TRIAL = re.compile(r"(\w+)_([A-Z])(\d{3})")


def _meta_files(path: Path) -> list[Path]:
    return sorted({*path.glob("meta_file_*.txt"), *path.glob("*/meta_file_*.txt")})


def _read_jigsaws(request: Request) -> Dataset:
    files = Files(request)
    videos, present = [], set()
    for meta in _meta_files(request.path):
        folder = meta.parent.relative_to(request.path)
        for trial, (task, surgeon, number), skill, score in _trials(meta, files):
            present.add(action := task.lower())
            name = f"{trial}_capture1.avi"
            places = str(folder / "video" / name), str(folder / name)
            if files.asked(action) and (path := files.find(*places)):
                extra = {"surgeon": surgeon, "trial": number, "skill": skill}
                key = f"{action}/{trial}"
                videos.append(Video(key, path, action, "", score, extra))
    files.check_actions(present)
    actions = ", ".join(sorted({video.action for video in videos}))
    note = (
        f"JIGSAWS: {len(videos)} trials of {actions}, the first of two captures of "
        "each; no split: use --folds trial or --leave-one-out surgeon"
    )
    return files.dataset(videos, note)


def _trials(
    meta: Path, files: Files
) -> Iterator[tuple[str, tuple[str, ...], str, float]]:
    """Yield name, (task, surgeon, trial number), skill and score of each trial."""
    for number, line in enumerate(meta.read_text("utf-8-sig").splitlines(), start=1):
        words = line.split()
        match = _TRIAL.fullmatch(words[0]) if words else None
        if match and len(words) >= 3 and words[1] in "EIN" and words[2].isdecimal():
            yield words[0], match.groups(), words[1], float(words[2])
        elif words:
            files.add(
                "expected a trial (Suturing_B001), a skill E, I or N, and a score",
                f"{meta.name} line {number} has {line.strip()!r}",
            )


JIGSAWS = Layout("JIGSAWS", _meta_files, _read_jigsaws)
