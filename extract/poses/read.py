"""Find and read the pose file of a video: JSON, OpenPose's folder, NPY, CSV or text.

Conventions: `read_raw` returns float64 (frames, people, joints, columns), columns as
`RawPoses.columns` says; NaN where a number is missing or a frame has fewer people.
Joints keep the order of the file. What the numbers mean is decided by
`aqa.extract.poses.conventions`.

The key `diving/001` has exactly one of these under the folder of poses; a key with a
video suffix (`dives/a.mp4`) is also looked up without it (`dives/a.json`):

- `diving/001.json`: see `aqa.extract.poses.json_records`;
- `diving/001/`: OpenPose's folder of `*_<frame number>_keypoints.json`, one per frame;
- `diving/001.npy`: numbers of shape (frames, joints, 2, 3 or 4); never unpickled;
- `diving/001.csv`: a row per frame under a header `x0,y0,z0,s0,x1,...` in any order, z
  and the score s only where there are such; an empty cell is a missing value, a column
  `frame` is the frame's number, other columns are ignored;
- `diving/001.txt`: a row of numbers per frame (Kinect recordings), separated by commas,
  semicolons or blanks; needs a stated layout;
- `diving/001.skeleton`: NTU RGB+D's text of Kinect skeletons.

Frames between the first and the last number that a file states and that it leaves out
are empty. Frame numbers that all go up by the same step count as consecutive.

Sizes are bounded before anything is allocated; links out of the folder are refused.
"""

import csv
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aqa.cache.errors import AqaError, brief
from aqa.cache.files import file_sha256
from aqa.cache.tables import read_npy
from aqa.extract.datasets.dataset import SUFFIXES, is_ignored
from aqa.extract.poses.json_records import (
    MALFORMED,
    RawPoses,
    parse_openpose,
    parse_record,
)

Numbers = npt.NDArray[np.float64]

FORMS = (".json", ".csv", ".npy", ".txt", ".skeleton")
MAX_BYTES = 64 << 20
#: Four minutes at 25 frames per second.
MAX_FRAMES = 6000
#: Joints of all people of all frames: 100 people of 25 joints for 1,600 frames.
MAX_JOINTS = 4_000_000
OPENPOSE = re.compile(r"(?:.*_)?(\d{1,12})_keypoints\.json")
#: Columns of people in arrays, by their number.
COLUMNS = {2: "xy", 3: "xy?", 4: "xyzs"}
#: Numbers of each joint in an NTU skeleton: x, y, z, eight others, tracking state.
NTU_COLUMNS = 12


class PoseError(AqaError):
    """Poses that cannot be read or are not plausible."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the name of a file before the reason of an error, once."""
    try:
        yield
    except AqaError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise PoseError(f"{path}: {reason}") from error


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
            f"expected one pose file {folder / key}{', '.join(FORMS)} or a folder of "
            f"that name, found {', '.join(map(str, found)) or 'none'}"
        )
    if not found[0].resolve().is_relative_to(folder.resolve()):
        raise PoseError(f"{found[0]}: a link that leads out of {folder}")
    return found[0]


