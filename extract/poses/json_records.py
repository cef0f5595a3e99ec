"""People in JSON, in the forms that pose tools write.

Conventions: a person is float64 (joints, columns), NaN where a number is missing;
`RawPoses.columns` names the columns: x, y, z, s (score) and ? (a third number that the
file does not explain). Joints keep the order of the file.

A file is a list of frames (or holds one under `frames` or MMPose's `instance_info`), a
list of people with an `image_id` (COCO results, AlphaPose), or a COCO annotation file.
A frame is null, a list of people, one person, or an object that holds people (`people`
of OpenPose, `instances` of MMPose, `pose_landmarks` of MediaPipe, ...). A person holds
its joints flat or in rows, as objects with x and y (MediaPipe) or as an object of lists
(Ultralytics). Frame numbers that a file states are used (`frame_id`, `file_name`, ...).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from aqa.extract.poses.layouts import LAYOUTS

Person = npt.NDArray[np.float64]

#: What walking through JSON of an unexpected shape may raise.
MALFORMED = (
    *(ValueError, TypeError, OverflowError, LookupError, AttributeError),
    RecursionError,
)
PEOPLE = (
    *("people", "instances", "annotations", "predictions"),
    *("pose_world_landmarks", "pose_landmarks"),
)
#: Names of a person's joints; the first has x, y and score by definition.
JOINTS = ("pose_keypoints_2d", "keypoints", "landmark", "landmarks")
NUMBERS = ("frame_id", "frame_index", "frame", "image_id", "file_name")
#: What a detected object without joints has.
DETECTION = ("bbox", "box", "category_id")
#: The end of an image's name: its suffix, and what Roboflow adds.
SUFFIX = re.compile(r"(_(jpe?g|png)\.rf\.\w+)?\.[A-Za-z]\w{0,4}$")


@dataclass
class RawPoses:
    """What a pose file holds, before its numbers are given a meaning.

    `frames` maps frame numbers to people. `joints` is how many joints a person has, if
    that is known before reading. `tool`, `names` of joints, `units`, `picture` (width,
    height) and `made_with` are what the file states; `notes` say what was decided.
    """

    joints: int | None = None
    frames: dict[int, list[Person]] = field(default_factory=dict)
    columns: str = ""
    tool: str = ""
    names: list[str] | None = None
    units: str | None = None
    picture: tuple[float, float] | None = None
    made_with: Any = None
    notes: list[str] = field(default_factory=list)

    def use_columns(self, columns: str) -> None:
        """Note which columns the people have; ValueError if they differ."""
        if self.columns not in ("", columns):
            raise ValueError(
                f"people with {','.join(self.columns)} and with {','.join(columns)}"
            )
        self.columns = columns

    def place(self, numbers: Iterable[int], people: Iterable[list[Person]]) -> None:
        """Add people to frames."""
        for number, those in zip(numbers, people, strict=True):
            self.frames.setdefault(number, []).extend(those)


def parse_record(record: Any, raw: RawPoses) -> None:
    """Fill `raw` from a JSON value; raises one of `MALFORMED` if it holds no poses."""
    if isinstance(record, dict) and "images" in record:
        raw.made_with = (record.get("info") or {}).get("made_with")
        _parse_coco(record, raw)
        return
    if isinstance(record, dict):
        if names := (record.get("meta_info") or {}).get("keypoint_id2name"):
            raw.names = [names[key] for key in sorted(names, key=int)]
        record = record["frames" if "frames" in record else "instance_info"]
    if not isinstance(record, list):
        raise TypeError(f"found {type(record).__name__}")
    stated = [_stated_number(frame) for frame in record]
    if record and all(isinstance(r, dict) and "image_id" in r for r in record):
        if not any(name in r for r in record for name in PEOPLE):
            raw.tool = "coco"
            raw.place(_numbers(stated), [_people([one], raw) for one in record])
            return
    numbers: Sequence[int] = range(len(record))
    if any(number is not None for number in stated):
        if None in stated:
            raise ValueError("some frames state their number, others do not")
        numbers = _numbers(stated)
        if twice := [n for n in numbers if numbers.count(n) > 1]:
            raise ValueError(f"frame {twice[0]} is there twice")
        if numbers != sorted(numbers):
            raw.notes.append("frames in the order of their stated numbers")
    raw.place(numbers, [_people(frame, raw) for frame in record])


def parse_openpose(frames: dict[int, Any], raw: RawPoses) -> None:
    """Fill `raw` from the records of an OpenPose folder, by frame number."""
    raw.tool = "openpose"
    raw.place(frames, [_people(frame, raw) for frame in frames.values()])


def frame_numbers(names: Sequence[str]) -> list[int]:
    """Return the frame numbers of image names: the one number that differs.

    Raises ValueError when names differ in more than one number, or in their text: they
    are of several videos, or their order cannot be told.
    """
    parts = [re.split(r"(\d{1,12})", SUFFIX.sub("", name)) for name in names]
    if len({tuple(part[::2]) for part in parts}) > 1:
        raise ValueError(
            f"image names of more than one form, like {names[0]!r} and {names[-1]!r}: "
            "are they frames of one video?"
        )
    columns = list(zip(*(part[1::2] for part in parts), strict=True))
    differ = [c for c in columns if len(set(c)) > 1] or columns[-1:]
    if len(differ) != 1:
        raise ValueError(
            f"image names like {names[0]!r}: expected one number that differs, found "
            f"{len(differ)}"
        )
    return [int(number) for number in differ[0]]


def _numbers(stated: Sequence[Any]) -> list[int]:
    if all(isinstance(one, int) for one in stated):
        return list(stated)
    return frame_numbers(stated)


def _stated_number(frame: Any) -> Any:
    if not isinstance(frame, dict):
        return None
    return next((frame[name] for name in NUMBERS if name in frame), None)


def _parse_coco(record: dict[str, Any], raw: RawPoses) -> None:
    raw.tool = "coco"
    images = sorted(record["images"], key=lambda image: image["id"])
    people: dict[Any, list[Person]] = {image["id"]: [] for image in images}
    if len(people) < len(images):
        raise ValueError("images with the same id")
    sizes = {(image.get("width"), image.get("height")) for image in images}
    if len(sizes) == 1 and None not in (size := sizes.pop()):
        raw.picture = size
    for annotation in _of_people(record, raw):
        if (image := annotation["image_id"]) not in people:
            raise ValueError(f"annotations of image {image}, which is not listed")
        people[image].append(_person(annotation, raw))
    raw.place(_image_numbers(images, raw), people.values())


def _of_people(record: dict[str, Any], raw: RawPoses) -> list[dict[str, Any]]:
    """Annotations that have joints, of the one category that people are."""
    annotations = [a for a in record["annotations"] if a.get("keypoints")]
    categories = {c["id"]: c for c in record.get("categories") or ()}
    found = {a.get("category_id") for a in annotations}
    chosen = {
        i for i in found if categories.get(i, {}).get("name") == "person"
    } or found
    if len(chosen) > 1:
        raise ValueError(f"joints of {len(chosen)} categories, none named person")
    for category in chosen:
        raw.names = categories.get(category, {}).get("keypoints")
    return [a for a in annotations if a.get("category_id") in chosen]


def _image_numbers(images: list[Any], raw: RawPoses) -> Sequence[int]:
    """Frame numbers of a COCO file's images, which are in the order of their ids."""
    for name in NUMBERS:
        if images and all(name in image for image in images):
            try:
                numbers = _numbers([image[name] for image in images])
            except ValueError as error:
                raw.notes.append(f"frames in the order of image ids ({error})")
                break
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"two images with the frame number of one {name}")
            if numbers != sorted(numbers):
                raw.notes.append(f"frames in the order of {name}, not of image ids")
            return numbers
    return range(len(images))


