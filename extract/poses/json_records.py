"""People in JSON, in the forms that pose tools write.

Conventions: a person is float64 (joints, columns), NaN where a number is missing;
`RawPoses.columns` names the columns: x, y, z, s (score) and ? (a third number that the
file does not explain). Joints keep the order of the file.

Read are
- lists of frames, or objects that hold one (`instance_info` of MMPose, `data` of
  Kinetics-skeleton, `frames`, `keypoints`, ...);
- lists of people with an `image_id` (COCO results, AlphaPose), and objects whose keys
  are image names (AlphaPose);
- COCO annotation files (`images`, `annotations`, `categories`).

A frame is null, a list of people, one person, or an object that holds people (`people`
of OpenPose, `instances` of MMPose, `pose_landmarks` of MediaPipe, ...). A person holds
its joints flat or in rows, as objects with x and y (MediaPipe) or as an object of lists
(Ultralytics). Frame numbers that a file states are used (`frame_id`, `file_name`, ...);
frames that it leaves out are empty.
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
FRAME_LISTS = (
    *("instance_info", "frames", "data", "results", "annotations", "predictions"),
    *("poses", "pose_world_landmarks", "pose_landmarks", "landmarks", "joints"),
    "keypoints",
)
PEOPLE = (
    *("people", "instances", "annotations", "predictions", "bodies", "skeleton"),
    *("skeletons", "poses", "persons", "pose_world_landmarks", "poseWorldLandmarks"),
    *("pose_landmarks", "poseLandmarks"),
)
#: Names of a person's joints; the first have x, y and a score by definition.
OPENPOSE_2D = ("pose_keypoints_2d", "pose_keypoints")
JOINTS = ("keypoints", "joints", "pose", "landmarks", "landmark", "pose_keypoints_3d")
SCORES = ("keypoint_scores", "keypoints_scores", "score", "scores", "confidence")
POINT_SCORES = ("score", "visibility", "confidence")
NUMBERS = ("frame_id", "frame_index", "frame_idx", "frame_number", "frame")
IMAGES = ("image_id", "file_name", "image_name", "image")
#: What a detected object without joints has.
DETECTION = ("bbox", "box", "class", "category_id")
#: What Roboflow appends to the name of an image.
ROBOFLOW = re.compile(r"_(?:jpe?g|png|bmp|webp)\.rf\.\w+$")
SUFFIX = re.compile(r"\.[A-Za-z]\w{0,4}$")
KNOWN_COUNTS = {len(names) for names in LAYOUTS.values()}


@dataclass
class RawPoses:
    """What a pose file holds, before its numbers are given a meaning.

    `frames` maps frame numbers to people. `joints` is how many joints a person has, if
    that is known before reading. `tool` ("openpose", "coco", ...), `names` of joints,
    `units`, `picture` (width, height) and `made_with` are what the file states; `notes`
    say what was decided about frames.
    """

    joints: int | None = None
    frames: dict[int, list[Person]] = field(default_factory=dict)
    columns: str = ""
    tool: str = ""
    names: tuple[str, ...] | None = None
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


def parse_record(record: Any, raw: RawPoses) -> None:
    """Fill `raw` from a JSON value; raises one of `MALFORMED` if it holds no poses."""
    if isinstance(record, dict):
        info = record.get("info")
        raw.made_with = info.get("made_with") if isinstance(info, dict) else None
        if "images" in record:
            _coco(record, raw)
            return
        names = record.get("meta_info")
        names = names.get("keypoint_id2name") if isinstance(names, dict) else None
        if isinstance(names, dict):
            raw.names = tuple(names[key] for key in sorted(names, key=int))
        name = next((n for n in FRAME_LISTS if isinstance(record.get(n), list)), "")
        if name:
            frames = record[name]
            scores = next((record[n] for n in SCORES if n in record), None)
            if name == "keypoints" and scores is not None:
                both = zip(frames, scores, strict=True)
                frames = [{"keypoints": k, "keypoint_scores": s} for k, s in both]
            if name.endswith("landmarks"):
                frames = [{name: frame} for frame in frames]
            parse_record(frames, raw)
            return
        if not record or not all(re.search(r"\d", key) for key in record):
            raise TypeError(f"found an object of {', '.join(record)[:80] or 'nothing'}")
        people = [_people(frame, raw) for frame in record.values()]
        _place(frame_numbers(list(record)), people, raw)
        return
    if not isinstance(record, list):
        raise TypeError(f"found {type(record).__name__}")
    if record and all(isinstance(r, dict) and "image_id" in r for r in record):
        if not any(name in r for r in record for name in PEOPLE):
            raw.tool = "coco"
            people = [_coco_person(one, raw) for one in record]
            _place(_numbers([one["image_id"] for one in record]), people, raw)
            return
    _frame_list(record, raw)


def parse_openpose(frames: dict[int, Any], raw: RawPoses) -> None:
    """Fill `raw` from the records of an OpenPose folder, by frame number."""
    raw.tool = "openpose"
    _place(list(frames), [_people(frame, raw) for frame in frames.values()], raw)


def frame_numbers(names: Sequence[str]) -> list[int]:
    """Return the frame numbers of image names: the one number that differs.

    Raises ValueError when names differ in more than one number, or in their text: they
    are of several videos, or their order cannot be told.
    """
    stems = [ROBOFLOW.sub("", SUFFIX.sub("", name)) for name in names]
    parts = [re.split(r"(\d{1,12})", stem) for stem in stems]
    texts = {tuple(part[::2]) for part in parts}
    if len(texts) > 1:
        first, second = sorted(texts)[:2]
        raise ValueError(
            f"image names of more than one form, {'#'.join(first)!r} and "
            f"{'#'.join(second)!r}: are they frames of one video?"
        )
    columns = list(zip(*(part[1::2] for part in parts), strict=True))
    differ = [c for c in columns if len(set(c)) > 1] or columns[-1:]
    if len(differ) != 1:
        found = "no number" if not differ else f"{len(differ)} numbers that differ"
        raise ValueError(f"image names like {names[0]!r}: expected one, found {found}")
    return [int(number) for number in differ[0]]


def _coco(record: dict[str, Any], raw: RawPoses) -> None:
    raw.tool = "coco"
    images = record["images"]
    ids = [_hashable(image["id"]) for image in images]
    if len(set(ids)) < len(ids):
        raise ValueError("images with the same id")
    sizes = {(image.get("width"), image.get("height")) for image in images}
    if len(sizes) == 1 and None not in (size := sizes.pop()):
        raw.picture = (float(size[0]), float(size[1]))
    annotations = _of_people(record, raw)
    people: dict[Any, list[Person]] = {one: [] for one in ids}
    for annotation in annotations:
        if (image := _hashable(annotation["image_id"])) not in people:
            raise ValueError(f"annotations of image {image}, which is not listed")
        people[image] += _coco_person(annotation, raw)
    _place(_image_numbers(images, ids, raw), list(people.values()), raw)


def _of_people(record: dict[str, Any], raw: RawPoses) -> list[dict[str, Any]]:
    """Annotations that have joints, of the one category that people are."""
    annotations = [a for a in record["annotations"] if a.get("keypoints")]
    categories = {c["id"]: c for c in record.get("categories") or ()}
    found = {a.get("category_id") for a in annotations}
    person = {
        i for i, c in categories.items() if str(c.get("name")).lower() == "person"
    }
    chosen = found & person or found
    if len(chosen) > 1:
        names = sorted(str(categories.get(i, {}).get("name", i)) for i in chosen)
        raise ValueError(f"joints of several categories, none named person: {names}")
    for category in chosen:
        names = categories.get(category, {}).get("keypoints")
        raw.names = tuple(map(str, names)) if names else None
    return [a for a in annotations if a.get("category_id") in chosen]


def _image_numbers(images: list[Any], ids: list[Any], raw: RawPoses) -> list[int]:
    """Frame number of each image of a COCO file: as stated, by name, or by id."""
    by_id = {one: place for place, one in enumerate(sorted(ids))}
    order = [by_id[one] for one in ids]
    for key in (*NUMBERS, "file_name"):
        if images and all(key in image for image in images):
            try:
                numbers = _numbers([image[key] for image in images])
            except ValueError as error:
                raw.notes.append(f"frames in the order of image ids ({error})")
                return order
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"two images with the frame number of one {key}")
            if np.argsort(numbers).tolist() != np.argsort(order).tolist():
                raw.notes.append(f"frames in the order of {key}, not of image ids")
            return numbers
    return order


def _frame_list(frames: list[Any], raw: RawPoses) -> None:
    people = [_people(frame, raw) for frame in frames]
    stated = [_stated(frame) for frame in frames]
    if all(number is None for number in stated):
        _place(range(len(frames)), people, raw)
        return
    if any(number is None for number in stated):
        raise ValueError("some frames state their number, others do not")
    numbers = _numbers(stated)
    if len(set(numbers)) < len(numbers):
        twice = next(n for n in numbers if numbers.count(n) > 1)
        raise ValueError(f"frame {twice} is there twice")
    if numbers != sorted(numbers):
        raw.notes.append("frames in the order of their stated numbers")
    _place(numbers, people, raw)


def _stated(frame: Any) -> Any:
    keys = (
        [key for key in (*NUMBERS, *IMAGES) if key in frame]
        if isinstance(frame, dict)
        else []
    )
    return frame[keys[0]] if keys else None


def _numbers(stated: Sequence[Any]) -> list[int]:
    """Frame numbers of what files state: whole numbers, or names of images."""
    if all(isinstance(one, int) and not isinstance(one, bool) for one in stated):
        return list(stated)
    if all(isinstance(one, str) for one in stated):
        return frame_numbers(stated)
    raise ValueError(f"frame numbers: expected integers or names, found {stated[0]!r}")


def _place(
    numbers: Iterable[int], people: Iterable[list[Person]], raw: RawPoses
) -> None:
    for number, those in zip(numbers, people, strict=True):
        raw.frames.setdefault(number, []).extend(those)


def _coco_person(record: dict[str, Any], raw: RawPoses) -> list[Person]:
    return [_person(record, raw)] if record.get("keypoints") else []


def _people(value: Any, raw: RawPoses) -> list[Person]:
    """People of a frame, in any of the forms above."""
    if value in (None, [], {}):
        return []
    if isinstance(value, dict):
        for name in PEOPLE:
            if name in value:
                if name == "bodies":  # AlphaPose's copy of OpenPose's format
                    raw.tool = "openpose"
                if name.lower().endswith("landmarks"):
                    raw.tool = "mediapipe"
                    raw.units = "metres" if "orld" in name else "fraction"
                return _people(value[name], raw)
        return [_person(value, raw)] if _has_joints(value) else []
    if not isinstance(value, list):
        raise TypeError(f"people: expected a list, found {type(value).__name__}")
    some = [one for one in value if one not in (None, [], {})]
    if all(isinstance(one, dict) for one in some):
        if some and all("x" in one and "y" in one for one in some):
            return [_points(value, raw)]
        return [_person(one, raw) for one in some if _has_joints(one)]
    depth = _depth(some)
    rows = depth == 2 and max(map(len, some)) <= 4 and not isinstance(some[0][0], dict)
    if depth == 1 or rows:
        return [_array(value, None, raw)]
    return [person for one in some for person in _people(one, raw)]


def _depth(value: Any) -> int:
    if not isinstance(value, list):
        return 0
    return 1 + _depth(next((one for one in value if one not in (None, [])), None))


def _has_joints(record: dict[str, Any]) -> bool:
    """Tell a person from a detection without joints; KeyError on anything else."""
    names = (*OPENPOSE_2D, *JOINTS)
    if not any(n in record for n in (*names, *NUMBERS, *IMAGES, *DETECTION)):
        raise KeyError("keypoints")
    return any(record.get(name) for name in names)


def _person(record: dict[str, Any], raw: RawPoses) -> Person:
    name = next(n for n in (*OPENPOSE_2D, *JOINTS) if record.get(n))
    joints = record[name]
    scores = next((record[n] for n in SCORES if isinstance(record.get(n), list)), None)
    if name in OPENPOSE_2D:
        raw.tool = "openpose"
    if isinstance(joints, dict):  # Ultralytics: lists of x, of y and of visible
        scores = joints.get("visible", scores)
        joints = np.column_stack([_floats(joints["x"]), _floats(joints["y"])]).tolist()
    if joints and all(isinstance(one, dict) for one in joints):
        return _points(joints, raw)
    return _array(joints, scores, raw)


def _points(points: list[Any], raw: RawPoses) -> Person:
    """A person of objects with x, y, perhaps z, a score and a name."""
    first = next(one for one in points if one)
    axes = "xyz" if "z" in first else "xy"
    score = next((name for name in POINT_SCORES if name in first), None)
    if all(isinstance(one, dict) and "name" in one for one in points):
        raw.names = tuple(str(one["name"]) for one in points)
    raw.use_columns(axes + ("s" if score else ""))
    keys = [*axes, *([score] if score else [])]
    return _floats([[(one or {}).get(key) for key in keys] for one in points])


def _array(values: Any, scores: Any, raw: RawPoses) -> Person:
    """A person of numbers, flat or in rows, with scores apart or among them."""
    if _depth(values) == 2:
        width = max(len(row) for row in values if row)
        values = [row or [None] * width for row in values]
    points = _floats(values)
    if points.ndim == 1:
        count = _columns(points.size, raw.joints if scores is None else len(scores))
        points = points.reshape(-1, count)
    if points.ndim != 2 or points.shape[1] not in (2, 3, 4):
        raise ValueError(f"a person's joints of shape {points.shape}")
    if scores is not None:
        raw.use_columns("xyzw"[: points.shape[1]] + "s")
        return np.column_stack([points, _floats(scores)])
    explained = raw.tool == "openpose" and points.shape[1] == 3
    raw.use_columns(
        {2: "xy", 3: "xys" if explained else "xy?", 4: "xyzs"}[points.shape[1]]
    )
    return points


def _columns(size: int, joints: int | None) -> int:
    """Numbers per joint of a flat list: 3 if that gives a known layout, else 2 or 4."""
    for count in (3, 2, 4):
        if joints is not None and count * joints == size:
            return count
    for count in (3, 2, 4):
        if size % count == 0 and size // count in KNOWN_COUNTS:
            return count
    return 3


def _floats(values: Any) -> npt.NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype == object:  # null among the numbers becomes NaN
        array = array.astype(np.float64)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"expected numbers, found {array.dtype.name}")
    return array.astype(np.float64)


def _hashable(value: Any) -> Any:
    if not isinstance(value, int | str):
        raise TypeError(f"image id: expected a number or a name, found {value!r}")
    return value
