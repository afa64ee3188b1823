"""NVIDIA's client, unchanged, against every way to a server."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

CHECKS = Path(__file__).with_name("triton_checks.py")
MEMORY_CHECKS = Path(__file__).with_name("triton_memory_checks.py")
# Older ones came with another protobuf, and pip takes one of years ago when versions do not fit together.
OLDEST = (2, 70)
TIMEOUT_S = 120


def test_tritonclient_is_one_of_today():
    """What is tested is the client that people install now."""
    version = importlib.metadata.version("tritonclient")
    assert tuple(map(int, version.split(".")[:2])) >= OLDEST


def run_checks(checks, target):
    """Run checks in a process of their own; the output of the run is the message when one does not pass."""
    command = [sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", "-o", "addopts=", str(checks)]
    environment = os.environ | {"TARGET": target.to_json()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def test_tritonclient_works_unchanged(target):
    """Every check of triton_checks passes."""
    run_checks(CHECKS, target)


def test_tritonclient_shares_memory(plain):
    """Every check of triton_memory_checks passes, for a caller of the server's own machine."""
    run_checks(MEMORY_CHECKS, plain)
