"""Health: the server, models and versions, watched over a real connection through loading and draining."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING, AsyncHealthServicer, HealthBoard, HealthServicer
from service.repository import ModelVersion, State
from tests.aio_server import running_server

WAIT_S = 30


@pytest.fixture
def board():
    """A board of a server that still loads."""
    return HealthBoard()


@dataclass
class Running:
    """A server with a health servicer, and how it is stopped."""

    address: str
    stop: Callable[[float], object]


@contextlib.contextmanager
def serve_asyncio(board):
    """grpcio's asyncio server."""
    made = []

    def register(server):
        made.append(AsyncHealthServicer(board))
        health_pb2_grpc.add_HealthServicer_to_server(made[0], server)

    with running_server(register) as running:
        yield Running(running.address, lambda grace: running.call(running.server.stop(grace=grace), timeout_s=WAIT_S))
        made[0].close()


@contextlib.contextmanager
def serve_threads(board):
    """grpcio's server of synchronous servicers, with one thread."""
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(board), server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield Running(address, lambda grace: server.stop(grace).wait(WAIT_S))
        server.stop(0).wait()


@pytest.fixture(params=[serve_asyncio, serve_threads])
def running(board, request):
    """A server with the health servicer of its kind."""
    with request.param(board) as running:
        yield running


@pytest.fixture
def stub(running):
    """A client of it."""
    with grpc.insecure_channel(running.address) as channel:
        yield health_pb2_grpc.HealthStub(channel)


def check(stub, service=""):
    """The status of a service."""
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S).status


@contextlib.contextmanager
def watching(stub, service):
    """A queue of the statuses that a watcher sees; None at the end of the stream."""
    call = stub.Watch(health_pb2.HealthCheckRequest(service=service))
    seen = queue.SimpleQueue()

    def read():
        with contextlib.suppress(grpc.RpcError):
            for answer in call:
                seen.put(answer.status)
        seen.put(None)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        call.cancel()
        thread.join()


def test_check_of_server_follows_ready_and_drain(board, stub):
    """Loading, serving, draining; whatever becomes of single models."""
    assert check(stub) == NOT_SERVING
    board.mark_ready()
    board.update(ModelVersion("broken", 1, State.UNAVAILABLE, "why"))
    assert check(stub) == SERVING
    board.drain()
    assert check(stub) == NOT_SERVING


def test_check_of_model_is_serving_while_any_version_is(board, stub):
    """A model is as healthy as its best version."""
    board.update(ModelVersion("tiny", 1, State.READY))
    board.update(ModelVersion("tiny", 2, State.UNAVAILABLE, "why"))
    assert [check(stub, name) for name in ("tiny", "tiny/1", "tiny/2")] == [SERVING, SERVING, NOT_SERVING]
    board.update(ModelVersion("tiny", 1, State.UNAVAILABLE, "why"))
    assert [check(stub, name) for name in ("tiny", "tiny/1")] == [NOT_SERVING, NOT_SERVING]
    board.update(ModelVersion("tiny", 1, State.READY))
    board.drain()
    assert check(stub, "tiny") == NOT_SERVING


@pytest.mark.parametrize("service", ["other", "tiny/3", "tiny/", "tiny/1/1", "/1", "/", "empty/None"])
def test_check_of_unknown_service_is_not_found(board, stub, service):
    """The protocol's answer for a name that the server does not have."""
    board.update(ModelVersion("empty", None, State.UNAVAILABLE, "why"))
    board.update(ModelVersion("tiny", 1, State.READY))
    with pytest.raises(grpc.RpcError) as caught:
        check(stub, service)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert repr(service) in caught.value.details()


def test_watch_sees_each_state_of_a_model_and_ends_with_draining(board, stub):
    """From unknown to the end, without a poll; a change that changes nothing is not sent."""
    with watching(stub, "tiny/1") as seen:
        assert seen.get(timeout=WAIT_S) == SERVICE_UNKNOWN
        board.update(ModelVersion("tiny", 1, State.LOADING, "the model is loading"))
        assert seen.get(timeout=WAIT_S) == NOT_SERVING
        board.update(ModelVersion("other", 1, State.READY))
        board.update(ModelVersion("tiny", 1, State.READY))
        assert seen.get(timeout=WAIT_S) == SERVING
        board.drain()
        assert [seen.get(timeout=WAIT_S), seen.get(timeout=WAIT_S)] == [NOT_SERVING, None]


def test_watch_of_a_model_that_goes_ends_with_its_being_unknown(board, stub):
    """A folder that was taken away is no model that cannot serve."""
    for version in (1, 2):
        board.update(ModelVersion("tiny", version, State.READY))
    with watching(stub, "tiny/1") as version, watching(stub, "tiny") as model:
        assert (version.get(timeout=WAIT_S), model.get(timeout=WAIT_S)) == (SERVING, SERVING)
        board.update(ModelVersion("tiny", 1, State.REMOVED))
        assert version.get(timeout=WAIT_S) == SERVICE_UNKNOWN
        board.update(ModelVersion("tiny", 2, State.REMOVED))
        assert model.get(timeout=WAIT_S) == SERVICE_UNKNOWN
    board.update(ModelVersion("never", 1, State.REMOVED))
    assert board.read("never") is None


def test_watch_by_many_goes_on_when_one_leaves(board, stub):
    """Watchers of one service do not depend on each other."""
    with contextlib.ExitStack() as others, watching(stub, "") as seen:
        for _ in range(8):
            assert others.enter_context(watching(stub, "")).get(timeout=WAIT_S) == NOT_SERVING
        with watching(stub, "") as leaving:
            assert leaving.get(timeout=WAIT_S) == NOT_SERVING
        assert seen.get(timeout=WAIT_S) == NOT_SERVING
        board.mark_ready()
        assert seen.get(timeout=WAIT_S) == SERVING


def test_server_with_watchers_stops_at_once_after_draining(board, running, stub):
    """A watcher that never leaves does not use up the time that requests have to finish."""
    with watching(stub, "") as seen:
        assert seen.get(timeout=WAIT_S) == NOT_SERVING
        board.drain()
        begun = time.monotonic()
        running.stop(60)
        assert time.monotonic() - begun < WAIT_S
        assert seen.get(timeout=WAIT_S) is None


@pytest.mark.parametrize("running", [serve_threads], indirect=True)
def test_watchers_that_leave_are_forgotten(board, running, stub):
    """They leave nothing behind on the board."""
    with contextlib.ExitStack() as watchers:
        for _ in range(8):
            assert watchers.enter_context(watching(stub, "")).get(timeout=WAIT_S) == NOT_SERVING
        assert len(board._listeners) == 8
    until = time.monotonic() + WAIT_S
    while board._listeners:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_board_that_nobody_listens_to_any_more_calls_nobody(board):
    """A servicer that was closed is not woken in a loop that may be gone."""
    calls = []
    listener = lambda: calls.append(1)  # noqa: E731
    board.subscribe(listener)
    board.mark_ready()
    board.unsubscribe(listener)
    board.drain()
    assert calls == [1]
