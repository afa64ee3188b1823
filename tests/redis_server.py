"""A real Redis of a test's own, on a Unix socket."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

TIMEOUT_S = 30.0
REDIS = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(
    REDIS is None, reason="redis-server is missing; on Debian: apt-get install redis-server"
)


class RedisServer:
    """Runs in a folder whose path is short, keeps nothing on disk, and may be killed and started again."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._socket = folder / "redis.sock"
        self._process = None
        self.start()

    @property
    def url(self):
        """Where it is, for the client."""
        return f"unix://{self._socket}"

    def start(self):
        """Start it, and return when it listens."""
        self._socket.unlink(missing_ok=True)
        options = {"--port": "0", "--unixsocket": str(self._socket), "--save": "", "--appendonly": "no"}
        words = [word for pair in options.items() for word in pair]
        self._process = subprocess.Popen([REDIS, *words], cwd=self._folder, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + TIMEOUT_S
        while not self._socket.exists():
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def kill(self):
        """End it as a crash does; whatever it held is gone."""
        self._process.kill()
        self._process.wait()

    def hang(self):
        """Have it answer nothing, though it is there."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        """Have it answer again."""
        self._process.send_signal(signal.SIGCONT)
