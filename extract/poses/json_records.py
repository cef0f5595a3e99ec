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
MALFORMED = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)
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
    """What a pose file holds and states, before its numbers are given a meaning."""

    #: Joints of a person, if known before reading.
    joints: int | None = None
    #: People by frame number.
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
            raise ValueError(f"people with {self.columns!r} and with {columns!r}")
        self.columns = columns

    def place(self, numbers: Iterable[int], people: Iterable[list[Person]]) -> None:
        """Add people to frames."""
        for number, those in zip(numbers, people, strict=True):
            self.frames.setdefault(number, []).extend(those)


def parse_record(record: Any, raw: RawPoses) -> None:
    """Fill `raw` from a JSON value; raises one of `MALFORMED` if it holds no poses."""
    if isinstance(record, dict) and "images" in record:
        record = _coco_frames(record, raw)
    elif isinstance(record, dict):
        if names := (record.get("meta_info") or {}).get("keypoint_id2name"):
            raw.names = [names[key] for key in sorted(names, key=int)]
        record = record["frames" if "frames" in record else "instance_info"]
    if not isinstance(record, list):
        raise TypeError(f"found {type(record).__name__}")
    people = [_people(frame, raw) for frame in record]
    stated = [_stated_number(frame) for frame in record]
    known = [number for number in stated if number is not None]
    if not known:
        raw.place(range(len(record)), people)
        return
    if len(known) < len(stated):
        raise ValueError("some frames state their number, others do not")
    integers = all(isinstance(number, int) for number in known)
    numbers = known if integers else frame_numbers(known)
    is_results = "image_id" in record[0] and not any(n in record[0] for n in PEOPLE)
    if len(set(numbers)) < len(numbers) and not is_results:
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise ValueError(f"frame {twice} is there twice")
    if numbers != sorted(numbers) and not is_results:
        raw.notes.append("frames in the order of their stated numbers")
    raw.place(numbers, people)


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
    columns = list(zip(*(part[1::2] for part in parts), strict=False))
    differ = [c for c in columns if len(set(c)) > 1] or columns[-1:]
    if len({tuple(part[::2]) for part in parts}) > 1 or len(differ) != 1:
        raise ValueError(
            f"image names like {names[0]!r} and {names[-1]!r}: expected one number "
            "that differs, the frame's; or a frame_id with each"
        )
    return [int(number) for number in differ[0]]


def _stated_number(frame: Any) -> Any:
    if not isinstance(frame, dict):
        return None
    return next((frame[name] for name in NUMBERS if name in frame), None)


def _coco_frames(record: dict[str, Any], raw: RawPoses) -> list[dict[str, Any]]:
    """Frames of a COCO annotation file, in the order of image ids."""
    raw.tool = "coco"
    raw.made_with = (record.get("info") or {}).get("made_with")
    images = sorted(record["images"], key=lambda image: image["id"])
    sizes = {(image.get("width"), image.get("height")) for image in images}
    if len(sizes) == 1 and None not in (size := sizes.pop()):
        raw.picture = size
    people: dict[Any, list[Any]] = {image["id"]: [] for image in images}
    if len(people) < len(images):
        raise ValueError("images with the same id")
    for annotation in _of_people(record, raw):
        if (image := annotation["image_id"]) not in people:
            raise ValueError(f"annotations of image {image}, which is not listed")
        people[image].append(annotation)
    return [{**image, "people": people[image["id"]]} for image in images]


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


def _people(value: Any, raw: RawPoses) -> list[Person]:
    """People of a frame, in any of the forms above."""
    if value and isinstance(value, dict):
        name = next((name for name in PEOPLE if name in value), None)
        if name is None:
            return _person(value, raw)
        if name.endswith("landmarks"):
            raw.tool = "mediapipe"
            raw.units = "metres" if "world" in name else "fraction"
        return _people(value[name], raw)
    some = [one for one in value or () if one]
    if not some:
        return []
    if isinstance(some[0], dict):
        if "x" in some[0]:
            return [_points(value, raw)]
        return [person for one in some for person in _person(one, raw)]
    if not isinstance(some[0], list) or (_is_number(some[0][0]) and len(some[0]) <= 4):
        return [_array(value, None, raw)]
    return [person for one in some for person in _people(one, raw)]


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _person(record: dict[str, Any], raw: RawPoses) -> list[Person]:
    """The person of a record, if it has joints; KeyError if it is something else."""
    name = next((name for name in JOINTS if record.get(name)), None)
    if name is None:
        if not any(n in record for n in (*JOINTS, *NUMBERS, *DETECTION)):
            raise KeyError("keypoints")
        return []
    joints, scores = record[name], record.get("keypoint_scores")
    if name == "pose_keypoints_2d":
        raw.tool = "openpose"
    elif "image_id" in record:
        raw.tool = "coco"
    if isinstance(joints, dict):  # Ultralytics
        columns = joints["x"], joints["y"], joints["visible"]
        joints = [
            {"x": x, "y": y, "score": s} for x, y, s in zip(*columns, strict=True)
        ]
    if any(isinstance(joint, dict) for joint in joints):
        return [_points(joints, raw)]
    return [_array(joints, scores, raw)]


def _points(points: list[Any], raw: RawPoses) -> Person:
    """A person of joints that are objects with x, y, perhaps z and a score."""
    first = next(point for point in points if point)
    names = [n for n in ("x", "y", "z", "score", "visibility") if n in first]
    raw.use_columns("".join(n if n in "xyz" else "s" for n in names))
    return _floats([[(point or {}).get(name) for name in names] for point in points])


def _array(values: Any, scores: Any, raw: RawPoses) -> Person:
    """A person of numbers, flat or in rows, with scores apart or among them."""
    width = max((len(row) for row in values if isinstance(row, list)), default=0)
    points = _floats([row or [None] * width for row in values] if width else values)
    if points.ndim == 1:
        known = [raw.joints] if raw.joints else [len(n) for n in LAYOUTS.values()]
        per_joint = (n for n in (3, 2, 4) if points.size / n in known)
        points = points.reshape(-1, next(per_joint, 3))
    if points.ndim != 2 or points.shape[1] not in (2, 3, 4):
        raise ValueError(f"a person's joints of shape {points.shape}")
    if scores is not None:
        raw.use_columns("xyz"[: points.shape[1]] + "s")
        return np.column_stack([points, _floats(scores)])
    third = "s" if raw.tool == "openpose" else "?"
    raw.use_columns({2: "xy", 3: "xy" + third, 4: "xyzs"}[points.shape[1]])
    return points


def _floats(values: Any) -> npt.NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype == object:  # null among the numbers becomes NaN
        array = array.astype(np.float64)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"expected numbers, found {array.dtype.name}")
    return array.astype(np.float64)
