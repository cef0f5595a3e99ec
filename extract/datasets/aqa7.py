"""The matrices of a MATLAB 5 file, read from its bytes and never beyond them.

Conventions: plain numeric matrices are read; of cells, structures, texts and the like
it is said what they are. Lengths and shapes are compared with what is there before
they are used, and a file unpacks to MOST_UNPACKED bytes at the most. SciPy's reader,
which knows every type, can be made to crash the process: hence this one.

Format: MathWorks, "MAT-File Format", level 5.

The train and test lists of AQA-7: MATLAB files, which may come from anywhere.

Conventions: a list is float64 (n, 3): action id 1-7, sample number from 1, score.
The authors' own lists hold scores times 100, other copies plain ones; Table 1's
ranges tell them apart, since no range meets itself times 100.

The released AQA-7 folder: its lists, its videos, or frames unpacked from them.

Conventions: keys are `diving/001`; only listed samples are taken, since a video
without a list has no label and no part. The lists say nothing of trampoline: an action
that is asked for by name and in no list comes whole, unlabelled. A sample NNN of an
action lies at one of

    Actions/<action>/NNN.avi            as released
    Actions/<action>/frames/NNN/*.jpg   frames, as some repositories unpack them
    <action>-out/NNN/img_00001.jpg      frames, as most do

and the lists are Split_4/split_4_{train,test}_list.mat, or bear the names of the
variables inside them.
"""

import math
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from aqa.cache.actions import ACTIONS, BY_NAME, EXPERIMENT_ACTIONS
from aqa.cache.errors import AqaError, printable
from aqa.extract.datasets.dataset import (
    Dataset,
    DatasetError,
    Problems,
    Tree,
    Video,
    chosen,
)

MOST_UNPACKED = 8 << 20

_MATRIX, _COMPRESSED = 14, 15
_INT8, _INT32, _UINT32 = 1, 5, 6
#: How values can be stored, whatever the type of the matrix: NumPy's codes.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_STORED |= {12: "i8", 13: "u8"}
_KINDS = (
    *("cell", "struct", "object", "char", "sparse", "double", "single"),
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
)
_COMPLEX, _LOGICAL = 0x800, 0x200


class MatError(ValueError):
    """What is not as the format has it, in one line."""


@dataclass(frozen=True)
class Matrix:
    """A variable as the file declares it; `kind` is MATLAB's name for its type."""

    name: str
    kind: str
    shape: tuple[int, ...]
    order: str
    stored: memoryview

    def numbers(self) -> NDArray[np.float64]:
        """Its values, of its shape. Raises MatError unless just those are there."""
        kind, values, _ = _element(self.stored, 0, self.order)
        if kind not in _STORED:
            raise MatError(f"{self.name} holds values of type {kind}")
        code = np.dtype(self.order + _STORED[kind])
        # In Python's numbers: NumPy's own product would wrap.
        if math.prod(self.shape) * code.itemsize != len(values):
            raise MatError(f"{self.name} is {self.shape}, but has {len(values)} bytes")
        numbers = np.frombuffer(values, code).astype(np.float64)
        return numbers.reshape(self.shape, order="F")


