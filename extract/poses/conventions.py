"""Decide what the numbers of a pose file mean: third number, units, layout, missing.

Conventions: the numbers of a file are float64 (frames, people, joints, columns), with
columns as in `RawPoses`. `PoseFile.people` is (frames, people, joints, axes + 1): x, y
(downwards in pictures), in three dimensions z, then the score; NaN where a joint is
missing.

A decision is taken from the options if they state it, else from the file if it states
it (its format, its names), else from the numbers if they allow one reading only;
otherwise `PoseError` says what to pass.

Missing joints are NaN, null or empty in the file, (0, 0), (-1, -1) in pixels, or a pair
of equal numbers far from all others that is there more than once (9999, 9999), with any
score: tools write these for joints that they did not find, and some put a constant
score beside them. The one joint that is always 0 in centred poses is kept.

Pixels stay pixels, and fractions of the picture become pixels. Other units (metres,
millimetres, three dimensions) differ by a factor that nobody states, so features of
such poses are computed at a common body size.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aqa.extract.config import PoseConfig
from aqa.extract.poses.json_records import RawPoses
from aqa.extract.poses.layouts import (
    LAYOUTS,
    UNAMBIGUOUS,
    Layout,
    custom_layout,
    layout_of_names,
    named_layout,
)
from aqa.extract.poses.read import PoseError, naming, read_raw

Numbers = npt.NDArray[np.float64]

MAX_COORDINATE = 1e6
#: Scores go from 0 to 1, some tools' a little beyond, and COCO's flags to 2.
MAX_SCORE = 2.0
#: Coordinates in pixels are larger than this, in metres they are not.
MAX_METRES = 10.0
#: Share of negative coordinates in poses that are centred on a joint.
MIN_NEGATIVE = 0.1


@dataclass(frozen=True)
class PoseFile:
    """People of a video; `facts` (layout, axes, units) go into the provenance."""

    people: Numbers
    layout: Layout
    facts: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """Say in one line what the numbers were taken for."""
        kept = "" if self.layout.kept == self.layout.name else f" as {self.layout.kept}"
        axes, units = self.facts["axes"], self.facts["units"]
        return f"{self.layout.name}{kept}, {axes}-D, in {units}"


def read_pose_file(path: Path, config: PoseConfig) -> PoseFile:
    """Read a pose file and decide what its numbers mean; `PoseError` if nobody can."""
    joints = len(LAYOUTS[config.layout]) if config.layout else config.joints
    with naming(path):
        return _interpret(*read_raw(path, joints), config)


def _interpret(numbers: Numbers, raw: RawPoses, config: PoseConfig) -> PoseFile:
    coordinates, scores = _columns(numbers, raw, config)
    coordinates[_missing(coordinates)] = np.nan
    if (code := _code(coordinates)) is not None:
        coordinates[(coordinates == code).all(axis=-1)] = np.nan
        raw.notes.append(f"joints at ({code:g}, {code:g}) taken as missing")
    if not np.isfinite(coordinates).any():
        raise PoseError("every joint of every frame is missing (0, empty or NaN)")
    if (largest := np.nanmax(np.abs(coordinates))) > MAX_COORDINATE:
        raise PoseError(f"expected pixels or metres, found a coordinate of {largest:g}")
    layout = _layout(coordinates, raw, config)
    units, coordinates = _units(coordinates, raw, config)
    people = np.concatenate([coordinates, scores[..., None]], axis=-1)
    axes = coordinates.shape[-1]
    facts: dict[str, Any] = {"layout": layout.kept, "axes": axes, "units": units}
    if raw.made_with:
        facts["found_with"] = raw.made_with
    return PoseFile(people[:, :, list(layout.take)], layout, facts, tuple(raw.notes))


def _columns(
    numbers: Numbers, raw: RawPoses, config: PoseConfig
) -> tuple[Numbers, Numbers]:
    """Split columns into coordinates, with or without z, and scores, 1 if unstated."""
    columns, third = raw.columns, config.third
    if columns == "xy?":
        columns = "xyz" if _is_depth(numbers, raw, config) else "xys"
    expected = {"depth": "z", "score": "s"}.get(third or "", "x")
    if expected not in columns:
        raise PoseError(f"--third {third}: found {', '.join(columns)} of each joint")
    axes = 3 if "z" in columns and third != "score" else 2
    coordinates = np.where(np.isinf(numbers), np.nan, numbers)[..., :axes]
    if "s" not in columns:
        return coordinates, np.ones(numbers.shape[:3])
    scores = numbers[..., columns.index("s")]
    known = scores[np.isfinite(scores)]
    if known.size and not (0 <= known.min() and 0 < known.max() <= MAX_SCORE):
        raise PoseError(
            f"expected scores from 0 to 1, found {known.min():g} to {known.max():g}: "
            "if the third number is z, pass --third depth"
        )
    return coordinates, scores


def _is_depth(numbers: Numbers, raw: RawPoses, config: PoseConfig) -> bool:
    """Tell z from a score in a third number that the file does not explain."""
    if config.third is not None:
        return config.third == "depth"
    third = numbers[..., 2][np.isfinite(numbers[..., 2])]
    if not third.size or np.isin(third, (0, 1, 2)).all():
        return False
    known = np.abs(numbers[..., :2][np.isfinite(numbers[..., :2])])
    extent = np.percentile(known, 95) if known.size else 0
    low, high = third.min(), third.max()
    if extent > MAX_METRES and 0 <= low and high <= (MAX_SCORE if raw.tool else 1):
        return False
    if extent <= MAX_METRES and (low < 0 or high > MAX_SCORE):
        return True
    raise PoseError(
        f"x and y up to {extent:g} with a third number from {low:g} to {high:g}: is it "
        "a score or z? Pass --third score or --third depth"
    )


def _missing(coordinates: Numbers) -> npt.NDArray[np.bool_]:
    """Joints that are not there, (frames, people, joints)."""
    unknown = np.isnan(coordinates).any(axis=-1)
    zero = np.asarray((coordinates == 0).all(axis=-1))
    sentinel = (coordinates == -1).all(axis=-1)
    missing = np.asarray(unknown | zero)
    others = coordinates[~(missing | sentinel)]
    if others.size == 0 or (others < 0).mean() < MIN_NEGATIVE:
        return np.asarray(missing | sentinel)
    present = np.asarray(~missing.all(axis=-1))  # (frames, people)
    always = np.asarray(zero[present].all(axis=0))
    if always.sum() == 1:  # the joint that the others are measured from
        missing[..., always] = ~present[..., None]
    return missing


def _code(coordinates: Numbers) -> float | None:
    """Return the number that stands for missing in all axes, None if there is none.

    It is farther out than twice any other coordinate, as 9999 is beside pixels.
    """
    size = np.abs(coordinates)
    if not np.isfinite(size).any():
        return None
    places = np.argwhere(size == np.nanmax(size))
    joints = coordinates[tuple(places[0][:-1])]
    same = (coordinates == joints[0]).all(axis=-1)
    others = size[~same]
    if same.sum() < 2 or (joints != joints[0]).any() or not np.isfinite(others).any():
        return None
    is_far = abs(joints[0]) > 2 * np.nanmax(others)
    return float(joints[0]) if is_far and float(joints[0]).is_integer() else None


def _layout(coordinates: Numbers, raw: RawPoses, config: PoseConfig) -> Layout:
    joints, axes = coordinates.shape[2:]
    layout = layout_of_names(raw.names) if raw.names else None
    stated = {"openpose": "body25", "kinect": "kinect25"}.get(raw.tool)
    if config.layout is not None:
        layout = named_layout(config.layout)
    elif config.joints is not None and config.root is not None:
        layout = custom_layout(config.joints, config.root)
    elif layout is None and joints == 25 and stated:
        layout = named_layout(stated)
    elif layout is None and joints in UNAMBIGUOUS:
        if joints != 17 or (axes == 2 and not _like_h36m(coordinates)):
            layout = named_layout(UNAMBIGUOUS[joints])
    if layout is None:
        known = [name for name, names in LAYOUTS.items() if len(names) == joints]
        choices = [
            *(f"--layout {name}" for name in known),
            f"--joints {joints} --root-joint I",
        ]
        raise PoseError(
            f"found {joints} joints, {'ambiguous' if known else 'of no known layout'}: "
            f"pass {' or '.join(choices)}, I being the joint to measure from"
        )
    if layout.joints != joints:
        raise PoseError(f"expected {layout.joints} joints, found {joints}")
    return layout


def _like_h36m(coordinates: Numbers) -> bool:
    """Tell Human3.6M's joints from COCO's, whose first five are close, on the head.

    Human3.6M's first is the pelvis, between joints 1 and 4, the hips.
    """
    known = coordinates[np.isfinite(coordinates).all(axis=(2, 3))]  # (n, 17, axes)
    body, head = (part.std(axis=1).max(axis=-1) for part in (known, known[:, :5]))
    pelvis = np.linalg.norm(known[:, 0] - known[:, [1, 4]].mean(axis=1), axis=-1)
    return bool(len(known) and np.median((head > 0.5 * body) & (pelvis < 0.1 * body)))


def _units(
    coordinates: Numbers, raw: RawPoses, config: PoseConfig
) -> tuple[str, Numbers]:
    """Return the units, and the coordinates in them."""
    axes = coordinates.shape[-1]
    known = coordinates[..., :2][np.isfinite(coordinates[..., :2])]
    low, high = np.percentile(known, (1, 99))
    largest, like_fraction = max(-low, high), -0.2 <= low and high <= 1.2
    found = f"found x and y from {low:.3g} to {high:.3g}"
    units = config.units or raw.units
    if units is None and largest > MAX_METRES:
        units = "pixels" if axes == 2 else "metres"
    elif units is None and like_fraction:
        units = "fraction"
    elif units is None and axes == 3:
        units = "metres"
    if (units == "pixels" and largest <= 2) or (units == "fraction" and largest > 2):
        raise PoseError(f"expected {units}, {found}: pass --units")
    if units in ("pixels", "metres"):
        return units, coordinates
    picture = config.picture or raw.picture
    if units == "fraction" and picture:
        raw.notes.append(f"fractions of a picture of {picture[0]:g} x {picture[1]:g}")
        size = np.array([*picture, picture[0]][:axes])
        return "pixels" if axes == 2 else "metres", coordinates * size
    if config.features == "pose-apen":  # does not depend on scale
        return "any", coordinates
    hint = "OpenPose's --keypoint_scale 4? " if units is None and largest <= 1.2 else ""
    raise PoseError(
        f"expected pixels, {found}: {hint}Pass --picture WIDTH HEIGHT if they are "
        "fractions of the picture, --units metres if they are lengths"
    )
