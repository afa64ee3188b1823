"""A raw service over TLS, as grpcio's clients and Python's own TLS see it."""

import contextlib
import socket
import ssl
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import grpc

from kernels.grpc_server import Server
from kernels.tls import TlsSettings
from tests.authorities import Pair
from tests.kernels.raw_service import SERVICE, WAIT_S, path

HOST = "127.0.0.1"
POLL_S = 0.005
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = (TLS_1_2, TLS_1_3)
# The first frame of a server: type and stream of SETTINGS, behind its length.
SETTINGS = b"\x04\x00\x00\x00\x00\x00"


def echo(request, context):
    """The request again."""
    return request


ECHO = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}


class TlsService:
    """A running server of raw methods.

    Parameters
    ----------
    authority
        Whose certificate the server shows.
    handlers
        Method name to handler.
    limits
        kernels.limits.Limits.
    settings
        Of kernels.tls.TlsSettings, beside the server's own certificate.
    """

    def __init__(self, authority, handlers=ECHO, *, limits=None, io_threads=1, **settings):
        self.authority, self._own, self._settings = authority, authority.serve(), settings
        self.server = Server(limits, io_threads=io_threads)
        self.server.add_registered_method_handlers(SERVICE, handlers)
        self.address = f"{HOST}:{self.server.add_secure_port(f'{HOST}:0', self._make_tls())}"
        self.server.start()

    def close(self):
        """Cancel what runs, and end."""
        self.server.stop(None)

    def _make_tls(self):
        return TlsSettings(certificate=self._own.chain, key=self._own.key, **self._settings)

    def trust(self, **settings):
        """Change settings while the server runs."""
        self._settings = self._settings | settings
        self.server.replace_tls(self._make_tls())

    def renew(self):
        """Show another certificate from now on; returns its serial number."""
        self._own = self.authority.serve()
        self.server.replace_tls(self._make_tls())
        return self._own.serial

    def show(self, pair):
        """Show a certain certificate from now on."""
        self._own = pair
        self.server.replace_tls(self._make_tls())

    def connect(self, pair=None, **options):
        """A channel on a connection of its own."""
        credentials = grpc.ssl_channel_credentials(
            self.authority.pem, *((pair.key, pair.chain) if pair else (None, None))
        )
        chosen = {"grpc.use_local_subchannel_pool": 1, "grpc.enable_retries": 0, **options}
        return grpc.secure_channel(self.address, credentials, list(chosen.items()))

    def call(self, pair=None, request=b"1"):
        """Echo, on a connection of its own."""
        with self.connect(pair) as channel:
            return call(channel, request)

    @property
    def connections(self):
        """How many are open."""
        return self.server._transport.statistics()["connections"]

    def await_connections(self, count):
        """Return when so many are open."""
        until = time.monotonic() + WAIT_S
        while self.connections != count:
            assert time.monotonic() < until, f"{self.connections} connections are open, not {count}"
            time.sleep(POLL_S)


@dataclass
class TlsClient:
    """Python's TLS towards a service; one client keeps its certificate and whom it trusts.

    Parameters
    ----------
    protocols
        What it offers by ALPN; none of it when empty.
    """

    service: TlsService
    pair: Pair | None = None
    version: ssl.TLSVersion | None = None
    protocols: tuple[str, ...] = ("h2",)
    ciphers: str = ""

    def __post_init__(self):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.load_verify_locations(cadata=self.service.authority.pem.decode())
        if self.protocols:
            self.context.set_alpn_protocols(self.protocols)
        if self.ciphers:
            self.context.set_ciphers(self.ciphers)
        if self.version:
            self.context.minimum_version = self.context.maximum_version = self.version
        if self.pair:
            self.load(self.pair)

    def load(self, pair):
        """Show a certificate from now on."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "pair.pem"
            file.write_bytes(pair.chain + pair.key)
            self.context.load_cert_chain(file)

    @contextlib.contextmanager
    def shake_hands(self, session=None):
        """A connection on which the server has sent its first frame; ssl.SSLError or OSError if it refuses."""
        host, port = self.service.address.split(":")
        with (
            socket.create_connection((host, int(port)), WAIT_S) as connection,
            self.context.wrap_socket(connection, server_hostname="localhost", session=session) as tls,
        ):
            tls.first_frames = tls.recv(4096)
            if tls.first_frames[3:9] != SETTINGS:
                raise ConnectionResetError("the server said nothing and hung up")
            yield tls

    def say_hello(self):
        """The bytes of a ClientHello, which no server has seen."""
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            self.context.wrap_bio(received, sent, server_hostname="localhost").do_handshake()
        return sent.read()

    def is_welcome(self, session=None):
        """Whether the server takes it."""
        try:
            with self.shake_hands(session):
                return True
        except OSError:  # ssl.SSLError among them
            return False


def await_end(tls):
    """Read until the server has closed a connection; fails when it does not."""
    with contextlib.suppress(ConnectionResetError, ssl.SSLError):
        while tls.recv(65536):
            pass


def call(channel, request=b"1"):
    """Call the method that echoes."""
    return channel.unary_unary(path("Echo"))(request, timeout=WAIT_S)
