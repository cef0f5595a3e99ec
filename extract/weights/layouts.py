"""The names that public C3D weights go by, and what each was trained with.

Conventions: "theirs" are names in a file, "ours" are Caffe's (`conv1a.weight` ...
`fc6.bias`). A layout maps their layers to ours and names the layers past FC-6 that
are left aside. Nothing else is forgiven: a missing or a surplus name is an error,
for a layer that stays random "still runs" and gives features that mean nothing.

Presets follow the origin. Weights converted from Caffe go with Caffe's pooling
("ceil") even where the port that carries them pads; weights trained or fine-tuned
in PyTorch go with the padding that they were trained with.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from aqa.cache.errors import brief
from aqa.extract.c3d import ARCHITECTURES, Architecture
from aqa.extract.preprocessing import PRESETS, Preprocessing
from aqa.extract.weights.formats import WeightsError

_C3D = PRESETS["c3d"]
#: The same mean as video-caffe and the PyTorch ports round it.
_ROUNDED = replace(_C3D, mean=(90.0, 98.0, 102.0))

_CONVOLUTIONS = (
    *("conv1a", "conv2a", "conv3a", "conv3b"),
    *("conv4a", "conv4b", "conv5a", "conv5b"),
)


@dataclass(frozen=True)
class Layout:
    """One way of naming the layers; `converted` and `trained` are its two origins.

    Each origin is a pre-processing and a pooling.
    """

    name: str
    layers: Mapping[str, str]
    aside: tuple[str, ...]
    converted: tuple[Preprocessing, str]
    trained: tuple[Preprocessing, str]

    @property
    def first(self) -> str:
        """Their name of the first layer, by which a layout is known."""
        return next(iter(self.layers))


LAYOUTS = (
    Layout(
        "Caffe's names",
        {name: name for name in (*_CONVOLUTIONS, "fc6")} | {"fc6-1": "fc6"},
        ("fc7", "fc8", "fc7-1", "fc8-1"),
        (_C3D, "ceil"),
        (_C3D, "padded"),
    ),
    Layout(
        "c3d.pickle",
        dict(zip(("conv1", "conv2"), _CONVOLUTIONS, strict=False))
        | {name: name for name in (*_CONVOLUTIONS[2:], "fc6")},
        ("fc7", "fc8"),
        (_C3D, "ceil"),
        (_ROUNDED, "padded"),
    ),
    Layout(
        "c3d-pretrained.pth",
        dict(
            zip(
                [f"features.{index}" for index in (0, 3, 6, 8, 11, 13, 16, 18)],
                _CONVOLUTIONS,
                strict=True,
            )
        )
        | {"classifier.0": "fc6"},
        ("classifier.3", "classifier.6"),
        (_ROUNDED, "ceil"),
        (_ROUNDED, "padded"),
    ),
    Layout(
        "mmaction2",
        {f"{name}.conv": name for name in _CONVOLUTIONS} | {"fc6": "fc6"},
        ("fc7", "cls_head.fc_cls"),
        (PRESETS["mmaction"], "ceil"),
        (PRESETS["mmaction"], "padded"),
    ),
)


def bare_names(names: Iterable[str]) -> dict[str, str]:
    """Map names without the prefixes of wrapping modules to the names in the file.

    Raises:
        WeightsError: where two names become one.
    """
    theirs = list(names)
    wrapped = all(name.startswith("module.") for name in theirs)
    bare: dict[str, str] = {}
    for name in theirs:
        inner = name.removeprefix("module.") if wrapped else name
        short = inner.removeprefix("backbone.")
        if short in bare:
            both = f"{brief(bare[short])} and {brief(name)}"
            raise WeightsError(f"{both} are both {brief(short)}")
        bare[short] = name
    return bare


def recognise(names: Iterable[str]) -> Layout:
    """Tell the layout from bare names.

    Raises:
        WeightsError: for a network that is not C3D, or has no FC-6.
    """
    found = list(names)
    parts = {part for name in found for part in name.split(".")}
    if any(part.startswith("bn") or part == "running_mean" for part in parts):
        raise WeightsError(
            "a network with batch normalisation (MTL-AQA's own small net, Res3D or "
            "another), not the C3D that has an FC-6. Features made elsewhere come in "
            "by `aqa cache import`"
        )
    for layout in LAYOUTS:
        if f"{layout.first}.weight" in found:
            return layout
    raise WeightsError(
        f"not a C3D: found {_some(found)}; expected conv1a.weight (or conv1.weight, "
        "features.0.weight, conv1a.conv.weight) to fc6.bias. Features of other "
        "networks come in by `aqa cache import`"
    )


def architecture_of(fc6: tuple[int, ...] | None) -> Architecture:
    """Tell the architecture from the shape of `fc6.weight`."""
    known = {(arch.features, arch.pooled): arch for arch in ARCHITECTURES.values()}
    if fc6 is None:
        raise WeightsError("no fc6.weight: FC-6 is the feature, nothing replaces it")
    if fc6 not in known:
        listed = ", ".join(f"{arch.name} {shape}" for shape, arch in known.items())
        raise WeightsError(f"fc6.weight is {fc6}; expected one of: {listed}")
    return known[fc6]


def match(
    shapes: Mapping[str, tuple[int, ...]], layout: Layout
) -> tuple[Architecture, dict[str, str], tuple[str, ...]]:
    """Match a file's bare names and shapes with the parameters of a network.

    Returns the architecture, their name for each of ours, and the names left aside.

    Raises:
        WeightsError: listing every missing, surplus and misshapen parameter.
    """
    theirs: dict[str, str] = {}
    aside, problems = [], []
    for name in shapes:
        layer, _, part = name.rpartition(".")
        ours = f"{layout.layers[layer]}.{part}" if layer in layout.layers else None
        if layer in layout.aside:
            aside.append(name)
        elif ours is None or part not in ("weight", "bias"):
            problems.append(f"surplus {name}")
        elif ours in theirs:
            problems.append(f"{theirs[ours]} and {name} are both {ours}")
        else:
            theirs[ours] = name
    fc6 = theirs.get("fc6.weight")
    arch = architecture_of(shapes[fc6] if fc6 else None)
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
    return arch, theirs, tuple(aside)


def origin_of(
    layout: Layout, container: str, trained: bool
) -> tuple[Preprocessing, str]:
    """Pre-processing and pooling that such weights were trained with."""
    if container == "Caffe, new generation":
        return _ROUNDED, "ceil"
    return layout.trained if trained else layout.converted


def _some(names: Iterable[str], most: int = 8) -> str:
    """List the first few, and how many more there are."""
    listed = [brief(name) for name in names]
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")
