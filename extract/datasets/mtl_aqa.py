"""MTL-AQA: 1,412 dives, listed by two numbers, of a broadcast and of a dive in it.

The release has `final_annotations_dict.pkl`, (broadcast, dive) -> labels, and
`{train,test}_split_0.pkl`, lists of such pairs, in `Ready_2_Use/MTL-AQA_split_0_data`;
of the videos it has whole broadcasts. Dives are expected as samples/BB_DDD.mp4, cut at
`start_frame` and `end_frame`, or as folders of frames samples/BB_DDD.

Conventions: keys are `01/001`, scores the judges' final ones; difficulty and the
attributes of the dive are kept as `Video.extra`.

Source: Parmar and Morris, "What and How Well You Performed?", CVPR 2019.
"""

from pathlib import Path
from typing import Any

from aqa.cache.errors import AqaError
from aqa.extract.datasets.dataset import (
    Dataset,
    DatasetError,
    Files,
    Layout,
    Problems,
    Request,
    Video,
    check_actions,
)
from aqa.extract.datasets.pickles import read_labels, read_pairs

ACTION = "mtl_aqa_diving"
LABELS = "final_annotations_dict.pkl"
EXTRA = ("difficulty", "position", "armstand", "rotation_type", "ss_no", "tw_no")


def _find(path: Path) -> Path | None:
    """Return the folder of the lists at `path` or in the release below it."""
    below = Path("Ready_2_Use/MTL-AQA_split_0_data")
    for folder in (path, path / below, path / "MTL-AQA_dataset_release" / below):
        if (folder / LABELS).is_file() and (folder / "train_split_0.pkl").is_file():
            return folder
    return None


def _read(request: Request) -> Dataset:
    root = request.path
    lists = _find(root) or root
    problems = Problems(root)
    files = Files(root, request, problems)
    check_actions(request.actions, {ACTION}, problems)
    splits: dict[tuple[Any, Any], str] = {}
    for split in ("train", "test"):
        splits |= dict.fromkeys(read_pairs(lists / f"{split}_split_0.pkl"), split)
    videos = []
    for pair, labels in read_labels(lists / LABELS).items():
        try:
            name, key = f"{pair[0]:02d}_{pair[1]:03d}", f"{pair[0]:02d}/{pair[1]:03d}"
            score = float(labels["final_score"])
            extra = {each: str(labels[each]) for each in EXTRA if each in labels}
            frames = f"frames {labels['start_frame']} to {labels['end_frame']}"
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise AqaError(f"{LABELS}: {pair!r} has other labels ({error})") from None
        places = [f"samples/{name}{suffix}" for suffix in (".mp4", ".avi", "")]
        path = files.find(*places, where=f" ({frames} of {pair[0]:02d}.mp4)")
        if path and pair in splits:
            videos.append(Video(key, path, ACTION, splits[pair], score, extra))
    problems.check()
    videos.sort(key=lambda video: video.key)
    if not videos:
        raise DatasetError(f"{root}: expected dives in the lists, found none")
    train = sum(video.split == "train" for video in videos)
    note = f"MTL-AQA: {train} train, {len(videos) - train} test"
    return Dataset(root, LAYOUT.name, tuple(videos), (note, *files.notes()))


LAYOUT = Layout("mtl-aqa", "MTL-AQA", lambda path: bool(_find(path)), _read)