def read_matrices(data: bytes) -> dict[str, Matrix]:
    """All variables of a file by name. Raises MatError where it is not sound."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or struct.unpack_from(order + "H", data, 124)[0] != 0x100:
        raise MatError("no header of MATLAB 5")
    matrices = {}
    view, at, room = memoryview(data), 128, MOST_UNPACKED
    while at < len(view):
        kind, body, at = _element(view, at, order)
        if kind == _COMPRESSED:
            body = _unpacked(body, room)
            room -= len(body)
            kind, body, _ = _element(body, 0, order)
        if kind != _MATRIX:
            raise MatError(f"an element of type {kind} in the place of a variable")
        matrix = _matrix(body, order)
        matrices[matrix.name] = matrix
    return matrices


def _matrix(body: memoryview, order: str) -> Matrix:
    """Flags, sizes and name come first, each an element of its own."""
    flag_kind, flags, at = _element(body, 0, order)
    size_kind, sizes, at = _element(body, at, order)
    name_kind, name, at = _element(body, at, order)
    if (flag_kind, size_kind, name_kind) != (_UINT32, _INT32, _INT8) or len(flags) != 8:
        raise MatError("a variable without flags, sizes and name")
    if len(sizes) % 4 or not 8 <= len(sizes) <= 128:
        raise MatError(f"sizes of {len(sizes)} bytes")
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    if min(shape) < 0:
        raise MatError(f"a variable of shape {shape}")
    word = struct.unpack_from(order + "I", flags)[0]
    number = word & 0xFF
    kind = _KINDS[number - 1] if 1 <= number <= len(_KINDS) else f"class {number}"
    if word & _LOGICAL:
        kind = "logical"
    if word & _COMPLEX:
        kind = f"complex {kind}"
    return Matrix(bytes(name).decode("latin-1"), kind, shape, order, body[at:])


def _element(data: memoryview, at: int, order: str) -> tuple[int, memoryview, int]:
    """Type and content of the element at a place, and where the next one begins."""
    if at + 8 > len(data):
        raise MatError(f"it ends at {len(data)}, before an element")
    kind, size = struct.unpack_from(order + "II", data, at)
    if kind >> 16:  # up to four bytes lie in the tag itself
        kind, size = kind & 0xFFFF, kind >> 16
        start, following = at + 4, at + 8
        fits = size <= 4
    else:
        start = at + 8
        # All but what is compressed is filled up to a multiple of eight bytes.
        following = start + size + (0 if kind == _COMPRESSED else -size % 8)
        fits = start + size <= len(data)
    if not fits:
        raise MatError(f"an element of {size} bytes where fewer are left")
    return kind, data[start : start + size], following


def _unpacked(body: memoryview, room: int) -> memoryview:
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(body, max(room, 1))
    except zlib.error as error:
        raise MatError(f"a compressed variable is damaged ({error})") from error
    if not unpacker.eof:
        raise MatError(f"a variable is cut off, or all are over {MOST_UNPACKED} bytes")
    return memoryview(unpacked)


#: The released files are 3 kB; more cannot be a list, and may be a trap.
MOST_BYTES = 1 << 20
MOST_ROWS = 100_000
NUMERIC = {"double", "single"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
#: Judges' scores have at most four decimals; times 100 and back must not show.
DECIMALS = 6


def read_split_list(path: Path, variable: str) -> npt.NDArray[np.float64]:
    """Rows (action id, sample number, score as written) of one list, (n, 3).

    Only `variable` is loaded, and only after its declared type and shape were
    found to be a list's.

    Raises:
        AqaError: the file is no such list; says what it is.
    """
    if (size := path.stat().st_size) > MOST_BYTES:
        raise AqaError(f"{path.name}: expected a list of some kB, found {size} bytes")
    try:
        matrices = read_matrices(path.read_bytes())
    except MatError as error:
        raise AqaError(f"{path.name}: not a MATLAB file ({error})") from error
    if variable not in matrices:
        found = ", ".join(map(printable, sorted(matrices))) or "nothing"
        raise AqaError(f"{path.name}: expected a variable {variable}, found {found}")
    matrix = matrices[variable]
    shape, kind = matrix.shape, matrix.kind
    good = len(shape) == 2 and 0 < shape[0] <= MOST_ROWS and shape[1] == 3
    if kind not in NUMERIC or not good:
        raise AqaError(
            f"{path.name}: expected {variable} to be numbers (n, 3) with at most "
            f"{MOST_ROWS} rows, found {kind} {shape}"
        )
    try:
        rows = matrix.numbers()
    except MatError as error:
        raise AqaError(f"{path.name}: cannot be read ({error})") from error
    if not np.isfinite(rows).all():
        raise AqaError(f"{path.name}: expected {variable} to hold finite real numbers")
    return rows


def in_judges_units(
    scores: npt.NDArray[np.float64], ids: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Scores in judges' units; which were times 100; which fit neither form.

    `ids` are action ids 1-7, one for each score. A score that fits neither form is
    handed back as it was written.
    """
    low, high = np.array([action.score_range for action in ACTIONS])[ids - 1].T
    hundredth = np.round(scores / 100, DECIMALS)
    plain = np.round(scores, DECIMALS)
    is_hundredfold = (low <= hundredth) & (hundredth <= high)
    is_plain = (low <= plain) & (plain <= high)
    units = np.where(is_hundredfold, hundredth, plain)
    return units, is_hundredfold, ~is_hundredfold & ~is_plain


