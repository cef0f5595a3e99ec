"""One pose file a video: found by the video's key, read whatever its form.

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
import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aqa.cache.errors import AqaError
from aqa.cache.npy import read_npy
from aqa.extract.datasets.folder import SUFFIXES
from aqa.extract.poses.keypoints import (
    MAX_BYTES,
    Frames,
    PoseError,
    openpose_files,
    read_file,
    read_folder,
)

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
