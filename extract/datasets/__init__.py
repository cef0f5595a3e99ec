"""Data sets: one module per layout, read through `reader`."""
