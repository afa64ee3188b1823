"""Handshakes that do not end, and what comes where TLS was expected."""

import contextlib
import socket
import ssl

import grpc
import pytest

from certs import ensure_certificates
from kernels.limits import Limits
from kernels.tls import TlsSettings
from tests.attacks.attacked_server import AttackedServer, check_reply, small_request
from tests.http2_frames import PREFACE, encode_settings
from tests.raw_http2 import TIMEOUT_S, RawConnection, connect

# The bystander has to shake hands in it too, which a busy machine may keep waiting.
SHORT_S = 1.0


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A folder of certificates."""
    folder = tmp_path_factory.mktemp("certs")
    ensure_certificates(folder)
    return folder


@pytest.fixture
def server(engine, certificates, trust):
    """A server with TLS and little patience, and its bystander; nothing is left of the attack at the end."""
    authority = (certificates / "internal-ca.pem").read_bytes()
    tls = TlsSettings(
        certificate=(certificates / "service.pem").read_bytes(), key=(certificates / "service.key").read_bytes()
    )
    made = AttackedServer(engine, Limits(handshake_timeout_s=SHORT_S), tls, trust)
    try:
        made.watch(grpc.ssl_channel_credentials(authority))
        yield made
        made.await_connections(1)
        made.check()
    finally:
        made.close()


@pytest.fixture
def trust(certificates):
    """A client's side of TLS."""
    made = ssl.create_default_context(cafile=certificates / "internal-ca.pem")
    made.set_alpn_protocols(["h2"])
    return made


def hello(trust):
    """The first bytes that a client of TLS says."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    wrapped = trust.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        wrapped.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["silent", "half a hello", "a hello"])
def test_handshake_that_does_not_end_is_cut_off(server, trust, share):
    """Many of them at once, and each is closed in time."""
    words = hello(trust)
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            connection = stack.enter_context(RawConnection(server.address, greets=False))
            connection.send(words[: int(len(words) * share)])
        server.await_connections(31)
        server.await_connections(1)


def test_connection_that_does_not_greet_behind_its_handshake_is_closed(server, trust):
    """TLS is done, HTTP/2 never begins."""
    for words in (b"", PREFACE[:10], PREFACE):
        with RawConnection(server.address, greets=False, tls=trust) as connection:
            connection.send(words)
            connection.await_end()


@pytest.mark.parametrize(
    "words", [b"GET / HTTP/1.1\r\n\r\n", PREFACE + encode_settings({}), bytes(500), b"\x16\x03\x01" + b"\xff" * 300]
)
def test_connection_that_speaks_no_tls_is_closed(server, words):
    """Plain HTTP, of whichever version, and noise."""
    with RawConnection(server.address, greets=False) as connection:
        connection.flood([words])
        connection.await_end()


def test_client_without_http2_is_refused(server, certificates):
    """It is offered nothing else."""
    older = ssl.create_default_context(cafile=certificates / "internal-ca.pem")
    older.set_alpn_protocols(["http/1.1"])
    with pytest.raises(ssl.SSLError):
        RawConnection(server.address, greets=False, tls=older)


def test_noise_behind_the_handshake_ends_the_connection(server, trust):
    """Records that nobody can have written are no end of the server's."""
    with RawConnection(server.address, tls=trust) as connection:
        connection.await_ping()
        plain = socket.socket(fileno=connection.detach())
        # The descriptor does not block, whatever the new socket believes.
        plain.settimeout(TIMEOUT_S)
        with plain:
            plain.sendall(bytes(range(256)) * 20)
            with contextlib.suppress(ConnectionError):
                while plain.recv(65536):
                    pass


def test_connection_cut_off_after_any_byte_of_its_handshake_leaves_nothing(server, trust):
    """Every prefix of a hello."""
    words = hello(trust)
    for size in range(len(words)):
        with connect(server.address) as connection:
            connection.sendall(words[:size])


def test_call_over_records_of_a_byte_is_served(server, trust):
    """However small the pieces."""
    with RawConnection(server.address, greets=False, tls=trust) as connection:
        connection.flood(bytes([byte]) for byte in PREFACE + encode_settings({}))
        check_reply(connection.await_reply(connection.send_call(small_request())).message)
