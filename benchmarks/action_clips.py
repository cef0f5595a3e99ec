"""Labelled clips in UCF-101's layout, to pre-train a small network on.

Conventions: `<Class>/v_<Class>_gXX_cYY.avi` of 16 to 24 frames; two clips per group,
groups share one appearance over all classes, so that no colour identifies a class;
about one group in four is for testing. Lists: `trainlist01.txt` (labels from 1),
`testlist01.txt`, `classInd.txt`. The classes are what the judges look at: position,
speed of rotation, bent knees, splash, landing, two athletes. No clip is part of the
synthetic data set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from aqa.cache.console import Progress, silent
from aqa.cache.errors import AqaError
from aqa.cache.files import write_file
from aqa.cache.processes import process_map
from aqa.extract.synthetic.dataset import write_manifest
from aqa.extract.synthetic.film import film, write_video
from aqa.extract.synthetic.performance import Element, Fault, Performance, Phases
from aqa.extract.synthetic.scene import VENUES, vary

Range = tuple[float, float]

_DIVES = ("diving", "sync_diving_3m")
_JUMPS = ("gym_vault", "trampoline")
_BED = ("trampoline",)
_PAIR = ("sync_diving_10m",)
_AIR = ("ski_big_air", "snowboard_big_air")
CLIPS_PER_GROUP = 2


@dataclass(frozen=True)
class ClassSpec:
    """One class: its actions, moment, elements and ranges of faults."""

    actions: tuple[str, ...]
    #: "approach", "flight", or "end" (from just before the landing on).
    moment: str
    somersaults: tuple[float, ...] = (1.5,)
    twists: tuple[float, ...] = (0.0,)
    positions: tuple[str, ...] = ("tuck", "pike")
    faults: Mapping[str, Range] = field(default_factory=dict)
    athletes: int = 1
    lag: Range = (0.0, 0.0)


_TIGHT = {"loose": (0.0, 0.2)}
_LOOSE = {"loose": (0.75, 1.0)}
_BENT = {"bent_knees": (0.75, 1.0)}
_TURNS = (1.5, 2.5, 3.5)

_FAST = (3.5, 4.5)

# fmt: off
CLASSES = {
    "TuckSlow": ClassSpec(_DIVES, "flight", (1.5,), (0,), ("tuck",), _TIGHT),
    "TuckFast": ClassSpec(_DIVES, "flight", _FAST, (0,), ("tuck",), _TIGHT),
    "TuckLoose": ClassSpec(_DIVES, "flight", _TURNS, (0,), ("tuck",), _LOOSE),
    "PikeSlow": ClassSpec(_DIVES, "flight", (1.5,), (0,), ("pike",), _TIGHT),
    "PikeFast": ClassSpec(_DIVES, "flight", _FAST, (0,), ("pike",), _TIGHT),
    "PikeLoose": ClassSpec(_DIVES, "flight", _TURNS, (0,), ("pike",), _LOOSE),
    "PikeBentKnees": ClassSpec(_DIVES, "flight", _TURNS, (0,), ("pike",), _BENT),
    "Layout": ClassSpec(_BED, "flight", (1, 2), (0,), ("layout",)),
    "LayoutBentKnees": ClassSpec(_BED, "flight", (1, 2), (0,), ("layout",), _BENT),
    "TwistOnce": ClassSpec(_JUMPS, "flight", (1,), (1, 1.5), ("layout",)),
    "TwistMany": ClassSpec(_JUMPS, "flight", (1,), (2.5, 3), ("layout",)),
    "EntryClean": ClassSpec(_DIVES, "end", _TURNS, faults={"splash": (0, 0.12)}),
    "EntrySplash": ClassSpec(_DIVES, "end", _TURNS, faults={"splash": (0.35, 0.5)}),
    "EntryBigSplash": ClassSpec(_DIVES, "end", _TURNS, faults={"splash": (0.8, 1)}),
    "EntryCrooked": ClassSpec(_DIVES, "end", _TURNS,
                              faults={"splash": (0.3, 0.6), "tilt": (0.7, 1)}),
    "LandingStill": ClassSpec(_JUMPS, "end", (1,), faults={"landing": (0, 0.12)}),
    "LandingStagger": ClassSpec(_JUMPS, "end", (1,), faults={"landing": (0.4, 0.58)}),
    "LandingFall": ClassSpec(_JUMPS, "end", (1,), faults={"landing": (0.78, 1)}),
    "RideAway": ClassSpec(_AIR, "end", (0, 1), (1, 2), ("grab",),
                          {"landing": (0, 0.25)}),
    "RideFall": ClassSpec(_AIR, "end", (0, 1), (1, 2), ("grab",),
                          {"landing": (0.75, 1)}),
    "SpinSlow": ClassSpec(_AIR, "flight", (0,), (1, 1.5), ("grab",), _TIGHT),
    "SpinFast": ClassSpec(_AIR, "flight", (0,), (3, 3.5), ("grab",), _TIGHT),
    "SpinLoose": ClassSpec(_AIR, "flight", (0,), (1, 2, 3), ("grab",), _LOOSE),
    "FlipSpin": ClassSpec(_AIR, "flight", (2, 3), (1, 2), ("grab",), _TIGHT),
    "PairTogether": ClassSpec(_PAIR, "flight", _TURNS, athletes=2, lag=(0, 0.4)),
    "PairApart": ClassSpec(_PAIR, "flight", _TURNS, athletes=2, lag=(3, 6)),
    "Run": ClassSpec(("gym_vault",), "approach"),
    "Stand": ClassSpec(("diving", "trampoline"), "approach"),
}
# fmt: on


@dataclass(frozen=True)
class ClipTask:
    """One clip to render."""

    folder: Path
    name: str
    index: int
    seed: int

    @property
    def group(self) -> int:
        """The clip's group, from 1."""
        return self.index // CLIPS_PER_GROUP + 1

    @property
    def label(self) -> str:
        """The clip's path in the lists."""
        clip = self.index % CLIPS_PER_GROUP + 1
        return f"{self.name}/v_{self.name}_g{self.group:02d}_c{clip:02d}.avi"


