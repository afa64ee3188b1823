"""A handshake that a test takes step by step, or does not go on with."""

import contextlib
import socket
import ssl

from tests.kernels.raw_service import WAIT_S


class SteppedHandshake:
    """A client's side of one connection; the client is a TlsClient."""

    def __init__(self, client):
        self._received, self._sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = client.context.wrap_bio(self._received, self._sent, server_hostname="localhost")
        host, port = client.service.address.split(":")
        self.socket = socket.create_connection((host, int(port)), WAIT_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def make_hello(self):
        """The bytes of its ClientHello."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._sent.read()

    def say_hello(self):
        """Send it."""
        self.socket.sendall(self.make_hello())

    def hear(self):
        """Take the server's answer, and leave one's own unsent; returns that."""
        while not self._sent.pending:
            self._received.write(self.socket.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
        return self._sent.read()

    def getpeercert(self):
        """The server's certificate, as ssl.SSLSocket.getpeercert gives it."""
        return self._tls.getpeercert()

    def finish(self, answer):
        """Send it; returns the first bytes of HTTP/2 that come, none when the server hangs up."""
        self.socket.sendall(answer)
        while part := self.socket.recv(65536):
            self._received.write(part)
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
                if data := self._tls.read(65536):
                    return data
        return b""
