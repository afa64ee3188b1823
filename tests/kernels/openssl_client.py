"""`openssl s_client` as a client of a service, for what Python's TLS cannot do."""

import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from tests.kernels.raw_service import WAIT_S


class OpensslClient:
    """A connection that is open until the context is left.

    Parameters
    ----------
    options
        Of s_client.
    """

    def __init__(self, service, pair, *options):
        if shutil.which("openssl") is None:
            pytest.skip("openssl is missing")
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "pair.pem"
        file.write_bytes(pair.chain + pair.key)
        command = ["openssl", "s_client", "-connect", service.address, "-alpn", "h2", "-cert", file, "-key", file]
        self._process = subprocess.Popen(
            [*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        self._output = ""
        self.has_ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        while piece := self._process.stdout.read(65536):
            with self._changed:
                self._output += piece.decode("utf-8", "replace")
                self._changed.notify_all()
        with self._changed:
            self.has_ended = True
            self._changed.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stdin.close()
        self._process.stdout.close()
        self._folder.cleanup()

    def write(self, text):
        """Type something."""
        self._process.stdin.write(text.encode())

    def await_output(self, text, times=1):
        """All that it has said, once a text is in it, so many times."""
        with self._changed:
            self._changed.wait_for(lambda: self._output.count(text) >= times or self.has_ended, WAIT_S)
            assert self._output.count(text) >= times, self._output
            return self._output

    def await_settings(self):
        """Return when the server has begun to speak HTTP/2; a ticket of TLS 1.3 has come before."""
        self.await_output("\0\0\x18\x04")

    def await_end(self):
        """All that it has said, once it has ended by itself."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.has_ended, WAIT_S), self._output
            return self._output
