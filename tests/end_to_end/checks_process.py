"""Runs a file of checks with NVIDIA's client in a process of its own, since the client brings messages of its own."""

import os
import subprocess
import sys
from pathlib import Path

TIMEOUT_S = 240


def run_checks(*names, **environment):
    """Run the checks of files beside this one; the output of the run is the message unless every one passes.

    Parameters
    ----------
    environment
        Variables by which the checks know whom to call.
    """
    checks = [str(Path(__file__).with_name(name)) for name in names]
    command = [sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", "-o", "addopts=", *checks]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
