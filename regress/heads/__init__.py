"""Heads: what turns a video's cached features into a score."""
