"""An athlete's body as it is drawn: parts, colours, order in depth.

Conventions: points are (T, points, 3) with image positions in pixels and depth in
metres, nearer is larger; the nearer part covers the farther one, far limbs are in
the shade, and chest and back of the head have colours of their own, so that twists
are seen.
"""

import numpy as np

from aqa.extract.synthetic.athlete import POINT, Array
from aqa.extract.synthetic.drawing import Colour, Image, capsule
from aqa.extract.synthetic.look import Look

#: From, to, radii in metres, and the field of `Look` that colours it.
PARTS = (
    ("pelvis", "neck", 0.125, 0.15, "suit"),
    ("head", "head", 0.115, 0.115, "skin"),
    *(
        part
        for side in ("_l", "_r")
        for part in (
            (f"hip{side}", f"knee{side}", 0.095, 0.07, "legs"),
            (f"knee{side}", f"ankle{side}", 0.066, 0.045, "legs"),
            (f"ankle{side}", f"toe{side}", 0.045, 0.03, "legs"),
            (f"shoulder{side}", f"elbow{side}", 0.056, 0.047, "sleeves"),
            (f"elbow{side}", f"hand{side}", 0.046, 0.03, "skin"),
        )
    ),
)


class Body:
    """One athlete throughout a video, ready to be drawn in any frame."""

    def __init__(self, points: Array, look: Look) -> None:
        """Lay out all parts, frame by frame."""
        scale = look.scale
        pieces = [(points[:, POINT[p[0]]], points[:, POINT[p[1]]]) for p in PARTS]
        radii = [(p[2], p[3]) for p in PARTS]
        colours: list[Colour] = [getattr(look, p[4]) for p in PARTS]
        pieces += [_chest(points, scale), _hair(points)]
        radii += [(0.07, 0.09), (0.1, 0.1)]
        colours += [look.accent, look.hair]
        gear = _gear(points, look.gear)
        pieces += gear
        radii += [(0.04, 0.04)] * len(gear)
        colours += [look.accent] * len(gear)
        self.start = np.stack([start for start, _ in pieces], axis=1)
        self.end = np.stack([end for _, end in pieces], axis=1)
        self.radii = [(scale * a, scale * b) for a, b in radii]
        depth = (self.start[..., 2] + self.end[..., 2]) / 2
        self.order = np.argsort(depth, axis=1, kind="stable")
        light = np.clip(0.92 + 0.5 * depth, 0.72, 1.08)
        self.colours = np.minimum(np.array(colours) * light[..., None], 255.0)

    def draw(self, image: Image, frame: int) -> None:
        """Draw the athlete on one picture."""
        start, end = self.start[frame].tolist(), self.end[frame].tolist()
        colours = self.colours[frame]
        for part in self.order[frame].tolist():
            capsule(
                image, start[part][:2], end[part][:2], self.radii[part], colours[part]
            )


def _chest(points: Array, scale: float) -> tuple[Array, Array]:
    """A panel in front of the trunk."""
    metric = np.array([1 / scale, -1 / scale, 1.0])
    pelvis, neck = points[:, POINT["pelvis"]], points[:, POINT["neck"]]
    across = points[:, POINT["shoulder_r"]] - points[:, POINT["shoulder_l"]]
    front = np.cross((neck - pelvis) * metric, across * metric)
    front *= 0.09 / np.maximum(np.linalg.norm(front, axis=1, keepdims=True), 1e-6)
    front /= metric
    return 0.7 * pelvis + 0.3 * neck + front, 0.1 * pelvis + 0.9 * neck + front


def _hair(points: Array) -> tuple[Array, Array]:
    """The back of the head, or a helmet."""
    head, nose = points[:, POINT["head"]], points[:, POINT["nose"]]
    back = head + 0.45 * (head - nose)
    return back, back


def _gear(points: Array, gear: str) -> list[tuple[Array, Array]]:
    """Two skis along the feet, one board across them, or nothing."""
    ankles = [points[:, POINT[f"ankle_{side}"]] for side in ("l", "r")]
    toes = [points[:, POINT[f"toe_{side}"]] for side in ("l", "r")]
    if gear == "board":
        along = ankles[1] - ankles[0]
        return [(ankles[0] - 0.45 * along, ankles[1] + 0.45 * along)]
    if gear == "skis":
        feet = [(a, toe - a) for a, toe in zip(ankles, toes, strict=True)]
        return [(ankle - 3.2 * foot, ankle + 5.0 * foot) for ankle, foot in feet]
    return []