SPLITS = ("train", "test")


def find_release(path: Path) -> Path | None:
    """The release at `path` or at `path`/AQA-7; None where neither looks like one."""
    for root in (path, path / "AQA-7"):
        folders = [root / f"{action.name}-out" for action in ACTIONS]
        folders += [root / "Actions" / action.name for action in ACTIONS]
        lists = (_list_path(root, split) for split in SPLITS)
        if any(lists) or any(map(Path.is_dir, folders)):
            return root
    return None


def read_release(root: Path, actions: tuple[str, ...] | None) -> Dataset:
    """The listed samples of `actions`, by default the six of the experiments.

    Raises:
        DatasetError: names every list, row and video that is not as it should be.
    """
    problems = Problems(root)
    for action in actions or ():
        if action not in BY_NAME:
            known = ", ".join(BY_NAME)
            problems.add("unknown action", f"{action}; AQA-7 has {known}")
    problems.check()
    samples, is_hundredfold = _listed(root, problems)
    for action in set(actions or ()) - {action for action, _, _, _ in samples}:
        samples += [(action, number, "", math.nan) for number in _numbers(root, action)]
    present = {action for action, _, _, _ in samples}
    wanted = chosen(
        actions or tuple(name for name in EXPERIMENT_ACTIONS if name in present),
        present,
        problems,
    )
    tree = Tree(root)
    videos = []
    for action, number, split, score in samples:
        if wanted(action) and (path := _find_video(tree, action, number, problems)):
            key = f"{action}/{number:03d}"
            videos.append(Video(key, path, action, split, score))
    problems.check()
    if not videos:
        raise DatasetError(f"{root}: no sample of the six actions; name another")
    videos.sort(key=lambda video: video.key)
    notes = _notes(videos, is_hundredfold, present)
    return Dataset(root, "aqa-7", tuple(videos), tuple(notes))


def _list_path(root: Path, split: str) -> Path | None:
    names = (f"split_4_{split}_list.mat", f"consolidated_{split}_list.mat")
    for folder in (root / "Split_4", root):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def _listed(
    root: Path, problems: Problems
) -> tuple[list[tuple[str, int, str, float]], bool]:
    """All samples (action, number, split, score), and whether scores were times 100."""
    rows, splits = [], []
    for split in SPLITS:
        path = _list_path(root, split)
        if path is None:
            problems.add(
                "missing list",
                f"expected Split_4/split_4_{split}_list.mat, or Split_4/"
                f"consolidated_{split}_list.mat; for unlabelled videos give a folder "
                "without this layout",
            )
            continue
        try:
            if not Tree(root).holds(str(path)):
                raise AqaError(f"{path.name} is a link out of {root}")
            found = read_split_list(path, f"consolidated_{split}_list")
        except AqaError as error:
            problems.add("unusable list", str(error))
            continue
        rows.append(found)
        splits += [(split, row + 1) for row in range(len(found))]
    problems.check()

    table = np.concatenate(rows)
    ids, numbers, scores = table.T
    good = (ids % 1 == 0) & (1 <= ids) & (ids <= len(ACTIONS))
    good &= (numbers % 1 == 0) & (1 <= numbers) & (numbers < 1e5)
    for index in np.flatnonzero(~good).tolist():
        split, row = splits[index]
        problems.add(
            f"expected an action id 1-{len(ACTIONS)} and a sample number from 1",
            f"{split} row {row} has {ids[index]:g} and {numbers[index]:g}",
        )
    problems.check()

    whole = ids.astype(np.int64)
    units, hundredfold, strange = in_judges_units(scores, whole)
    samples = []
    for index, (split, _) in enumerate(splits):
        action = ACTIONS[whole[index] - 1]
        number, score = int(numbers[index]), float(units[index])
        samples.append((action.name, number, split, score))
        if strange[index]:
            low, high = action.score_range
            problems.add(
                "score outside the action's range",
                f"{action.name}/{number:03d} ({split}) has {scores[index]:g}, expected "
                f"{low:g} to {high:g}, or that times 100",
            )
    times = int(hundredfold.sum())
    plain = len(table) - times - int(strange.sum())
    if times and plain:
        problems.add(
            "lists mix scores that are plain and times 100",
            f"{plain} plain, {times} times 100; expected one form in both lists",
        )
    _check_repeats(samples, problems)
    return samples, times > 0


