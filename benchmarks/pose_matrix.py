"""Which pose files are read right, which are refused, and with what to pass.

Usage: python benchmarks/pose_matrix.py [--sample N]

Every cell is one file of a known athlete: a layout, columns (x and y; with scores; with
z; with both), a way to write missing joints, and units. Joints are placed, taken away,
written and interpolated here, with NumPy alone. Printed is a table of outcomes:

    right     read right without any option
    asked     refused with the options to pass, and read right with them
    WRONG     read otherwise, or refused with these options, too
"""

import argparse
import itertools
import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqa.extract.config import PoseConfig
from aqa.extract.poses.layouts import COCO, LAYOUTS
from aqa.extract.poses.read import PoseError
from aqa.extract.poses.tracks import read_poses

FRAMES, WIDTH, HEIGHT = 20, 640, 360
COLUMNS = ("xy", "xys", "xyz", "xyzs")
#: How a missing joint is written, in which kind of file.
MISSING = {"0": ".npy", "NaN": ".npy", "null": ".json", "empty": ".csv"}
UNITS = ("pixels", "fraction", "metres")
CUSTOM = "14 joints"


@dataclass(frozen=True)
class Cell:
    """One file of the matrix."""

    layout: str
    columns: str
    missing: str
    units: str

    @property
    def options(self) -> dict[str, Any]:
        """Everything that can be stated about the file."""
        axes = 3 if "z" in self.columns else 2
        options: dict[str, Any] = {"units": self.units, "picture": (WIDTH, HEIGHT)}
        if self.layout == CUSTOM:
            options |= {"joints": 14, "root": 3}
        else:
            options["layout"] = self.layout
        if len(self.columns) == 3:
            options["third"] = "depth" if axes == 3 else "score"
        return options


def cells() -> list[Cell]:
    """Return all cells; pixels have no z."""
    everything = itertools.product([*LAYOUTS, CUSTOM], COLUMNS, MISSING, UNITS)
    made = [Cell(*one) for one in everything]
    return [one for one in made if "z" not in one.columns or one.units != "pixels"]


def athlete(
    layout: str, joints: int, units: str, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return joints (frames, joints, 3) in the units, and which are missing."""
    rng = np.random.default_rng([seed, joints])
    shape = rng.uniform(-0.9, 0.9, (joints, 3))  # metres from the middle
    swing = 0.2 * np.sin(
        np.arange(FRAMES)[:, None, None] / 5 + rng.uniform(0, 6, (joints, 3))
    )
    body = shape + swing
    if layout == "h36m17":  # the pelvis, between the hips
        body[:, 0] = (body[:, 1] + body[:, 4]) / 2
    if units == "metres":
        body[..., 2] += 2.5  # from the camera
    else:
        body = body * 90 + [320, 180, 0]
    if units == "fraction":
        body /= (WIDTH, HEIGHT, WIDTH)
    gone = rng.random((FRAMES, joints)) < 0.15
    gone[[0, -1]] = False
    return body, gone


def write(cell: Cell, path: Path) -> np.ndarray:
    """Write the file of a cell; return the joints that should be read from it."""
    names = LAYOUTS.get(cell.layout, tuple(map(str, range(14))))
    body, gone = athlete(cell.layout, len(names), cell.units, seed=len(cell.columns))
    score = np.where(gone, 0.0, 0.9)[..., None]
    axes = 3 if "z" in cell.columns else 2
    numbers = [body[..., :axes], *([score] if "s" in cell.columns else [])]
    table = np.concatenate(numbers, axis=-1)
    table[gone] = 0 if cell.missing == "0" else np.nan
    if path.suffix == ".npy":
        np.save(path, table)
    elif path.suffix == ".json":
        rows = [[[None if v != v else v for v in j] for j in f] for f in table.tolist()]
        path.write_text(json.dumps(rows))
    else:
        letters = "xyz"[:axes] + "s" * ("s" in cell.columns)
        lines = [",".join(f"{a}{j}" for j in range(len(names)) for a in letters)]
        lines += [
            ",".join("" if v != v else repr(v) for v in frame.ravel().tolist())
            for frame in table
        ]
        path.write_text("\n".join(lines))
    if cell.units == "fraction":
        body = body * (WIDTH, HEIGHT, WIDTH)
    kept = [names.index(name) for name in COCO] if set(COCO) <= set(names) else ...
    times = np.arange(FRAMES)
    filled = np.empty((FRAMES, len(names), axes))
    for joint, axis in itertools.product(range(len(names)), range(axes)):
        seen = ~gone[:, joint]
        filled[:, joint, axis] = np.interp(times, times[seen], body[seen, joint, axis])
    return filled[:, kept]


def outcome(cell: Cell, folder: Path) -> tuple[str, str]:
    """Return the outcome of a cell, and the reason where it was refused."""
    path = folder / f"athlete{MISSING[cell.missing]}"
    expected = write(cell, path)

    def right(**options: Any) -> bool:
        poses = read_poses(path, "", PoseConfig(**options))
        names = LAYOUTS.get(cell.layout, COCO)
        known = "coco17" if set(COCO) <= set(names) else cell.layout
        if cell.layout != CUSTOM and poses.file.layout.kept != known:
            return False
        found = poses.joints[0]
        return found.shape == expected.shape and np.allclose(found, expected)

    try:
        return ("right", "") if right() else ("WRONG", "")
    except PoseError as error:
        reason = str(error).removeprefix(f"{path}: ")
    stated: dict[str, Any] = {}
    for _ in cell.options:  # what a reader of the message would pass
        named = {n for n in cell.options if f"--{n}" in reason} - stated.keys()
        stated |= {name: cell.options[name] for name in named}
        if "layout" in stated or "joints" in stated:
            stated |= {n: v for n, v in cell.options.items() if n in ("joints", "root")}
        try:
            return ("asked", reason) if right(**stated) else ("WRONG", reason)
        except PoseError as error:
            reason = str(error).removeprefix(f"{path}: ")
    return "WRONG", reason


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=int, help="Only so many cells.")
    chosen = parser.parse_args()
    every = cells()
    if chosen.sample:
        rng = np.random.default_rng(0)
        every = [every[i] for i in rng.permutation(len(every))[: chosen.sample]]
    with tempfile.TemporaryDirectory() as name:
        found = {cell: outcome(cell, Path(name)) for cell in every}
    kinds = [(c, u) for c in COLUMNS for u in UNITS if "z" not in c or u != "pixels"]
    print("| layout |", " | ".join(f"{c}, {u}" for c, u in kinds), "|")
    print("|" + "---|" * (len(kinds) + 1))
    for layout in dict.fromkeys(cell.layout for cell in every):
        row = []
        for columns, units in kinds:
            outcomes = {
                found[cell][0]
                for cell in every
                if (cell.layout, cell.columns, cell.units) == (layout, columns, units)
            }
            row.append(" and ".join(sorted(outcomes)) or "-")
        print(f"| {layout} |", " | ".join(row), "|")
    print(f"\n{len(found)} files:", dict(Counter(kind for kind, _ in found.values())))
    for cell, (kind, reason) in found.items():
        if kind == "WRONG":
            print(kind, cell, reason)


if __name__ == "__main__":
    main()
