"""FineDiving: 3,000 dives, listed by a competition and the number of a dive in it.

The release has `fine-grained_annotation_aqa.pkl`, (competition, dive) -> [type, score,
difficulty, ...], or `FineDiving_coarse_annotation.pkl` with dictionaries, and
`{train,test}_split.pkl`, lists of such pairs, in `Annotations`; the frames of dive 3
are in FINADiving_MTL_256s/<competition>/3.

Conventions: keys are `<competition>/3`; type, difficulty and competition are kept as
`Video.extra`.

Source: Xu et al., "FineDiving", CVPR 2022.
"""

from pathlib import Path

from aqa.cache.errors import AqaError
from aqa.extract.datasets.dataset import (
    Dataset,
    Files,
    Layout,
    Problems,
    Request,
    Video,
    check_actions,
)
from aqa.extract.datasets.pickles import read_labels, read_pairs

ACTION = "finediving"
LISTS = (
    "fine-grained_annotation_aqa.pkl",
    "FineDiving_fine-grained_annotation.pkl",
    "FineDiving_coarse_annotation.pkl",
)
FRAMES = ("FINADiving_MTL_256s", "FineDiving", "frames")


def _find(path: Path) -> Path | None:
    """Return the list at `path` or in its folder `Annotations`."""
    for folder in (path, path / "Annotations"):
        for name in LISTS:
            if (folder / name).is_file() and (folder / "train_split.pkl").is_file():
                return folder / name
    return None


def _read(request: Request) -> Dataset:
    root = request.path
    path = _find(root) or root
    problems = Problems(root)
    files = Files(root, request, problems)
    check_actions(request.actions, {ACTION}, problems)
    labels = read_labels(path)
    videos = []
    for split in ("train", "test"):
        for pair in read_pairs(path.parent / f"{split}_split.pkl"):
            key = f"{pair[0]}/{pair[1]}"
            if pair not in labels:
                problems.add(f"{split} split names a dive without labels", key)
                continue
            found = labels[pair]
            try:
                if isinstance(found, dict):
                    names = ("action_type", "dive_score", "difficulty")
                    found = [found[name] for name in names]
                kind, score, difficulty = found[:3]
                extra = {"action_type": str(kind), "difficulty": str(difficulty)}
                video = ACTION, split, float(score), extra | {"competition": pair[0]}
            except (KeyError, TypeError, ValueError) as error:
                raise AqaError(
                    f"{path.name}: {key} has other labels ({error})"
                ) from None
            if place := files.find(*(f"{folder}/{key}" for folder in FRAMES)):
                videos.append(Video(key, place, *video))
    problems.check()
    videos.sort(key=lambda video: video.key)
    train = sum(video.split == "train" for video in videos)
    note = f"FineDiving: {train} train, {len(videos) - train} test"
    return Dataset(root, LAYOUT.name, tuple(videos), (note, *files.notes()))


LAYOUT = Layout("finediving", "FineDiving", lambda path: bool(_find(path)), _read)
