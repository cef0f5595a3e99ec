"""The jobs of `benchmarks/soak.py`."""
