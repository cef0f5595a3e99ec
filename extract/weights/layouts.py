"""Parameter names of public C3D weights, and the preset that each goes with.

Conventions: "theirs" are names in a file, "ours" are Caffe's (`conv1a.weight` ...
`fc6.bias`). A layout maps their layers to ours and names the layers after FC-6, which
are left aside, as is everything outside the network's own prefix. Any other missing or
surplus name is an error: a layer that stays random runs and gives useless features.

Presets follow the origin: weights converted from Caffe go with Caffe's last pooling
("ceil") even in a port that pads; weights trained or fine-tuned in PyTorch go with the
padding that they were trained with.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from aqa.cache.errors import brief
from aqa.extract.c3d import ARCHITECTURES, Architecture
from aqa.extract.preprocessing import PRESETS, Preprocessing
from aqa.extract.weights.formats import WeightsError

_C3D = PRESETS["c3d"]
#: The same mean, rounded as in video-caffe and the PyTorch ports.
_ROUNDED = replace(_C3D, mean=(90.0, 98.0, 102.0))
#: Channel means that stand for the mean cube which Caffe's C3D was trained with.
CHANNEL_MEANS = (_C3D.mean, _ROUNDED.mean)
FROM_CAFFE = "converted from Caffe, or Caffe's own"

_CONVOLUTIONS = (
    *("conv1a", "conv2a", "conv3a", "conv3b"),
    *("conv4a", "conv4b", "conv5a", "conv5b"),
)
#: Places of the convolutions in c3d-pretrained.pth's `features`.
_R_C3D = (0, 3, 6, 8, 11, 13, 16, 18)


@dataclass(frozen=True)
class Layout:
    """A naming of the layers.

    `converted` and `trained` are pre-processing and last pooling of weights converted
    from Caffe and trained in PyTorch.
    """

    name: str
    layers: Mapping[str, str]
    aside: tuple[str, ...]
    converted: tuple[Preprocessing, str]
    trained: tuple[Preprocessing, str]

    @property
    def first(self) -> str:
        """Their name of the first layer, by which a layout is recognised."""
        return next(iter(self.layers))

    @property
    def fc6(self) -> list[str]:
        """Their names of FC-6."""
        return [theirs for theirs, ours in self.layers.items() if ours == "fc6"]


LAYOUTS = (
    Layout(
        "Caffe's names",
        {name: name for name in (*_CONVOLUTIONS, "fc6")} | {"fc6-1": "fc6"},
        ("fc7", "fc8", "fc7-1", "fc8-1"),
        converted=(_C3D, "ceil"),
        trained=(_C3D, "padded"),
    ),
    Layout(
        "c3d.pickle",
        {"conv1": "conv1a", "conv2": "conv2a"}
        | {name: name for name in (*_CONVOLUTIONS[2:], "fc6")},
        ("fc7", "fc8"),
        converted=(_C3D, "ceil"),
        trained=(_ROUNDED, "padded"),
    ),
    Layout(
        "c3d-pretrained.pth",
        dict(zip(map("features.{}".format, _R_C3D), _CONVOLUTIONS, strict=True))
        | {"classifier.0": "fc6"},
        ("classifier.3", "classifier.6"),
        converted=(_ROUNDED, "ceil"),
        trained=(_ROUNDED, "padded"),
    ),
    Layout(
        "mmaction2",
        {f"{name}.conv": name for name in _CONVOLUTIONS} | {"fc6": "fc6"},
        ("fc7", "cls_head.fc_cls"),
        converted=(PRESETS["mmaction"], "ceil"),
        trained=(PRESETS["mmaction"], "padded"),
    ),
)

#: Counters that the profiler thop leaves in a state dict.
_COUNTERS = ("total_ops", "total_params")
#: What DataParallel and torch.compile insert into names.
_INSERTED = ("module", "_orig_mod")


@dataclass(frozen=True)
class Match:
    """Where a network's parameters are in a file.

    `names` maps Caffe's names to the file's, in the network's order.
    """

    layout: str
    arch: str
    names: Mapping[str, str]
    left_aside: tuple[str, ...]


def match(shapes: Mapping[str, tuple[int, ...]]) -> Match:
    """Find the parameters of a C3D among arrays of the given names and shapes.

    Raises:
        WeightsError: another network, or a list of every missing, surplus and
            misshapen parameter.
    """
    plain = {name: _plain(name) for name in shapes}
    layout, prefix = _recognise(plain.values())
    theirs: dict[str, str] = {}
    aside, problems = [], []
    for name, whole in plain.items():
        inner = whole.removeprefix(prefix)
        layer, _, part = inner.rpartition(".")
        ours = f"{layout.layers[layer]}.{part}" if layer in layout.layers else None
        if not whole.startswith(prefix) or layer in layout.aside or part in _COUNTERS:
            aside.append(name)
        elif ours is None or part not in ("weight", "bias"):
            problems.append(f"surplus {name}")
        elif ours in theirs:
            problems.append(f"{theirs[ours]} and {name} are both {ours}")
        else:
            theirs[ours] = name
    arch = _architecture(shapes.get(theirs.get("fc6.weight", "")))
    expected = arch.shapes()
    problems += [f"missing {name}" for name in expected if name not in theirs]
    problems += [f"surplus {theirs[name]}" for name in theirs if name not in expected]
    problems += [
        f"{theirs[name]} is {shapes[theirs[name]]}, not {shape}"
        for name, shape in expected.items()
        if name in theirs and shapes[theirs[name]] != shape
    ]
    if problems:
        raise WeightsError(f"not a whole {arch.name}: {_some(problems)}")
    names = {name: theirs[name] for name in expected}
    return Match(layout.name, arch.name, names, tuple(aside))


def _plain(name: str) -> str:
    """Return a name without what is inserted behind its front."""
    parts = name.split(".")
    front = list(itertools.takewhile(lambda part: part in _INSERTED, parts))
    rest = (part for part in parts[len(front) :] if part not in _INSERTED)
    return ".".join([*front, *rest])


def _recognise(names: Iterable[str]) -> tuple[Layout, str]:
    """Return the layout of the names, and the prefix that wrapping modules added.

    DataParallel, compile, Lightning and the like put `module.`, `_orig_mod.`, `model.`
    in front of all names, and a recogniser puts its network under `backbone.`: the
    prefix is whatever stands in front of the first layer's name.

    Raises:
        WeightsError: a network that is not C3D, or several of them.
    """
    found = set(names)
    parts = {part for name in found for part in name.split(".")}
    if any(part.startswith("bn") or part == "running_mean" for part in parts):
        raise WeightsError(
            "a network with batch normalisation (MTL-AQA's own small net, Res3D or "
            "another), not the C3D that has an FC-6. Features made elsewhere come in "
            "by `aqa cache import`"
        )
    candidates = []
    for layout in LAYOUTS:
        first = f"{layout.first}.weight"
        for name in sorted(found):
            prefix = name.removesuffix(first)
            if name.endswith(first) and (not prefix or prefix.endswith(".")):
                candidates.append((layout, prefix))
    whole = [
        (layout, prefix)
        for layout, prefix in candidates
        if any(f"{prefix}{fc6}.weight" in found for fc6 in layout.fc6)
    ]
    if len(whole) > 1:
        listed = _some(f"{prefix}{layout.first}" for layout, prefix in whole)
        raise WeightsError(f"several networks ({listed}); save the one to be used")
    if whole or len(candidates) == 1:
        return (whole or candidates)[0]
    raise WeightsError(
        f"not a C3D: found {_some(names)}; expected conv1a.weight (or conv1.weight, "
        "features.0.weight, conv1a.conv.weight) to fc6.bias. Features of other "
        "networks come in by `aqa cache import`"
    )


def _architecture(fc6: tuple[int, ...] | None) -> Architecture:
    """Return the architecture whose `fc6.weight` has this shape."""
    known = {(arch.features, arch.pooled): arch for arch in ARCHITECTURES.values()}
    if fc6 is None:
        raise WeightsError("no fc6.weight: FC-6 is the feature, nothing replaces it")
    if fc6[::-1] in known:
        raise WeightsError(
            f"fc6.weight is {fc6}, transposed, as TensorFlow and Keras store it. Their "
            "inputs of FC-6 are in another order, too: (time, row, column, channel) "
            "where C3D has (channel, time, row, column); reorder both"
        )
    if fc6 not in known:
        listed = ", ".join(f"{arch.name} {shape}" for shape, arch in known.items())
        raise WeightsError(f"fc6.weight is {fc6}; expected one of: {listed}")
    return known[fc6]


def origin_of(name: str, container: str, trained: bool) -> tuple[Preprocessing, str]:
    """Return the pre-processing and last pooling that weights of a layout go with.

    Args:
        name: of the layout.
        container: the file format in words.
        trained: in PyTorch, not converted from Caffe.
    """
    if container == "Caffe, new generation":
        return _ROUNDED, "ceil"
    layout = next(layout for layout in LAYOUTS if layout.name == name)
    return layout.trained if trained else layout.converted


def _some(names: Iterable[str], most: int = 8) -> str:
    """List the first few, and how many more there are."""
    listed = [brief(name) for name in names]
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")
