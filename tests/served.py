"""Runs `sluice serve` as a process of its own, so that a test can call the whole server."""

import contextlib
import json
import subprocess
import sys

STOP_TIMEOUT_S = 60
CLI = "from service.cli import main; main()"


@contextlib.contextmanager
def serving(repository, *options):
    """A server of a repository on a free port; yields its address and ends it with SIGTERM."""
    arguments = ["serve", "--model-repository", str(repository), "--grpc-port", "0", *(options or ("--insecure",))]
    with subprocess.Popen([sys.executable, "-c", CLI, *arguments], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield await_address(process.stderr)
        finally:
            process.terminate()
            process.communicate(timeout=STOP_TIMEOUT_S)
    assert process.returncode == 0


def await_address(log):
    """Where the server listens, by its log line that says it is ready."""
    lines = []
    for line in log:
        lines.append(line)
        entry = json.loads(line)
        if entry.get("event") == "ready":
            return entry["address"]
    raise AssertionError(f"the server ended before it was ready: {''.join(lines)}")
