"""Experiments: which heads each one needs and how it judges them."""
