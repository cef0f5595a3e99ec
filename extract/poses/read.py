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
- `diving/001.csv`: a row per frame (or per person, with a column `person`) under a
  header with x, y and perhaps z and a score (s) of each joint: `x0,y0,s0,...` or
  `nose_x,nose_y,nose_score,...`, in any order. An empty cell is a missing value; a
  column `frame` is the frame's number; other columns are ignored. Without a header
  (also `.txt`), a row of equally many numbers per joint: needs a stated layout;
- `diving/001.skeleton`: NTU RGB+D's text of Kinect skeletons.

Frames between the first and the last number that a file states and that it leaves out
are empty. Frame numbers that all go up by the same step count as consecutive.

Files are not trusted: sizes are bounded before anything is allocated, and links that
lead out of the folder are refused.
"""

import csv
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aqa.cache.errors import AqaError
from aqa.cache.tables import read_npy
from aqa.extract.datasets.folder import SUFFIXES
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
#: Columns of a CSV: axis and joint number, or joint name and axis.
NUMBERED = re.compile(r"([xyzscv])_?(\d{1,4})")
NAMED = re.compile(r"(.+?)[_. -](x|y|z|s|c|v|score|conf|confidence|visibility)")
FRAME_COLUMNS = ("frame", "frame_id", "frame_index", "frame_idx", "frame_number")
PERSON_COLUMNS = ("person", "person_id", "track_id", "athlete")
#: Numbers of each joint in an NTU skeleton: x, y, z, eight others, tracking state.
NTU_COLUMNS = 12


class PoseError(AqaError):
    """Poses that cannot be read or are not plausible; names the file, once."""

    def __init__(self, reason: str, path: Path | None = None) -> None:
        """Put `path` before the reason, unless that has it."""
        named = path is None or reason.startswith(str(path))
        super().__init__(reason if named else f"{path}: {reason}")


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
        return hashlib.sha256(path.read_bytes()).hexdigest()
    listing = "".join(
        f"{digest(file)}  {file.name}\n" for file in openpose_files(path).values()
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def read_raw(path: Path, joints: int | None = None) -> tuple[Numbers, RawPoses]:
    """Return the numbers of a pose file, and what it states about them.

    `joints` is the number of joints per person, if it is known. Raises `PoseError`,
    naming the file, when it is not one of the forms above.
    """
    raw = RawPoses(joints)
    try:
        if path.is_dir():
            files = openpose_files(path)
            _check_bytes(sum(file.stat().st_size for file in files.values()), path)
            parse_openpose({n: load_json(file) for n, file in files.items()}, raw)
        elif path.suffix == ".json":
            parse_record(load_json(path), raw)
        elif path.suffix == ".npy":
            return _read_npy(path, raw)[:, None], raw
        elif path.suffix == ".skeleton":
            _read_skeleton(_text(path), raw)
        else:
            _read_table(_text(path), raw)
        return _stack(raw), raw
    except AqaError as error:
        raise PoseError(str(error), path) from error
    except StopIteration as error:
        raise PoseError("ends too early", path) from error
    except (*MALFORMED, csv.Error) as error:
        raise PoseError(f"expected joints of people: {_reason(error)}", path) from error


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


def _text(path: Path) -> str:
    _check_bytes(path.stat().st_size, path)
    return path.read_text(encoding="utf-8-sig")


def _stack(raw: RawPoses) -> Numbers:
    """Put people into one array, padded to the largest number in a frame."""
    frames = raw.frames
    shapes = {person.shape for people in frames.values() for person in people}
    if not shapes:
        raise PoseError(f"nobody in any of {len(frames)} frames")
    joints = sorted({shape[0] for shape in shapes})
    if len(joints) > 1:
        raise PoseError(f"expected one number of joints, found {joints}")
    first, step = min(frames), math.gcd(*(number - min(frames) for number in frames))
    if step > 1:
        raw.notes.append(f"frame numbers go up by {step}: taken as consecutive")
    step = max(step, 1)
    length = (max(frames) - first) // step + 1
    people = max(map(len, frames.values()))
    _check_size(length, people, joints[0])
    stacked = np.full((length, people, *shapes.pop()), np.nan)
    for number, those in frames.items():
        if those:
            stacked[(number - first) // step, : len(those)] = those
    return stacked


def _read_npy(path: Path, raw: RawPoses) -> Numbers:
    array = read_npy(path, 4 * MAX_JOINTS)
    shape = array.shape
    if len(shape) != 3 or shape[2] not in (2, 3, 4) or array.dtype.kind not in "iuf":
        raise PoseError(
            "expected numbers of shape (frames, joints, 2, 3 or 4), of one person, "
            f"found {array.dtype.name} {shape}",
        )
    _check_size(shape[0], 1, shape[1])
    raw.columns = {2: "xy", 3: "xy?", 4: "xyzs"}[shape[2]]
    return np.array(array, np.float64)


def _read_table(text: str, raw: RawPoses) -> None:
    """Read CSV or text, with a header or without."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise PoseError("expected a header and one row per frame, found none")
    mark = next((mark for mark in (";", "\t", ",") if mark in lines[0]), " ")
    if mark == " ":
        lines = [" ".join(line.split()) for line in lines]
    elif mark == ";":  # where columns end in semicolons, decimals may have commas
        lines = [line.replace(",", ".") for line in lines]
    rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=mark))
    rows = [[cell.strip() for cell in row] for row in rows]
    if all(re.fullmatch(r"[-+.\deE]*|nan|NaN", cell) for cell in rows[0]):
        _read_headerless(rows, raw)
    else:
        _read_columns(rows[0], rows[1:], raw)


