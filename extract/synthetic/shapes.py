"""The poses that athletes pass through, by name.

Conventions: rows of `athlete.CHANNELS`, radians; a shape is held while turning.
"""

from aqa.extract.synthetic.athlete import Array, pose
from aqa.extract.synthetic.performance import Element

STAND = pose(shoulder=0.15)
REACH = pose(shoulder=3.05)
STRETCHED = pose(shoulder=3.05, point=1)
CROUCH = pose(hip=1.3, knee=1.6, spine=0.4, shoulder=-0.6)
ABSORB = pose(hip=0.9, knee=1.0, spine=0.3, shoulder=1.3, elbow=0.2)
FALLEN = pose(hip=1.5, knee=1.7, spine=0.5, shoulder=0.9, neck=0.2)
RUN = pose(spine=0.2, elbow=1.5, point=0.4)
GLIDE = pose(hip=1.0, knee=1.1, spine=0.5, shoulder=0.6, elbow=0.4)
POP = pose(hip=0.2, knee=0.2, shoulder=1.0, spread=0.4)
RIDE = pose(hip=0.6, knee=0.7, spine=0.3, shoulder=0.5, spread=0.7)
#: Added to every pose of a snowboarder.
STANCE = pose(apart=0.38)
#: Added on the trampoline's bed, and by bent knees at their worst.
GIVE = pose(hip=0.3, knee=0.4)
BENT = pose(hip=0.35, knee=1.7)

SHAPES = {
    "tuck": pose(hip=2.25, knee=2.35, spine=0.7, neck=0.4, shoulder=1.0, elbow=0.3),
    "pike": pose(hip=2.2, spine=0.6, neck=0.2, shoulder=1.9, point=1),
    "layout": pose(shoulder=0.5, elbow=2.0, spread=0.1, point=1),
    "grab": pose(hip=1.7, knee=1.7, spine=0.6, shoulder=0.9, apart=0.15),
}
#: What tuck, pike and grab open to, and layout closes to, when not held.
_OPENED = pose(hip=0.5, knee=0.6, shoulder=2.2, spread=0.7, spine=0.1)
_SAGGED = pose(hip=0.7, spine=0.2)


def shape_of(element: Element, loose: float) -> Array:
    """The shape that an element is turned in; `loose` is 0 to 1."""
    shape = SHAPES[element.position]
    if element.position == "layout":
        return shape + loose * _SAGGED
    return shape + 0.75 * loose * (_OPENED - shape)
