"""Synthetic data sets: rendered athletes whose visible quality determines their score.

Conventions: `synthesise` renders a data set of AQA-7's shape and returns the path that
the readers take.
"""

from aqa.extract.synthetic.dataset import synthesise

__all__ = ["synthesise"]