def _read_headerless(rows: list[list[str]], raw: RawPoses) -> None:
    if not any(row[-1] for row in rows):  # every line ends in a separator
        rows = [row[:-1] for row in rows]
    width = len(rows[0])
    if raw.joints is None or width % raw.joints or width // raw.joints not in (2, 3, 4):
        raise PoseError(
            f"found {width} columns without a header: pass --layout, or --joints and "
            "--root, of which 2, 3 or 4 columns per joint result"
        )
    raw.use_columns({2: "xy", 3: "xy?", 4: "xyzs"}[width // raw.joints])
    _check_size(len(rows), 1, raw.joints)
    for number, row in enumerate(rows):
        values = _cells(row, range(width), number + 1).reshape(raw.joints, -1)
        raw.frames[number] = [values]


def _read_columns(header: list[str], rows: list[list[str]], raw: RawPoses) -> None:
    where: dict[tuple[str, str], int] = {}
    joints: list[str] = []
    for place, name in enumerate(header):
        if match := NUMBERED.fullmatch(name):
            axis, joint = match.groups()
        elif match := NAMED.fullmatch(name):
            joint, axis = match.groups()
        else:
            continue
        where[joint, axis if axis in "xyz" else "s"] = place
        joints += [] if joint in joints else [joint]
    named = any(not joint.isdecimal() for joint in joints)
    if named:
        raw.names = tuple(joints)
    else:
        joints = sorted(joints, key=int)
        first = int(joints[0]) if joints else 0
        if first > 1 or [int(one) - first for one in joints] != [*range(len(joints))]:
            raise PoseError(
                f"expected joints from 0 on, found {', '.join(joints)[:80]}"
            )
    axes = "".join(a for a in "xyzs" if joints and (joints[0], a) in where)
    lost = [f"{a} of {j}" for j in joints for a in axes if (j, a) not in where]
    if not joints or lost or axes[:2] != "xy":
        raise PoseError(
            "expected a header x0,y0,s0,x1,... or nose_x,nose_y,nose_score,..., found "
            f"no {lost[0] if lost else 'x and y'}"
        )
    raw.use_columns(axes)
    frame = next((header.index(n) for n in FRAME_COLUMNS if n in header), None)
    people = any(name in header for name in PERSON_COLUMNS)
    columns = [where[joint, axis] for joint in joints for axis in axes]
    _check_size(len(rows), 1, len(joints))
    for line, row in enumerate(rows, start=2):
        values = _cells(row, columns, line).reshape(len(joints), -1)
        number = line if frame is None else int(_cells(row, [frame], line)[0])
        if number in raw.frames and not people:
            raise PoseError(f"line {line}: frame {number} is there twice")
        raw.frames.setdefault(number, []).append(values)


def _cells(row: list[str], columns: Sequence[int], line: int) -> Numbers:
    try:
        cells = [row[column] for column in columns]
        return np.array([float(cell) if cell else np.nan for cell in cells])
    except (ValueError, IndexError) as error:
        raise PoseError(f"line {line}: {error}") from error


def _read_skeleton(text: str, raw: RawPoses) -> None:
    """Read NTU RGB+D's text: counts of frames, bodies and joints before each list."""
    lines = iter(text.splitlines())
    raw.tool, raw.units = "kinect", "metres"
    raw.use_columns("xyzs")
    frames = int(next(lines))
    _check_size(frames, 1, 1)
    for number in range(frames):
        raw.frames[number] = []
        for _ in range(int(next(lines))):
            next(lines)  # identity and state of the body
            count = int(next(lines))
            _check_size(frames, 1, count)
            joints = np.array([next(lines).split() for _ in range(count)], np.float64)
            if joints.ndim != 2 or joints.shape[1] != NTU_COLUMNS:
                raise PoseError(
                    f"expected {NTU_COLUMNS} numbers per joint, found {joints.shape}"
                )
            # Tracking state: 0 not tracked, 1 inferred, 2 tracked.
            person = np.column_stack([joints[:, :3], joints[:, -1] / 2])
            raw.frames[number].append(person)


def _check_bytes(size: int, path: Path) -> None:
    if size > MAX_BYTES:
        raise PoseError(
            f"{path}: expected at most {MAX_BYTES >> 20} MiB, found {size >> 20}"
        )


def _check_size(frames: int, people: int, joints: int) -> None:
    if not 0 < frames <= MAX_FRAMES or frames * people * joints > MAX_JOINTS:
        raise PoseError(
            f"expected 1 to {MAX_FRAMES} frames and at most {MAX_JOINTS} joints, found "
            f"{frames} frames of {people} people of {joints} joints"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no {error.args[0]!r}"
    return (str(error) or type(error).__name__).splitlines()[0]
