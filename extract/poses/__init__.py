"""Poses: found in videos or read from files, tracked, and made into features."""
