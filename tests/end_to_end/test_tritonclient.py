"""NVIDIA's client, unchanged, against every way to a server."""

import importlib.metadata

from tests.end_to_end.checks_process import run_checks

# Older ones came with another protobuf, and pip takes one of years ago when versions do not fit together.
OLDEST = (2, 70)


def test_tritonclient_is_one_of_today():
    """What is tested is the client that people install now."""
    version = importlib.metadata.version("tritonclient")
    assert tuple(map(int, version.split(".")[:2])) >= OLDEST


def test_tritonclient_works_unchanged(target):
    """Every check of triton_checks passes."""
    run_checks("triton_checks.py", TARGET=target.to_json())


def test_tritonclient_shares_memory(plain):
    """Every check of triton_memory_checks passes, for a caller of the server's own machine."""
    run_checks("triton_memory_checks.py", TARGET=plain.to_json())
