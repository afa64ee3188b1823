"""A process that runs one target's inputs: started, fed, watched, and replaced when an input ends it."""

import contextlib
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fuzz.worker import REPLY, REQUEST

START_TIMEOUT_S = 120.0
# Of one input; a check for leaks runs it some forty times.
TIMEOUT_S = 20.0
LEAK_CHECK_TIMEOUT_S = 120.0
REPORT_BYTES = 16384


@dataclass(frozen=True)
class Build:
    """What a subject runs: a tree to import from, and what is preloaded there.

    Attributes
    ----------
    tree : Path
        Its kernels are those that are fuzzed.
    preload : tuple of Path
        Sanitizers' libraries, in front of the interpreter's own.
    coverage : Path or None
        The library made from coverage.c; without it no edges are seen.
    """

    tree: Path
    preload: tuple[Path, ...] = ()
    coverage: Path | None = None

    def make_environment(self) -> dict[str, str]:
        """The variables of a process that runs this build."""
        libraries = [*self.preload, *([self.coverage] if self.coverage else [])]
        chosen = {
            "PYTHONPATH": str(self.tree),
            "LD_PRELOAD": " ".join(map(str, libraries)),
            # The interpreter itself leaks at exit; leak.py finds ours.
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:abort_on_error=1",
        }
        return {**os.environ, **chosen}


class Subject:
    """Runs inputs in a process of its own; usable as a context.

    Parameters
    ----------
    build
        What it runs.
    target
        The target's "module:class".
    folder
        For the map of edges and for what the process says.
    """

    def __init__(self, build: Build, target: str, folder: Path):
        self._build = build
        self._target = target
        self._map = folder / "edges"
        self._log = folder / "stderr"
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "Subject":
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def run(self, data: bytes, *, is_leak_check: bool = False) -> str:
        """What an input has shown: empty, or the text of a finding, the end of the process and its hanging included."""
        if self._process is None:
            self._start()
        try:
            self._requests.write(REQUEST.pack(len(data), is_leak_check) + data)
            self._requests.flush()
        except BrokenPipeError:
            return self._describe_end()
        return self._await_reply(LEAK_CHECK_TIMEOUT_S if is_leak_check else TIMEOUT_S)

    def _start(self) -> None:
        requests, self._request_end = os.pipe()
        self._reply_end, replies = os.pipe()
        command = [sys.executable, "-m", "fuzz.worker", self._target, "--requests", str(requests)]
        command += ["--replies", str(replies), "--map", str(self._map)]
        if self._build.coverage:
            command += ["--coverage", str(self._build.coverage)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._build.tree,
                env=self._build.make_environment(),
                pass_fds=(requests, replies),
                process_group=0,  # Ctrl-C is for the search
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        os.close(requests)
        os.close(replies)
        self._requests = os.fdopen(self._request_end, "wb")
        self._replies = os.fdopen(self._reply_end, "rb")
        if said := self._await_reply(START_TIMEOUT_S):
            raise RuntimeError(f"{self._target} does not start: {said}")

    def _await_reply(self, timeout_s: float) -> str:
        # A reply is read whole before the next one is asked for: nothing of it waits in the reader's buffer.
        if not select.select([self._replies], [], [], timeout_s)[0]:
            self._process.kill()
            self._describe_end()
            return f"hang: no answer in {timeout_s:g} s"
        head = self._replies.read(REPLY.size)
        if len(head) < REPLY.size:
            return self._describe_end()
        return self._replies.read(*REPLY.unpack(head)).decode("utf-8", "replace")

    def _describe_end(self) -> str:
        """Take leave of a process that has ended; what it said last."""
        status = self._process.wait()
        self._process = None
        self._replies.close()
        with contextlib.suppress(BrokenPipeError):  # what it did not read any more
            self._requests.close()
        report = self._log.read_bytes()
        start = max(report.find(b"ERROR: AddressSanitizer"), report.find(b"runtime error:"), 0)
        start = report.rfind(b"\n", 0, start) + 1
        return f"ended with {status}:\n" + report[start : start + REPORT_BYTES].decode("utf-8", "replace")

    def stop(self) -> str:
        """Have the process end; what it says when it does so badly."""
        if self._process is None:
            return ""
        self._requests.close()
        try:
            status = self._process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return f"hang: the process does not end\n{self._describe_end()}"
        said = self._describe_end()
        return "" if status == 0 else said