def digest(path: Path) -> str:
    """Return the SHA-256 of a pose file, or of a folder's file digests and names."""
    if path.is_file():
        return file_sha256(path)
    listing = "".join(
        f"{digest(file)}  {file.name}\n" for file in openpose_files(path).values()
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def read_raw(path: Path, joints: int | None = None) -> tuple[Numbers, RawPoses]:
    """Return the numbers of a pose file, and what it states about them.

    `joints` is the number of joints per person, if it is known. Raises `PoseError` when
    the file is not one of the forms above.
    """
    raw = RawPoses(joints)
    try:
        if path.is_dir():
            files = openpose_files(path)
            _check_bytes(*files.values())
            parse_openpose({n: load_json(file) for n, file in files.items()}, raw)
        elif path.suffix == ".json":
            parse_record(load_json(path), raw)
        elif path.suffix == ".npy":
            _place_array(read_npy(path, 4 * MAX_JOINTS), raw)
        else:
            _check_bytes(path)
            read = {".csv": _read_csv, ".txt": _read_rows}.get(path.suffix, _read_ntu)
            read(path.read_text(encoding="utf-8-sig"), raw)
    except AqaError:
        raise
    except (*MALFORMED, RecursionError, csv.Error) as error:
        reason = (
            f"no {error.args[0]!r}" if isinstance(error, KeyError) else brief(error)
        )
        raise PoseError(f"expected joints of people: {reason}") from error
    return _stack(raw), raw


def openpose_files(path: Path) -> dict[int, Path]:
    """Return frame number -> file of an OpenPose folder; links are not followed."""
    numbered = sorted(
        (int(match[1]), file)
        for file in path.iterdir()
        if (match := OPENPOSE.fullmatch(file.name))
        and not is_ignored(file.name)
        and not file.is_symlink()
    )
    files = dict(numbered)
    if not files or len(files) < len(numbered):
        raise PoseError(
            "expected one *_keypoints.json for each frame of one video, found "
            f"{len(numbered)} files for {len(files)} frames"
        )
    return files


def load_json(path: Path) -> Any:
    """Parse a JSON file of bounded size; raises `PoseError` if it is not one."""
    _check_bytes(path)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PoseError(f"not readable as JSON: {brief(error)}") from error


def _place_array(array: npt.NDArray[Any], raw: RawPoses) -> None:
    """One person per frame, from (frames, joints, columns)."""
    shape = array.shape
    if len(shape) != 3 or shape[2] not in COLUMNS or array.dtype.kind not in "iuf":
        raise PoseError(
            "expected numbers of shape (frames, joints, 2, 3 or 4), of one person, "
            f"found {array.dtype.name} {shape}"
        )
    if array.dtype.itemsize == 1:
        raise PoseError(f"expected pixels beyond 255 too, found {array.dtype.name}")
    _check_size(shape[0], 1, shape[1])
    raw.columns = raw.columns or COLUMNS[shape[2]]
    raw.place(range(shape[0]), [[frame] for frame in array.astype(np.float64)])


def _read_csv(text: str, raw: RawPoses) -> None:
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    header = [name.strip() for name in rows.fieldnames or ()]
    rows.fieldnames = header
    axes = "".join(axis for axis in "xyzs" if f"{axis}0" in header)
    joints = sum(re.fullmatch(r"x\d+", name) is not None for name in header)
    names = [f"{axis}{joint}" for joint in range(joints) for axis in axes]
    missing = [name for name in ("x0", "y0", *names) if name not in header]
    if missing:
        raise PoseError(f"expected a header x0,y0,s0,x1,..., found no {missing[0]}")
    raw.use_columns(axes)
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            number = (
                len(header) - list(row.values()).count(None) + len(row.get(None, ()))
            )
            raise PoseError(
                f"line {line}: expected {len(header)} cells as in the header, found "
                f"{number}; numbers are written with a point"
            )
        try:
            values = [float(row[name].strip() or "nan") for name in names]
        except ValueError as error:
            raise PoseError(f"line {line}: {error}") from error
        number = int(float(row.get("frame") or line))
        if number in raw.frames:
            raise PoseError(f"line {line}: frame {number} is there twice")
        raw.frames[number] = [np.reshape(values, (joints, -1))]


def _read_rows(text: str, raw: RawPoses) -> None:
    if not text.strip():
        raise PoseError("expected a row of numbers per frame, found none")
    rows = np.loadtxt(io.StringIO(re.sub("[,;]", " ", text)), ndmin=2)
    if raw.joints is None or rows.shape[1] not in [raw.joints * n for n in COLUMNS]:
        raise PoseError(
            f"found rows of {rows.shape[1]} numbers: pass --layout, or --joints and "
            "--root-joint, of which 2, 3 or 4 numbers per joint result"
        )
    _place_array(rows.reshape(len(rows), raw.joints, -1), raw)


def _read_ntu(text: str, raw: RawPoses) -> None:
    """Counts of frames, bodies and joints, each before its list."""
    lines = iter(text.splitlines())
    raw.tool, raw.units, raw.columns = "kinect", "metres", "xyzs"
    for number in range(int(next(lines, ""))):
        raw.frames[number] = []
        for _ in range(int(next(lines, ""))):
            next(lines, "")  # identity and state of the body
            count = int(next(lines, ""))
            _check_size(1, 1, count)
            joints = [next(lines, "").split() for _ in range(count)]
            values = np.array(joints, np.float64).reshape(-1, NTU_COLUMNS)
            # Tracking state: 0 not tracked, 1 inferred, 2 tracked.
            person = np.column_stack([values[:, :3], values[:, -1] / 2])
            raw.frames[number].append(person)


def _stack(raw: RawPoses) -> Numbers:
    """Put people into one array, padded to the largest number in a frame."""
    frames = raw.frames
    shapes = {person.shape for people in frames.values() for person in people}
    if not shapes:
        raise PoseError(f"nobody in any of {len(frames)} frames")
    if len(shapes) > 1:
        counts = sorted(shape[0] for shape in shapes)
        raise PoseError(f"expected one number of joints, found {counts}")
    shape, first = shapes.pop(), min(frames)
    step = math.gcd(*(number - first for number in frames)) or 1
    if step > 1:
        raw.notes.append(f"frame numbers go up by {step}: taken as consecutive")
    length = (max(frames) - first) // step + 1
    people = max(map(len, frames.values()))
    _check_size(length, people, shape[0])
    stacked = np.full((length, people, *shape), np.nan)
    for number, those in frames.items():
        if those:
            stacked[(number - first) // step, : len(those)] = those
    return stacked


def _check_bytes(*paths: Path) -> None:
    if (size := sum(path.stat().st_size for path in paths)) > MAX_BYTES:
        raise PoseError(f"expected at most {MAX_BYTES >> 20} MiB, found {size >> 20}")


def _check_size(frames: int, people: int, joints: int) -> None:
    if not 0 < frames <= MAX_FRAMES or frames * people * joints > MAX_JOINTS:
        raise PoseError(
            f"expected 1 to {MAX_FRAMES} frames and at most {MAX_JOINTS} joints, found "
            f"{frames} frames of {people} people of {joints} joints"
        )
