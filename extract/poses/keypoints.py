"""Poses in JSON: COCO keypoints in their several flavours, OpenPose's folders.

Conventions: a person is float64 (joints, 3): x and y in pixels of the video, and a
score; what the file leaves empty is NaN. Poses are keyed by frame number, and a
frame may hold nobody or many. Joints keep the order of the file.

One file a video, one of
- a list of frames: each a list of people, or an object that holds such a list under
  `people`, `instances`, `annotations` or `predictions`, or one person, or null;
- COCO results: a list of people, each with `image_id` (a frame number, or the name
  of an image that ends in one) and `keypoints`; such a list is silent on frames
  before its first person and after its last, which therefore do not count;
- a COCO annotation file: `images` (in order of their ids) and `annotations`;
or OpenPose's folder of `*_<frame number>_keypoints.json`, one a frame.

A person is `keypoints` (or OpenPose's `pose_keypoints_2d`): x, y and score of each
joint, flat or in rows; rows of two numbers take their scores from `keypoint_scores`
or count as certain. COCO's visibility flags 0, 1 and 2 serve as scores.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aqa.cache.errors import AqaError

Person = npt.NDArray[np.float64]
#: The people of each frame, by frame number.
Frames = dict[int, list[Person]]

MAX_BYTES = 64 << 20
#: What parsing a file of the wrong form ends in.
MALFORMED = (ValueError, TypeError, OverflowError, KeyError, RecursionError)
OPENPOSE = re.compile(r"(?:.*_)?(\d{1,12})_keypoints\.json")


class PoseError(AqaError):
    """Poses that cannot be read, or not be believed."""


def read_file(path: Path) -> Frames:
    """Frames of one JSON file."""
    record = load_json(path)
    try:
        return dict(_frames(record))
    except MALFORMED as error:
        raise PoseError(
            f"{path}: expected COCO keypoints (a list of frames, of results, or "
            f"images and annotations): {_reason(error)}"
        ) from error


def made_with(path: Path) -> Any:
    """What `aqa poses` noted in a pose file of how it was found, else None."""
    record = load_json(path) if path.suffix == ".json" else None
    info = record.get("info") if isinstance(record, dict) else None
    return info.get("made_with") if isinstance(info, dict) else None


def read_folder(path: Path) -> Frames:
    """Frames of an OpenPose folder; numbers that are left out are empty frames."""
    files = openpose_files(path)
    check_bytes(sum(file.stat().st_size for file in files.values()), path)
    try:
        return {number: _people(load_json(file)) for number, file in files.items()}
    except MALFORMED as error:
        raise PoseError(
            f"{path}: expected OpenPose's people with pose_keypoints_2d: "
            f"{_reason(error)}"
        ) from error


def openpose_files(path: Path) -> dict[int, Path]:
    """Frame number -> file of an OpenPose folder, in order; links are not followed."""
    numbered = sorted(
        (int(match[1]), file)
        for file in path.iterdir()
        if (match := OPENPOSE.fullmatch(file.name)) and not file.is_symlink()
    )
    files = dict(numbered)
    if not files or len(files) < len(numbered):
        raise PoseError(
            f"{path}: expected one *_keypoints.json for each frame of one video, found "
            f"{len(numbered)} files for {len(files)} frames"
        )
    return files


def check_bytes(size: int, path: Path) -> None:
    """Refuse a file, or a folder of files, that no video's poses would fill."""
    if size > MAX_BYTES:
        raise PoseError(
            f"{path}: expected at most {MAX_BYTES >> 20} MiB, found {size >> 20}"
        )


def load_json(path: Path) -> Any:
    """Value of a JSON file of bounded size; `PoseError` when there is none in it."""
    check_bytes(path.stat().st_size, path)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PoseError(f"{path}: not readable as JSON: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no {error.args[0]!r}"
    return str(error).splitlines()[0]


def _frames(record: Any) -> Iterator[tuple[int, list[Person]]]:
    if isinstance(record, dict):
        numbers = sorted({int(image["id"]) for image in record["images"]})
        people = _by_image(record["annotations"])
        if strange := sorted(people.keys() - set(numbers)):
            raise ValueError(f"annotations of image {strange[0]}, which is not listed")
        # Ids need not be frame numbers, but their order is that of the frames.
        return ((i, people.get(number, [])) for i, number in enumerate(numbers))
    if not isinstance(record, list):
        raise TypeError(f"found {type(record).__name__}")
    if record and all(isinstance(one, dict) and "image_id" in one for one in record):
        return iter(_by_image(record).items())
    return ((i, _people(frame)) for i, frame in enumerate(record))


def _by_image(results: list[dict[str, Any]]) -> Frames:
    people: Frames = {}
    for result in results:
        people.setdefault(_number(result["image_id"]), []).append(_person(result))
    return people


def _number(image: Any) -> int:
    if isinstance(image, int):
        return image
    if not (digits := re.search(r"(\d{1,12})(?:\.\w+)?$", image)):
        raise ValueError(f"image_id {image!r} ends in no frame number")
    return int(digits[1])


def _people(frame: Any) -> list[Person]:
    if frame is None:
        return []
    if isinstance(frame, dict):
        for name in ("people", "instances", "annotations", "predictions"):
            if name in frame:
                return [_person(one) for one in frame[name]]
        return [_person(frame)]
    if all(isinstance(one, dict) for one in frame) or _depth(frame) == 3:
        return [_person(one) for one in frame]
    return [_person(frame)]


def _depth(value: Any) -> int:
    return 1 + _depth(value[0]) if isinstance(value, list) and value else 0


def _person(record: Any) -> Person:
    scores = None
    if isinstance(record, dict):
        scores = record.get("keypoint_scores")
        name = "keypoints" if "keypoints" in record else "pose_keypoints_2d"
        record = record[name]
    points = _floats(record)
    if points.ndim == 1 and points.size % 3 == 0:
        points = points.reshape(-1, 3)
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise ValueError(f"a person's joints of shape {points.shape}")
    if points.shape[1] == 2:
        given = np.ones(len(points)) if scores is None else _floats(scores)
        points = np.column_stack([points, given])
    return points


def _floats(values: Any) -> npt.NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype == object:  # null among the numbers: NaN
        array = array.astype(np.float64)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"expected numbers, found {array.dtype.name}")
    return array.astype(np.float64)
