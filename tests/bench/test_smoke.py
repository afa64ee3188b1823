"""Every measurement runs, with real servers and real load, in so little time that its figures mean nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import MEASUREMENTS, NAMED_ONLY

ROOT = Path(__file__).resolve().parent.parent.parent
NEEDS_H2LOAD = ("grpc", "memory")
NEEDS_PROGRAMS = ("ensemble", "transport", "gpu")
TIMEOUT_S = 240


def run_bench(*arguments):
    """`python -m bench`, as typed."""
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize("name", [*MEASUREMENTS, *NAMED_ONLY])
def test_measurement_gives_rows(name, tmp_path, request):
    """The row tells where it comes from, and its figures are of the repeats."""
    if name in NEEDS_PROGRAMS:
        request.getfixturevalue("native_programs")
    if name in NEEDS_H2LOAD and shutil.which("h2load") is None:
        pytest.skip("h2load is missing: apt-get install nghttp2-client")
    done = run_bench("--quick", "--results", tmp_path, name)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / f"{name}.json").read_text())
    assert written["quick"] is True
    assert {"command", "date", "commit", "machine"} <= set(written)
    for row in written["rows"]:
        assert row["name"].startswith(name)
        for figure, values in row["figures"].items():
            assert figure in done.stdout
            assert values["low"] <= values["median"] <= values["high"]


def test_unknown_measurement_is_refused():
    """With the names of those that there are."""
    done = run_bench("speed")
    assert done.returncode == 2
    assert "no measurement speed" in done.stderr
    assert "engine" in done.stderr


def test_benchmarks_of_the_kernels_run():
    """Each once, without timing."""
    command = [sys.executable, "-m", "pytest", "--benchmark-disable", "bench"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout
