"""The feature cache: one HDF5 file between extraction and regression."""
