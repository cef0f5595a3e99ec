"""Decide what the numbers of a pose file mean: third number, units, layout, missing.

Conventions: the numbers of a file are float64 (frames, people, joints, columns), with
columns as in `RawPoses`. `Interpreted.people` is (frames, people, joints, axes + 1):
x, y and in three dimensions z, then the score; NaN where a joint is missing.

A decision is taken from the options if they state it, else from the file if it states
it (its format, its names), else from the numbers if they allow one reading only; a
`PoseError` says what to pass otherwise. What was decided is in `facts` (recorded with
the features) and in `notes`.

Missing joints are NaN, null or empty in the file, (0, 0), or (-1, -1) in pixels, with
any score: tools write these for joints that they did not find. The one joint that is
always 0 in poses that are centred on a joint is kept.

Pixels stay pixels, and fractions of the picture become pixels. Other units (metres,
millimetres, three dimensions) differ by a factor that nobody states, so features of
such poses are computed at a common body size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aqa.extract.config import PoseConfig
from aqa.extract.poses.json_records import RawPoses
from aqa.extract.poses.layouts import (
    Layout,
    candidates,
    custom_layout,
    layout_of_count,
    layout_of_names,
    named_layout,
)
from aqa.extract.poses.read import PoseError

Numbers = npt.NDArray[np.float64]

MAX_COORDINATE = 1e6
#: Scores go from 0 to 1; RTMPose's and OpenPose's can be a little more, and COCO's
#: flags go to 2.
MAX_SCORE = 2.0
#: Coordinates of a person in pixels are larger than this, in metres they are not.
MAX_METRES = 10.0
#: Share of negative coordinates in poses that are centred on a joint.
MIN_NEGATIVE = 0.1


@dataclass(frozen=True)
class Interpreted:
    """People of a video in known units and layout; see the module."""

    people: Numbers
    layout: Layout
    units: str
    facts: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """Say in one line what the numbers were taken for."""
        layout = self.layout.name
        if self.layout.kept != layout:
            layout += f" as {self.layout.kept}"
        return f"{layout}, {self.people.shape[-1] - 1}-D, in {self.units}"


def interpret(numbers: Numbers, raw: RawPoses, config: PoseConfig) -> Interpreted:
    """Give the numbers of a file their meaning.

    Raises `PoseError` over what is ambiguous, contradictory or not plausible.
    """
    coordinates, scores = _columns(numbers, raw, config)
    coordinates = np.where(np.isfinite(coordinates), coordinates, np.nan)
    coordinates[_missing(coordinates)] = np.nan
    if not np.isfinite(coordinates).any():
        raise PoseError("every joint of every frame is missing (0, empty or NaN)")
    largest = float(np.nanmax(np.abs(coordinates)))
    if largest > MAX_COORDINATE:
        raise PoseError(f"expected pixels or metres, found a coordinate of {largest:g}")
    layout = _layout(coordinates, raw, config)
    units, coordinates, picture = _units(coordinates, raw, config)
    people = np.concatenate([coordinates, scores[..., None]], axis=-1)
    facts: dict[str, Any] = {
        "layout": layout.kept,
        "axes": coordinates.shape[-1],
        "units": units,
    }
    if raw.made_with:
        facts["found_with"] = raw.made_with
    notes = (*raw.notes, picture) if picture else tuple(raw.notes)
    return Interpreted(people[:, :, list(layout.take)], layout, units, facts, notes)


def _columns(
    numbers: Numbers, raw: RawPoses, config: PoseConfig
) -> tuple[Numbers, Numbers]:
    """Split columns into coordinates, with or without z, and scores, 1 if unstated."""
    columns = raw.columns
    if columns.endswith("?"):
        columns = columns[:-1] + ("z" if _is_depth(numbers, raw, config) else "s")
    if config.third == "depth" and "z" not in columns:
        raise PoseError(
            f"--third depth: expected x, y and z of each joint, found "
            f"{'x, y and a score' if 's' in columns else 'x and y alone'}"
        )
    if config.third == "score" and "s" not in columns:
        raise PoseError("--third score: expected a score of each joint, found none")
    axes = 3 if "z" in columns and config.third != "score" else 2
    if "s" not in columns:
        return numbers[..., :axes].copy(), np.ones(numbers.shape[:3])
    scores = numbers[..., columns.index("s")]
    known = scores[np.isfinite(scores)]
    if known.size and not (0 <= known.min() and known.max() <= MAX_SCORE):
        raise PoseError(
            f"expected scores from 0 to 1, found {known.min():g} to {known.max():g}"
            + (": pass --third depth if they are z" if columns == "xys" else "")
        )
    if known.size and not known.any():
        raise PoseError(
            "every score is 0: pass --third depth if the third number is z, "
            "or leave it out"
        )
    return numbers[..., :axes].copy(), scores


def _is_depth(numbers: Numbers, raw: RawPoses, config: PoseConfig) -> bool:
    """Tell z from a score in a third number that the file does not explain."""
    if config.third is not None:
        return config.third == "depth"
    third = numbers[..., 2][np.isfinite(numbers[..., 2])]
    if not third.size:
        return False
    low, high = float(third.min()), float(third.max())
    small = _extent(numbers[..., :2]) <= MAX_METRES
    flags = bool(np.isin(third, (0, 1, 2)).all())
    if flags or (not small and 0 <= low and high <= (MAX_SCORE if raw.tool else 1)):
        return False
    if small and (low < 0 or high > MAX_SCORE):
        return True
    raise PoseError(
        f"x and y up to {_extent(numbers[..., :2]):g} with a third number from {low:g} "
        f"to {high:g}: is it a score or z? Pass --third score or --third depth"
    )


def _extent(coordinates: Numbers) -> float:
    """Size that 95 % of the coordinates do not exceed; 0 if there are none."""
    known = np.abs(coordinates[np.isfinite(coordinates)])
    return float(np.percentile(known, 95)) if known.size else 0.0


def _missing(coordinates: Numbers) -> npt.NDArray[np.bool_]:
    """Joints that are not there, (frames, people, joints)."""
    unknown = np.isnan(coordinates).any(axis=-1)
    zero = np.asarray((coordinates == 0).all(axis=-1), np.bool_)
    sentinel = (coordinates == -1).all(axis=-1)
    others = coordinates[~(unknown | zero | sentinel)]
    centred = others.size > 0 and (others < 0).mean() >= MIN_NEGATIVE
    missing = np.asarray(unknown | zero, np.bool_)
    if not centred:
        return np.asarray(missing | sentinel, np.bool_)
    present = np.asarray(~missing.all(axis=-1))  # (frames, people)
    always = np.asarray(zero[present].all(axis=0))
    if always.sum() == 1:  # the joint that the others are measured from
        missing[..., always] = ~present[..., None]
    return missing


def _layout(coordinates: Numbers, raw: RawPoses, config: PoseConfig) -> Layout:
    layout: Layout | None
    joints, axes = coordinates.shape[2:]
    if config.layout is not None:
        layout = named_layout(config.layout)
    elif config.joints is not None and config.root is not None:
        layout = custom_layout(config.joints, config.root)
    else:
        layout = layout_of_names(raw.names) if raw.names else None
        if layout is None and not (joints == 17 and _like_h36m(coordinates)):
            layout = layout_of_count(joints, axes, raw.tool)
    if layout is None:
        names = [f"--layout {name}" for name in candidates(joints)]
        where = ", ambiguous" if names else ", which no known layout has"
        choices = [*names, f"--joints {joints} --root I (the joint to measure from)"]
        raise PoseError(f"found {joints} joints{where}: pass {' or '.join(choices)}")
    if layout.joints != joints:
        raise PoseError(f"expected {layout.joints} joints, found {joints}")
    return layout


def _like_h36m(coordinates: Numbers) -> bool:
    """Tell whether 17 joints look like Human3.6M's rather than COCO's.

    COCO's first five are on the head, close together. Human3.6M's are the pelvis, which
    lies between joints 1 and 4, the hips, and the right leg.
    """
    known = coordinates[np.isfinite(coordinates).all(axis=(2, 3))]  # (n, 17, axes)
    if not len(known):
        return False

    def spread(joints: Numbers) -> Numbers:
        centred = joints - joints.mean(axis=1, keepdims=True)
        return np.asarray(np.sqrt((centred**2).sum(axis=2).mean(axis=1)))

    body = spread(known)
    head = spread(known[:, :5])
    middle = known[:, 0] - (known[:, 1] + known[:, 4]) / 2
    apart = np.linalg.norm(middle, axis=1)
    return bool(np.median(head - 0.5 * body) > 0 and np.median(apart - 0.1 * body) < 0)


def _units(
    coordinates: Numbers, raw: RawPoses, config: PoseConfig
) -> tuple[str, Numbers, str]:
    """Return the units, coordinates in them, and a note if fractions became pixels."""
    axes = coordinates.shape[-1]
    known = coordinates[..., :2][np.isfinite(coordinates[..., :2])]
    low, high = (float(edge) for edge in np.percentile(known, (1, 99)))
    largest = max(-low, high)
    found = f"found x and y from {low:.3g} to {high:.3g}"
    like_fraction = -0.2 <= low and high <= 1.2
    units = config.units or raw.units
    if units == "pixels" and largest <= 2:
        raise PoseError(f"--units pixels: {found}")
    if units == "fraction" and largest > 2:
        raise PoseError(f"fractions of the picture expected, {found}: pass --units")
    if units is None and largest > MAX_METRES:
        units = "pixels" if axes == 2 else "metres"
    if units is None and axes == 3 and not like_fraction:
        units = "metres"
    if units is None and like_fraction:
        units = "fraction"
    if units is None:
        if config.features == "pose-apen":  # does not depend on scale
            return "any", coordinates, ""
        hint = " (OpenPose's --keypoint_scale 4)" if largest <= 1.2 else ""
        raise PoseError(
            f"expected pixels, {found}{hint}: pass --units metres if they are lengths, "
            "or convert them to pixels"
        )
    if units != "fraction":
        return units, coordinates, ""
    picture = config.picture or raw.picture
    if picture is None:
        if config.features == "pose-apen":
            return "any", coordinates, ""
        raise PoseError(
            f"{found}, which are fractions of a picture of unknown size: pass "
            "--picture WIDTHxHEIGHT, or --units metres if they are lengths"
        )
    width, height = picture
    size = np.array([width, height, width][:axes])
    note = f"fractions of a picture of {width:g} x {height:g}"
    return "pixels" if axes == 2 else "metres", coordinates * size, note