def synthesise_classes(
    folder: Path | str,
    videos_per_class: int = 40,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Render labelled clips into `folder` in UCF-101's layout, and return it.

    An interrupted call is continued by the same call.

    Raises:
        AqaError: other content in the folder, or too few videos for a test group.
    """
    root = Path(folder)
    groups = -(-videos_per_class // CLIPS_PER_GROUP)
    if groups < 2:
        raise AqaError(
            f"videos per class: expected at least {CLIPS_PER_GROUP + 1}, so that one "
            f"group is left for testing, found {videos_per_class}"
        )
    write_manifest(root, seed=seed, videos_per_class=videos_per_class)
    if (root / "classInd.txt").exists():
        return root
    tasks = [
        ClipTask(root, name, index, seed)
        for name in sorted(CLASSES)
        for index in range(videos_per_class)
    ]
    for name in CLASSES:
        (root / name).mkdir(parents=True, exist_ok=True)
    process_map(make_clip, tasks, workers, progress, lambda task: task.label)

    names = sorted(CLASSES)
    tested = max(1, round(groups / 4))
    train = [t for t in tasks if t.group > tested]
    test = [t for t in tasks if t.group <= tested]
    _write_lines(
        root / "trainlist01.txt",
        [f"{t.label} {names.index(t.name) + 1}" for t in train],
    )
    _write_lines(root / "testlist01.txt", [t.label for t in test])
    _write_lines(
        root / "classInd.txt", [f"{i} {name}" for i, name in enumerate(names, 1)]
    )
    return root


def _write_lines(path: Path, lines: list[str]) -> None:
    write_file(path, "".join(f"{line}\n" for line in lines))


def make_clip(task: ClipTask) -> None:
    """Render and encode one clip, unless it exists."""
    if (task.folder / task.label).exists():
        return
    spec, number = CLASSES[task.name], sorted(CLASSES).index(task.name)
    group = np.random.default_rng([task.seed, 101, task.group])
    rng = np.random.default_rng([task.seed, 102, number, task.index])
    action = spec.actions[int(group.integers(len(spec.actions)))]
    scale = float(group.uniform(48, 64) * (0.85 if spec.athletes == 2 else 1.0))
    look = vary(VENUES[action], "large", group, scale, second=spec.athletes == 2)
    performance = draw_clip(spec, action, rng)
    start, end = _window(spec, performance, rng)
    look = replace(look, seed=int(rng.integers(2**31)))
    write_video(
        task.folder / task.label, film(performance, look, start, end).pictures()
    )


def draw_clip(spec: ClassSpec, action: str, rng: np.random.Generator) -> Performance:
    """Sample a performance that contains the class's moment."""

    def one(of: tuple[float, ...]) -> float:
        return of[int(rng.integers(len(of)))]

    position = spec.positions[int(rng.integers(len(spec.positions)))]
    turns = one(spec.somersaults)
    if action == "gym_vault":
        turns = turns - 0.5
    element = Element(turns, one(spec.twists), position, bool(rng.random() < 0.5))
    phases = Phases(
        56 if action == "sync_diving_3m" else 32, int(rng.integers(38, 50)), 28
    )
    bare = Performance(action, (element,), phases, athletes=spec.athletes)
    take_off, end = bare.take_off(), bare.touch_down()
    faults = []
    for kind, amounts in spec.faults.items():
        amount = round(float(rng.uniform(*amounts)), 3)
        span = (end, end + 16) if kind in ("splash", "landing") else (take_off, end)
        faults += [
            Fault(kind, amount, *span, athlete) for athlete in range(spec.athletes)
        ]
    return replace(
        bare, faults=tuple(faults), lag=round(float(rng.uniform(*spec.lag)), 2)
    )


def _window(
    spec: ClassSpec, performance: Performance, rng: np.random.Generator
) -> tuple[int, int]:
    """Sample 16 to 24 frames [start, end) that show the class's moment."""
    length = int(rng.integers(16, 25))
    start, end = performance.take_off(), performance.touch_down()
    if spec.moment == "approach":
        first = start - 10 - length + int(rng.integers(0, 3))
    elif spec.moment == "flight":
        first = int(rng.integers(start + 3, max(end - length - 4, start + 4)))
    else:
        first = end - int(rng.integers(2, 6))
    return max(first, 0), max(first, 0) + length