def _check_repeats(
    samples: list[tuple[str, int, str, float]], problems: Problems
) -> None:
    seen: dict[tuple[str, int], str] = {}
    for action, number, split, _ in samples:
        before = seen.setdefault((action, number), "")
        if before == split:
            problems.add(f"sample twice in the {split} list", f"{action}/{number:03d}")
        elif before:
            problems.add("sample in both lists", f"{action}/{number:03d}")
        seen[action, number] = split


def _find_video(
    tree: Tree, action: str, number: int, problems: Problems
) -> Path | None:
    """Where a sample lies; notes a problem and gives None if nowhere."""
    places = list(_places(action, number))
    for place in places:
        try:
            if tree.has(place):
                return tree.root / place
        except AqaError as error:
            problems.add("video outside the data set", str(error))
            return None
    problems.add("missing video", places[0])
    return None


def _places(action: str, number: int) -> Iterator[str]:
    yield f"Actions/{action}/{number:03d}.avi"
    yield f"Actions/{action}/frames/{number:03d}"
    yield f"{action}-out/{number:03d}"


def _numbers(root: Path, action: str) -> list[int]:
    """Sample numbers of an action whose video lies somewhere, listed or not."""
    folders = {(root / place).parent for place in _places(action, 0)}
    names = {path.name for folder in folders for path in folder.glob("[0-9]*")}
    stems = {name.removesuffix(".avi") for name in names}
    numbers = {int(stem) for stem in stems if re.fullmatch("[0-9]{3,5}", stem)}
    return sorted(
        number
        for number in numbers - {0}
        if any((root / place).exists() for place in _places(action, number))
    )


def _notes(
    videos: list[Video], is_hundredfold: bool, present: set[str]
) -> Iterator[str]:
    form = "times 100, and were divided" if is_hundredfold else "plain"
    yield f"scores in the lists are {form}"
    counts = Counter((video.action, video.split) for video in videos)
    by_split = Counter(video.split for video in videos)
    differing = []
    for action in ACTIONS:
        found = tuple(counts[action.name, split] for split in SPLITS)
        if any(found) and action.train and found != (action.train, action.test):
            differing.append(
                f"{action.name} {found[0]} train, {found[1]} test "
                f"(released: {action.train}, {action.test})"
            )
    train, test, rest = (by_split[split] for split in (*SPLITS, ""))
    total = f"{train} train, {test} test"
    if differing:
        yield f"{total}; not as released: {'; '.join(differing)}"
    elif train or test:
        yield f"{total}, as released"
    if rest:
        unlisted = sorted({video.action for video in videos if not video.split})
        yield (
            f"{rest} videos in no list, unlabelled: {', '.join(unlisted)}; "
            "`aqa cache relabel` gives them labels"
        )
    left_out = present - {video.action for video in videos}
    if left_out:
        yield f"listed, but not asked for: {', '.join(sorted(left_out))}"
