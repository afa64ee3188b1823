"""Runs `sluice serve` as a process of its own whose log, signals and end a test sees."""

import json
import subprocess
import sys
import threading

from service.deployment import Endpoint
from tests.served import CLI

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0


class ServerProcess:
    """A server of a repository; leaving it as a context ends it.

    Parameters
    ----------
    options
        Flags of `sluice serve`; without any, it serves in plain text. A free port is taken unless one is named.
    """

    def __init__(self, repository, *options):
        options = options or ("--insecure",)
        if "--grpc-port" not in options:
            options = ("--grpc-port", "0", *options)
        arguments = [str(part) for part in ("serve", "--model-repository", repository, *options)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLI, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._changed = threading.Condition()
        self._lines = []
        self._has_ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self._process.stderr:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def __enter__(self):
        self.await_event("ready")
        return self

    def __exit__(self, *_):
        self.terminate()
        self.wait()

    @property
    def pid(self):
        """Its process number."""
        return self._process.pid

    @property
    def log(self):
        """What it has written to standard error."""
        return "".join(self._lines)

    @property
    def address(self):
        """Where it listens."""
        return self.await_event("ready")["address"]

    @property
    def endpoint(self):
        """The same, in two parts."""
        host, _, port = self.address.rpartition(":")
        return Endpoint(host, int(port))

    def await_event(self, event, timeout_s=START_TIMEOUT_S):
        """The first entry of the log for an event, once it is there."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._has_ended or self._find(event), timeout_s), self.log
            found = self._find(event)
            assert found, f"the server ended without {event!r}: {self.log}"
            return found[0]

    def _find(self, event):
        entries = [json.loads(line) for line in self._lines if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == event]

    def read_memory_bytes(self):
        """Its resident size."""
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

    def terminate(self):
        """Ask it to end."""
        self._process.terminate()

    def kill(self):
        """End it with no chance to say good-bye."""
        self._process.kill()
        self.wait()

    def wait(self, timeout_s=STOP_TIMEOUT_S):
        """Its exit status; a process that does not end in time is killed, and fails the test."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._reader.join()
            self._process.stdout.close()
            self._process.stderr.close()
        return status
