"""A child process of the supervisor: started with its log in a file, watched, ended within a bounded time."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")
TAIL_BYTES = 4000
# A log that has grown beyond this is put aside, as one file with the suffix .1, when the next child starts.
LOG_BYTES = 16 * 1024 * 1024
KILL_TIMEOUT_S = 5.0


class Child:
    """One running program and its log.

    The kernel ends it with the thread that created this object: keep that thread until the child is stopped.
    """

    def __init__(self, name: str, command: Sequence[str | Path], folder: Path, log: Path) -> None:
        self.name = name
        self._log = log
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))
        self._log_start = log.stat().st_size if log.exists() else 0
        launcher = [sys.executable, "-I", LAUNCHER, str(os.getpid())]
        with log.open("ab") as output:
            # A session of its own: Ctrl-C on the terminal reaches the supervisor alone, which ends all in order.
            self._process = subprocess.Popen(
                [*launcher, *command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._process.pid
        # Becomes readable when the process ends.
        self.descriptor = os.pidfd_open(self.pid)

    def exit_code(self) -> int | None:
        """Exit status, negative for a signal, or None while it runs."""
        return self._process.poll()

    def read_log_tail(self) -> str:
        """The last of what it has written since it was started."""
        with self._log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - TAIL_BYTES))
            return log.read().decode(errors="replace").strip()

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def stop(self, timeout_s: float) -> int:
        """End it, by force after `timeout_s`; returns its exit status."""
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        return self.close()

    def kill(self) -> None:
        """End it by force."""
        self._process.kill()

    def close(self) -> int:
        """Collect a child that has ended or was killed; returns its exit status."""
        code = self._process.wait(KILL_TIMEOUT_S)
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        return code
