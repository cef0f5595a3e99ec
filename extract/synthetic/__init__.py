"""Synthetic data sets: rendered athletes whose visible quality sets their score.

Conventions: `synthesise` makes the AQA-7-shaped data set, `synthesise_classes` labelled
clips for pre-training; both return the folder that the readers take.
"""

from aqa.extract.synthetic.classes import synthesise_classes
from aqa.extract.synthetic.release import synthesise

__all__ = ["synthesise", "synthesise_classes"]
