"""Which servers the tests of conformance run on, and how each is made: one line a server."""

from collections.abc import Callable
from dataclasses import dataclass

import grpc

# Above grpcio's own default of 4 MiB, and small enough to go over in a test.
MAX_MESSAGE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Identity:
    """A server's certificate and key in PEM, and the authority whose clients it takes; None takes clients without."""

    certificate: bytes
    key: bytes
    client_authority: bytes | None = None


@dataclass(frozen=True)
class ServerKind:
    """How a server is made over a thread pool, and what its `add_secure_port` takes for an Identity."""

    make: Callable
    make_credentials: Callable


def make_grpcio_server(pool):
    """The reference; ports are not shared, so that a test never meets another's server."""
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
    return grpc.server(pool, options=options)


def make_grpcio_credentials(identity):
    """Client certificates are demanded where there is somebody to vouch for them."""
    pair = (identity.key, identity.certificate)
    return grpc.ssl_server_credentials([pair], identity.client_authority, identity.client_authority is not None)


def make_native_server(pool):
    """Ours."""
    from kernels.grpc_server import Server

    return Server(pool, max_message_bytes=MAX_MESSAGE_BYTES)


def make_native_credentials(identity):
    """As grpcio's."""
    from kernels.tls import TlsSettings

    return TlsSettings(
        certificate=identity.certificate,
        key=identity.key,
        client_ca=identity.client_authority,
        require_client_certificate=identity.client_authority is not None,
    )


SERVERS = {
    "grpcio": ServerKind(make_grpcio_server, make_grpcio_credentials),
}
