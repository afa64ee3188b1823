"""Processes that are measured: started on a core of their own, with their CPU time and resident size."""

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.child import Child

CORES = sorted(os.sched_getaffinity(0))
# With one core alone, server and load share it: still a measurement, of something else.
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.02
HOST = "127.0.0.1"
PROCESS_CLOCK = 2


class BenchError(Exception):
    """A measurement that cannot be made, or whose result cannot be trusted; the text says why."""


@contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """Keep this thread, and the processes and threads that it starts meanwhile, on one core, or on some."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin_threads(pid: int, cores: set[int]) -> None:
    """Keep a running process, with all its threads and those that they start, on some cores."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def read_cpu_ns(pid: int) -> int:
    """CPU time of a process so far, user and system, all its threads, those that have ended among them.

    The same sum as utime and stime in /proc/<pid>/stat, from clock_getcpuclockid(3), which does not count in ticks of
    10 ms.
    """
    return time.clock_gettime_ns(~pid << 3 | PROCESS_CLOCK)


def read_tree_cpu_ns(pid: int) -> int:
    """CPU time of a process and of the processes below it: a server may leave its work to workers."""
    return read_cpu_ns(pid) + sum(map(read_tree_cpu_ns, list_children(pid)))


def read_resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def count_threads(pid: int) -> int:
    """Threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def raise_file_limit() -> None:
    """Let this process, and those that it starts from now on, have as many open files as the machine allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def list_children(pid: int) -> list[int]:
    """Process numbers of a process's children."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@contextmanager
def run_server(
    name: str,
    command: Sequence[str | Path],
    folder: Path,
    ready: str,
    *,
    cores: Collection[int] = (SERVER_CORE,),
    start_timeout_s: float = START_TIMEOUT_S,
) -> Iterator[tuple[Child, str]]:
    """A server on the server's core, or on others, once a line of its log holds `ready`; yields it and that line."""
    log = folder / f"{name}.log"
    # An earlier server of that name said there that it was ready.
    log.unlink(missing_ok=True)
    with pinned(*cores):
        child = Child(name, command, Path.cwd(), log)
    try:
        yield child, _await_line(child, log, ready, start_timeout_s)
    finally:
        child.stop(STOP_TIMEOUT_S)


def _await_line(child: Child, log: Path, words: str, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    while True:
        # The last line may still be on its way.
        for line in log.read_text(errors="replace").splitlines(keepends=True):
            if words in line and line.endswith("\n"):
                return line
        if child.exit_code() is not None or time.monotonic() > deadline:
            raise BenchError(f"{child.name} did not get ready:\n{child.read_log_tail()}")
        time.sleep(POLL_S)


def run_python(module: str, *arguments: str | Path) -> list[str | Path]:
    """The command that runs one of our modules."""
    return [sys.executable, "-m", module, *map(str, arguments)]


class Loop:
    """A child on the server's core, or on others, that runs one command after another and says what each took.

    Commands and answers are JSON objects, one a line; bench.loops has the child's side.
    """

    def __init__(self, module: str, settings: Mapping[str, Any], *, cores: Collection[int] = (SERVER_CORE,)):
        with pinned(*cores):
            self._process = subprocess.Popen(
                run_python(module, json.dumps(settings)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(STOP_TIMEOUT_S)

    @property
    def pid(self) -> int:
        """The child's process number."""
        return self._process.pid

    def run(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise BenchError(f"the loop ended with {self._process.wait(STOP_TIMEOUT_S)}")
        return json.loads(answer)


def find_free_ports(*names: str) -> dict[str, int]:
    """A port for each name, on which nobody listens at the moment."""
    probes = {name: socket.socket() for name in names}
    try:
        for probe in probes.values():
            probe.bind((HOST, 0))
        return {name: probe.getsockname()[1] for name, probe in probes.items()}
    finally:
        for probe in probes.values():
            probe.close()
