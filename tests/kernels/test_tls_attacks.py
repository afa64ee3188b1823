"""Peers that do not shake hands as they should: others are served, and nothing of them is left."""

import contextlib
import socket
import struct
import time

import pytest

pytest.importorskip("kernels.transport", reason="the native transport is not built")

from kernels.limits import Limits
from tests.kernels.raw_service import WAIT_S
from tests.kernels.sanitizers import skip_under_sanitizers
from tests.kernels.stepped_handshake import SteppedHandshake
from tests.kernels.tls_service import VERSIONS, TlsClient, await_end

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HANDSHAKE, ALERT, DATA = 22, 21, 23
# Time in which those who do nothing wrong shake hands, even on a busy machine.
IMPATIENT = Limits(handshake_timeout_s=1.0)

needs_plain_memory = skip_under_sanitizers("a sanitizer keeps the memory that is freed")


def make_record(kind, content, version=0x0303):
    """A record of TLS, not encrypted."""
    return struct.pack(">BHH", kind, version, len(content)) + content


WORDS = {
    "HTTP/1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/2 in plain text": PREFACE + b"\0\0\0\4\0\0\0\0\0",
    "zeros": bytes(100),
    "noise": bytes(range(255, 0, -1)) * 40,
    "a record too long": struct.pack(">BHH", HANDSHAKE, 0x0301, 65535) + bytes(65535),
    "a hello of SSL 2": b"\x80\x2e\x01\x00\x02" + bytes(43),
    "an empty hello": make_record(HANDSHAKE, b"\x01\0\0\0"),
    "a hello that lies of its length": make_record(HANDSHAKE, b"\x01\xff\xff\xff" + bytes(16000)) * 2,
    "another message": make_record(HANDSHAKE, b"\x14\0\0\x0c" + bytes(12)),
    "data": make_record(DATA, b"x" * 100),
    "an alert": make_record(ALERT, b"\x02\x28"),
    "warnings": make_record(ALERT, b"\x01\x5a") * 100,
    "empty records": make_record(HANDSHAKE, b"") * 100,
}


@pytest.mark.parametrize("words", WORDS)
def test_peer_that_speaks_something_else_is_cut_off(guarded, member, words):
    """At once, and the next is served."""
    with connect(guarded) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(WORDS[words])
        await_end(connection)
    assert guarded.call(member) == b"1"
    guarded.await_connections(0)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("words", ["an alert", "zeros", "a hello that lies of its length"])
def test_peer_that_goes_on_with_something_else_is_cut_off(guarded, member, words, version):
    """In the middle of a handshake, after the server's answer."""
    with SteppedHandshake(TlsClient(guarded, member, version)) as handshake:
        handshake.say_hello()
        handshake.hear()
        handshake.socket.sendall(WORDS[words])
        await_end(handshake.socket)
    assert guarded.call(member) == b"1"
    guarded.await_connections(0)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("words", ["an alert", "zeros", "data", "HTTP/2 in plain text"])
def test_peer_that_leaves_its_encryption_is_cut_off(guarded, member, words, version):
    """After the handshake."""
    with SteppedHandshake(TlsClient(guarded, member, version)) as handshake:
        handshake.say_hello()
        assert handshake.finish(handshake.hear()) != b""
        handshake.socket.sendall(WORDS[words])
        await_end(handshake.socket)
    assert guarded.call(member) == b"1"
    guarded.await_connections(0)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("part", ["nothing", "half a hello", "a hello", "half an answer", "all but a greeting"])
def test_peer_that_falls_silent_is_cut_off(serve_tls, authority, member, version, part):
    """At the handshake's timeout, which ends with the first frame of HTTP/2; others are served meanwhile."""
    service = serve_tls(client_ca=authority.pem, limits=IMPATIENT)
    with SteppedHandshake(TlsClient(service, member, version)) as handshake:
        hello = handshake.make_hello()
        if part == "half a hello":
            handshake.socket.sendall(hello[: len(hello) // 2])
        elif part != "nothing":
            handshake.socket.sendall(hello)
        if part in ("half an answer", "all but a greeting"):
            answer = handshake.hear()
            handshake.socket.sendall(answer if part == "all but a greeting" else answer[: len(answer) // 2])
        begun = time.monotonic()
        assert service.call(member) == b"1"
        await_end(handshake.socket)
        assert time.monotonic() - begun < WAIT_S / 2
    service.await_connections(0)


def test_peer_that_sends_byte_by_byte_is_cut_off(serve_tls, authority, member):
    """Progress does not buy it time."""
    service = serve_tls(client_ca=authority.pem, limits=IMPATIENT)
    with SteppedHandshake(TlsClient(service, member)) as handshake:
        hello, sent = handshake.make_hello(), 0
        with contextlib.suppress(ConnectionError):
            for byte in hello:
                handshake.socket.sendall(bytes([byte]))
                sent += 1
                time.sleep(0.02)  # the attack itself
        assert sent < len(hello)
    assert service.call(member) == b"1"


def connect(service):
    """A connection over which nothing has been said."""
    host, port = service.address.split(":")
    return socket.create_connection((host, int(port)), WAIT_S)


def read_memory_kib():
    """This process's resident size; the server's is in it."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def abort_handshakes(service, hello, count):
    """Connections that end behind their hello; half of them without waiting for an answer."""
    for number in range(count):
        with connect(service) as connection:
            connection.sendall(hello)
            if number % 2:
                connection.recv(1)


@needs_plain_memory
def test_thousands_of_aborted_handshakes_leave_nothing(guarded, member):
    """No connection, and no memory."""
    hello = TlsClient(guarded, member).say_hello()
    abort_handshakes(guarded, hello, 400)
    guarded.await_connections(0)
    before = read_memory_kib()
    abort_handshakes(guarded, hello, 2000)
    guarded.await_connections(0)
    assert read_memory_kib() - before < 2048
    assert guarded.call(member) == b"1"


@needs_plain_memory
def test_thousands_of_refused_clients_leave_nothing(guarded, authority):
    """Those that come to the end of the handshake, with a certificate of nobody."""
    client = TlsClient(guarded, type(authority)("nobody").issue())
    for _ in range(200):
        assert not client.is_welcome()
    before = read_memory_kib()
    for _ in range(600):
        assert not client.is_welcome()
    guarded.await_connections(0)
    assert read_memory_kib() - before < 2048


@needs_plain_memory
def test_silent_connections_cost_no_memory_of_tls(guarded, member):
    """It is taken when the first byte comes."""
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(guarded))
        guarded.await_connections(100)
        before = read_memory_kib()
        for _ in range(300):
            stack.enter_context(connect(guarded))
        guarded.await_connections(400)
        assert read_memory_kib() - before < 1024


def test_calls_do_not_wait_for_a_burst_of_handshakes(guarded, member):
    """Hundreds that come at once are shaken one by one, and calls of others are answered long before the last."""
    hello = TlsClient(guarded, member).say_hello()
    shares = []
    with guarded.connect(member) as channel, contextlib.ExitStack() as stack:
        echo = channel.unary_unary("/test.Raw/Echo")
        echo(b"1", timeout=WAIT_S)
        for _ in range(5):
            connections = [stack.enter_context(connect(guarded)) for _ in range(400)]
            for connection in connections:
                connection.sendall(hello)
            begun = time.monotonic()
            echo(b"1", timeout=WAIT_S)
            wait_s = time.monotonic() - begun
            for connection in connections:
                assert connection.recv(1)
            shares.append(wait_s / (time.monotonic() - begun))
    assert min(shares) < 0.5
