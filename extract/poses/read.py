"""Read the pose file of a video: JSON, OpenPose's folder, NPY or CSV.

Conventions: a person is float64 (joints, 3): x and y in pixels of the video, y
downwards, and a score; missing values are NaN. `read_people` returns (frames, people,
joints, 3), NaN where a frame has fewer people. Joints keep the order of the file.

The key `diving/001` has exactly one of these under the folder of poses; a key with a
video suffix (`dives/a.mp4`) is also looked up without it (`dives/a.json`):

`diving/001.json`
    One of: a list of frames, each a list of people, or an object that holds such a
    list under `people`, `instances`, `annotations` or `predictions`, or one person, or
    null; COCO results, a list of people, each with `image_id` (a frame number, or an
    image name that ends in one); a COCO annotation file (`images`, `annotations`). A
    person is `keypoints` or OpenPose's `pose_keypoints_2d`: x, y and score of each
    joint, flat or in rows. Rows of two numbers take scores from `keypoint_scores`, or
    1. COCO's visibility flags 0, 1 and 2 serve as scores. COCO results do not tell how
    many empty frames precede the first person or follow the last; those do not count.
`diving/001/`
    OpenPose's folder of `*_<frame number>_keypoints.json`, one file per frame.
`diving/001.npy`
    Numbers of shape (frames, joints, 2 or 3); never unpickled.
`diving/001.csv`
    One row per frame under a header with `x0,y0,s0,x1,y1,s1,...` in any order; without
    `s` columns every score is 1; an empty cell is a missing value; other columns are
    ignored.

Files are not trusted: sizes are bounded before anything is allocated, and links that
lead out of the folder are refused.
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
People = npt.NDArray[np.float64]

FORMS = (".json", ".csv", ".npy")
MAX_BYTES = 64 << 20
#: Four minutes at 25 frames per second.
MAX_FRAMES = 6000
#: Joints of all people of all frames: 100 people of 25 joints for 1,600 frames.
MAX_JOINTS = 4_000_000
MAX_COORDINATE = 1e6
#: What walking through JSON of an unexpected shape may raise.
MALFORMED = (ValueError, TypeError, OverflowError, KeyError, RecursionError)
OPENPOSE = re.compile(r"(?:.*_)?(\d{1,12})_keypoints\.json")


class PoseError(AqaError):
    """Poses that cannot be read or are not plausible."""


def find_poses(folder: Path, key: str) -> Path:
    """Return the pose file of a video, or its OpenPose folder.

    Raises `PoseError` when there is none, more than one, or a link leads out.
    """
    stem, suffix = os.path.splitext(key)
    stems = (key, stem) if suffix.lower() in SUFFIXES else (key,)
    files = [folder / (stem + form) for stem in stems for form in FORMS]
    found = [path for path in files if path.is_file()]
    found += [path for stem in stems if (path := folder / stem).is_dir()]
    if len(found) != 1:
        raise PoseError(
            f"expected one pose file {folder / key}.json, .csv, .npy or a folder of "
            f"that name, found {', '.join(map(str, found)) or 'none'}"
        )
    if not found[0].resolve().is_relative_to(folder.resolve()):
        raise PoseError(f"{found[0]}: a link that leads out of {folder}")
    return found[0]


def digest(path: Path) -> str:
    """Return the SHA-256 of a pose file, or of a folder's file digests and names."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    listing = "".join(
        f"{digest(file)}  {file.name}\n" for file in openpose_files(path).values()
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def made_with(path: Path) -> Any:
    """Return what `aqa poses` noted of its models in a pose file, or None."""
    record = load_json(path) if path.suffix == ".json" else None
    info = record.get("info") if isinstance(record, dict) else None
    return info.get("made_with") if isinstance(info, dict) else None