def _people(value: Any, raw: RawPoses) -> list[Person]:
    """People of a frame, in any of the forms above."""
    if value in (None, [], {}):
        return []
    if isinstance(value, dict):
        name = next((name for name in PEOPLE if name in value), None)
        if name is None:
            return [_person(value, raw)] if _has_joints(value) else []
        if name.endswith("landmarks"):
            raw.tool = "mediapipe"
            raw.units = "metres" if "world" in name else "fraction"
        return _people(value[name], raw)
    some = [one for one in value if one not in (None, [], {})]
    if not some:
        return []
    if all(isinstance(one, dict) and "x" in one for one in some):
        return [_array(_points(value, raw), None, raw)]
    if any(isinstance(one, dict) for one in some):
        return [_person(one, raw) for one in some if _has_joints(one)]
    rows = _depth(some) == 2 and _width(some) <= 4 and not isinstance(some[0][0], dict)
    if rows or _depth(some) == 1:
        return [_array(value, None, raw)]
    return [person for one in some for person in _people(one, raw)]


def _has_joints(record: dict[str, Any]) -> bool:
    """Tell a person from a detection without joints; KeyError on anything else."""
    if not any(name in record for name in (*JOINTS, *NUMBERS, *DETECTION)):
        raise KeyError("keypoints")
    return any(record.get(name) for name in JOINTS)


