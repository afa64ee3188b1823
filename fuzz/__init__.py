"""Fuzzing of what reads a peer's bytes, guided by coverage: `python -m fuzz --help`."""