def read_people(path: Path) -> People:
    """Return all people of all frames, (frames, people, joints, 3).

    Raises `PoseError`, naming the file, when it is not one of the forms above.
    """
    if path.is_dir() or path.suffix == ".json":
        try:
            frames = _read_openpose(path) if path.is_dir() else _read_json(path)
        except MALFORMED as error:
            if isinstance(error, PoseError):
                raise
            form = (
                "OpenPose's people with pose_keypoints_2d"
                if path.is_dir()
                else "COCO keypoints (a list of frames, of results, or images and "
                "annotations)"
            )
            raise PoseError(f"{path}: expected {form}: {_reason(error)}") from error
        people = _stack(frames, path)
    else:
        track = _read_npy(path) if path.suffix == ".npy" else _read_csv(path)
        if track.shape[-1] == 2:
            track = np.concatenate([track, np.ones((*track.shape[:2], 1))], axis=-1)
        people = track[:, None]  # (frames, joints, 3) -> (frames, 1, joints, 3)
    if (largest := np.nanmax(np.abs(people[..., :2]), initial=0)) > MAX_COORDINATE:
        raise PoseError(f"{path}: expected pixels, found a coordinate of {largest:g}")
    return people


def openpose_files(path: Path) -> dict[int, Path]:
    """Return frame number -> file of an OpenPose folder; links are not followed."""
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


def load_json(path: Path) -> Any:
    """Parse a JSON file of bounded size; raises `PoseError` if it is not one."""
    _check_bytes(path.stat().st_size, path)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PoseError(f"{path}: not readable as JSON: {_reason(error)}") from error


def _read_json(path: Path) -> Frames:
    record = load_json(path)
    if isinstance(record, dict):
        numbers = sorted({int(image["id"]) for image in record["images"]})
        people = _by_image(record["annotations"])
        if unknown := sorted(people.keys() - set(numbers)):
            raise ValueError(f"annotations of image {unknown[0]}, which is not listed")
        # Ids need not be frame numbers, but they are in the order of the frames.
        return {i: people.get(number, []) for i, number in enumerate(numbers)}
    if not isinstance(record, list):
        raise TypeError(f"found {type(record).__name__}")
    if record and all(isinstance(one, dict) and "image_id" in one for one in record):
        return _by_image(record)
    return {i: list(_people(frame)) for i, frame in enumerate(record)}


def _read_openpose(path: Path) -> Frames:
    """Frames of an OpenPose folder; numbers that are left out are empty frames."""
    files = openpose_files(path)
    _check_bytes(sum(file.stat().st_size for file in files.values()), path)
    return {number: list(_people(load_json(file))) for number, file in files.items()}


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


def _people(frame: Any) -> Iterator[Person]:
    if frame is None:
        return iter(())
    if isinstance(frame, dict):
        for name in ("people", "instances", "annotations", "predictions"):
            if name in frame:
                return map(_person, frame[name])
        return iter((_person(frame),))
    if all(isinstance(one, dict) for one in frame) or _depth(frame) == 3:
        return map(_person, frame)
    return iter((_person(frame),))


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
    if array.dtype == object:  # null among the numbers becomes NaN
        array = array.astype(np.float64)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"expected numbers, found {array.dtype.name}")
    return array.astype(np.float64)


def _stack(frames: Frames, path: Path) -> People:
    """Put people into one array, padded to the largest number in a frame."""
    counts = sorted({len(person) for people in frames.values() for person in people})
    if not counts:
        raise PoseError(f"{path}: nobody in any of {len(frames)} frames")
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
    _check_bytes(path.stat().st_size, path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.reader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise PoseError(f"{path}: not readable as CSV: {error}") from error
    if not rows:
        raise PoseError(f"{path}: expected a header and one row per frame, found none")
    header = {name.strip(): column for column, name in enumerate(rows[0])}
    joints = sum(re.fullmatch(r"x\d+", name) is not None for name in header)
    axes = "xys" if "s0" in header else "xy"
    names = [f"{axis}{joint}" for joint in range(joints) for axis in axes]
    if not joints or (missing := [name for name in names if name not in header]):
        raise PoseError(
            f"{path}: expected a header x0,y0,s0,x1,... with or without the s, found "
            f"no column {missing[0] if joints else 'x0'}"
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


def _check_bytes(size: int, path: Path) -> None:
    if size > MAX_BYTES:
        raise PoseError(
            f"{path}: expected at most {MAX_BYTES >> 20} MiB, found {size >> 20}"
        )


def _check_size(frames: int, people: int, joints: int, path: Path) -> None:
    if not 0 < frames <= MAX_FRAMES or frames * people * joints > MAX_JOINTS:
        raise PoseError(
            f"{path}: expected 1 to {MAX_FRAMES} frames and at most {MAX_JOINTS} "
            f"joints, found {frames} frames of {people} people of {joints} joints"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no {error.args[0]!r}"
    return str(error).splitlines()[0]