def _person(record: dict[str, Any], raw: RawPoses) -> Person:
    name = next(name for name in JOINTS if record.get(name))
    joints, scores = record[name], record.get("keypoint_scores")
    if name == "pose_keypoints_2d":
        raw.tool = "openpose"
    if isinstance(joints, dict):  # Ultralytics
        scores = joints.get("visible")
        joints = list(zip(joints["x"], joints["y"], strict=True))
    if any(isinstance(joint, dict) for joint in joints):
        joints = _points(joints, raw)
    return _array(joints, scores, raw)


def _points(points: list[Any], raw: RawPoses) -> list[list[Any]]:
    """Rows of joints that are objects with x, y, perhaps z and a score."""
    first = next(point for point in points if point)
    names = [n for n in ("x", "y", "z", "score", "visibility") if n in first]
    raw.use_columns("".join(n if n in "xyz" else "s" for n in names))
    return [[(point or {}).get(name) for name in names] for point in points]


def _array(values: Any, scores: Any, raw: RawPoses) -> Person:
    """A person of numbers, flat or in rows, with scores apart or among them."""
    if _depth(values) == 2:
        values = [row or [None] * _width(values) for row in values]
    points = as_floats(values)
    if points.ndim == 1:
        known = [raw.joints] if raw.joints else [len(n) for n in LAYOUTS.values()]
        per_joint = (n for n in (3, 2, 4) if points.size / n in known)
        points = points.reshape(-1, next(per_joint, 3))
    if points.ndim != 2 or points.shape[1] not in (2, 3, 4):
        raise ValueError(f"a person's joints of shape {points.shape}")
    if scores is not None:
        raw.use_columns("xyz"[: points.shape[1]] + "s")
        return np.column_stack([points, as_floats(scores)])
    if raw.tool != "mediapipe":
        third = "s" if raw.tool == "openpose" else "?"
        raw.use_columns({2: "xy", 3: "xy" + third, 4: "xyzs"}[points.shape[1]])
    return points


def _depth(value: Any) -> int:
    if not isinstance(value, list | tuple):
        return 0
    return 1 + _depth(next((one for one in value if one not in (None, [])), None))


def _width(rows: list[Any]) -> int:
    return max(len(row) for row in rows if row)


def as_floats(values: Any) -> npt.NDArray[np.float64]:
    """Return numbers as float64, null as NaN; TypeError on anything else."""
    array = np.asarray(values)
    if array.dtype == object:
        array = array.astype(np.float64)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"expected numbers, found {array.dtype.name}")
    return array.astype(np.float64)
