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

One pose file a video: found by the video's key, read whatever its form.

Conventions: `read_people` gives float64 (frames, people, joints, 3): x and y in
pixels of the video, and a score; places that nobody fills are NaN. Joints keep the
order of the file: `extract/poses/joints.py` brings them to one.

For the key `diving/001` under a folder, exactly one of
- `diving/001.json`: COCO keypoints, see `extract/poses/keypoints.py`;
- `diving/001/`: OpenPose's folder of `*_keypoints.json`;
- `diving/001.npy`: numbers of shape (frames, joints, 2 or 3), never pickled;
- `diving/001.csv`: one line a frame under a header `x0,y0,s0,x1,y1,s1,...`, in any
  order, an empty cell where there is nothing; without `s` columns every joint
  counts as certain, and further columns are ignored.
A key with a video's suffix (`dives/a.mp4`) also finds `dives/a.json` and the others.

Files are read as if a stranger had made them: sizes are bounded before anything is
allocated, and no link leads out of the folder.
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aqa.cache.errors import AqaError
from aqa.cache.tables import read_npy
from aqa.extract.datasets.folder import SUFFIXES

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


FORMS = (".json", ".csv", ".npy")
#: Four minutes at 25 frames a second; trampoline's videos have 650.
MAX_FRAMES = 6000
#: Joints of all people of all frames: 100 people of 25 joints for 1,600 frames.
MAX_JOINTS = 4_000_000
MAX_COORDINATE = 1e6

People = npt.NDArray[np.float64]


def find_poses(folder: Path, key: str) -> Path:
    """Find the pose file of a video, or its OpenPose folder.

    Raises `PoseError` when there is none, more than one, or a link leads out.
    """
    stem, suffix = os.path.splitext(key)
    stems = (key, stem) if suffix.lower() in SUFFIXES else (key,)
    files = [folder / (stem + form) for stem in stems for form in FORMS]
    folders = [folder / stem for stem in stems]
    found = [path for path in files if path.is_file()]
    found += [path for path in folders if path.is_dir()]
    if len(found) != 1:
        raise PoseError(
            f"expected one pose file {folder / key}.json, .csv, .npy or a folder of "
            f"that name, found {', '.join(map(str, found)) or 'none'}"
        )
    if not found[0].resolve().is_relative_to(folder.resolve()):
        raise PoseError(f"{found[0]}: a link that leads out of {folder}")
    return found[0]


def digest(path: Path) -> str:
    """SHA-256 of a pose file; of a folder, of its files' names and digests."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    listing = "".join(
        f"{digest(file)}  {file.name}\n" for file in openpose_files(path).values()
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def read_people(path: Path) -> People:
    """Everybody in every frame: (frames, people, joints, 3)."""
    if path.is_dir():
        people = _stack(read_folder(path), path)
    elif path.suffix == ".json":
        people = _stack(read_file(path), path)
    else:
        track = _read_npy(path) if path.suffix == ".npy" else _read_csv(path)
        if track.shape[-1] == 2:  # no scores: certain
            track = np.concatenate([track, np.ones((*track.shape[:2], 1))], axis=-1)
        people = track[:, None]  # (frames, joints, 3) -> (frames, 1, joints, 3)
    if (largest := np.nanmax(np.abs(people[..., :2]), initial=0)) > MAX_COORDINATE:
        raise PoseError(f"{path}: expected pixels, found a coordinate of {largest:g}")
    return people


def _check_size(frames: int, people: int, joints: int, path: Path) -> None:
    if not 0 < frames <= MAX_FRAMES or frames * people * joints > MAX_JOINTS:
        raise PoseError(
            f"{path}: expected 1 to {MAX_FRAMES} frames and at most {MAX_JOINTS} "
            f"joints, found {frames} frames of {people} people of {joints} joints"
        )


def _stack(frames: Frames, path: Path) -> People:
    """Put people side by side, whatever number each frame has."""
    everybody = [person for people in frames.values() for person in people]
    if not everybody:
        raise PoseError(f"{path}: nobody in any of {len(frames)} frames")
    counts = sorted({len(person) for person in everybody})
    if len(counts) > 1:
        raise PoseError(f"{path}: expected one number of joints, found {counts}")
    first, last = min(frames), max(frames)
    shape = last - first + 1, max(map(len, frames.values())), counts[0]
    _check_size(*shape, path)
    stacked = np.full((*shape, 3), np.nan)
    for number, people in frames.items():
        if people:
            stacked[number - first, : len(people)] = people
    return stacked


def _read_npy(path: Path) -> npt.NDArray[np.float64]:
    try:
        array = read_npy(path, 3 * MAX_JOINTS)
    except AqaError as error:
        raise PoseError(str(error)) from error
    if array.ndim != 3 or array.shape[2] not in (2, 3) or array.dtype.kind not in "iuf":
        raise PoseError(
            f"{path}: expected numbers of shape (frames, joints, 2 or 3), found "
            f"{array.dtype.name} {array.shape}"
        )
    _check_size(array.shape[0], 1, array.shape[1], path)
    return np.array(array, np.float64)


def _read_csv(path: Path) -> npt.NDArray[np.float64]:
    if path.stat().st_size > MAX_BYTES:
        raise PoseError(f"{path}: expected at most {MAX_BYTES >> 20} MiB")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.reader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise PoseError(f"{path}: not readable as CSV: {error}") from error
    if not rows:
        raise PoseError(f"{path}: expected a header and one line a frame, found none")
    header = {name.strip(): column for column, name in enumerate(rows[0])}
    joints = sum(re.fullmatch(r"x\d+", name) is not None for name in header)
    axes = "xys" if "s0" in header else "xy"
    names = [f"{axis}{joint}" for joint in range(joints) for axis in axes]
    if not joints or (lost := [name for name in names if name not in header]):
        raise PoseError(
            f"{path}: expected a header x0,y0,s0,x1,... with or without the s, found "
            f"{f'no column {lost[0]}' if joints else 'no column x0'}"
        )
    _check_size(len(rows) - 1, 1, joints, path)
    columns = [header[name] for name in names]
    values = np.full((len(rows) - 1, len(columns)), np.nan)
    for i, row in enumerate(rows[1:]):
        try:
            cells = [row[column].strip() for column in columns]
            values[i] = [float(cell) if cell else np.nan for cell in cells]
        except (ValueError, IndexError) as error:
            raise PoseError(f"{path}: line {i + 2}: {error}") from error
    return values.reshape(len(values), joints, len(axes))
