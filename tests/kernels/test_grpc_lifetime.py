"""The native server as grpcio's clients see it: its start and its stop."""

import gc
import threading
import time
import weakref

import grpc
import pytest

from kernels.grpc_server import Server
from tests.kernels.raw_handlers import ECHO, unary
from tests.kernels.raw_service import WAIT_S, path, refused

Code = grpc.StatusCode


def test_secure_port_with_grpcio_s_credentials_names_our_own():
    """They are opaque."""
    with pytest.raises(TypeError, match=r"kernels\.tls\.TlsSettings"):
        Server().add_secure_port("127.0.0.1:0", grpc.local_server_credentials())


def test_port_that_is_taken_cannot_be_had_twice(serve):
    """And the error says which."""
    address = serve(ECHO).address
    with pytest.raises(RuntimeError, match=address):
        Server().add_insecure_port(address)


def test_server_starts_once(serve):
    """As grpcio's."""
    service = serve(ECHO)
    with pytest.raises(ValueError, match="already-started"):
        service.server.start()


def test_stop_lets_running_calls_finish(serve, gate):
    """And takes no new ones."""
    service = serve({"Wait": unary(gate.pass_through)})
    call = service.start("Wait", b"1")
    gate.await_entered()
    stopped = service.server.stop(WAIT_S)
    assert service.server.wait_for_termination(0.1)
    with service.connect() as late, refused(Code.UNAVAILABLE):
        late.unary_unary(path("Wait"))(b"", timeout=WAIT_S)
    gate.opened.set()
    assert call.result() == b"1"
    assert stopped.wait(WAIT_S)
    assert not service.server.wait_for_termination(0)


def test_stop_cancels_what_is_left_after_the_grace(serve, gate):
    """The handler is told."""
    cancelled = threading.Event()

    def wait(request, context):
        context.add_callback(cancelled.set)
        return gate.pass_through(request, context)

    service = serve({"Wait": unary(wait)})
    call = service.start("Wait")
    gate.await_entered()
    begun = time.monotonic()
    stopped = service.server.stop(0.2)
    assert stopped.wait(WAIT_S)
    assert 0.2 <= time.monotonic() - begun < WAIT_S
    assert cancelled.wait(WAIT_S)
    assert call.exception(WAIT_S).code() in (Code.CANCELLED, Code.UNAVAILABLE)


def test_second_stop_may_be_shorter(serve, gate):
    """The shortest grace counts."""
    service = serve({"Wait": unary(gate.pass_through)})
    call = service.start("Wait")
    gate.await_entered()
    first = service.server.stop(60)
    second = service.server.stop(None)
    assert second.is_set()
    assert first.wait(WAIT_S)
    assert call.exception(WAIT_S) is not None


def test_server_that_never_started_can_be_stopped():
    """It gives its port back."""
    server = Server()
    port = server.add_insecure_port("127.0.0.1:0")
    assert server.stop(None).is_set()
    other = Server()
    assert other.add_insecure_port(f"127.0.0.1:{port}") == port
    other.stop(None)


def test_server_that_is_dropped_ends_by_itself():
    """Nobody is left to stop it."""
    server = Server()
    server.add_insecure_port("127.0.0.1:0")
    server.start()
    dropped, dispatcher = weakref.ref(server), server._dispatcher
    del server
    gc.collect()
    assert dropped() is None
    assert dispatcher.stopped.wait(WAIT_S)
