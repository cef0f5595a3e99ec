"""Synthetic data sets: rendered athletes whose visible quality sets their score.

Conventions: `synthesise` makes the AQA-7-shaped data set, `synthesise_classes` labelled
clips for pre-training, `plant` videos with one known error; each returns the path that
the readers take.
"""

from aqa.extract.synthetic.classes import synthesise_classes
from aqa.extract.synthetic.dataset import synthesise
from aqa.extract.synthetic.planting import plant

__all__ = ["plant", "synthesise", "synthesise_classes"]
