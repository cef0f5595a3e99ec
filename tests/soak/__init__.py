"""Long attacks on what RELIABILITY.md promises: `make soak`."""
