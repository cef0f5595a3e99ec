"""Evaluation: how well predictions agree with the judges, and how sure that is."""
