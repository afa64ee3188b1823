"""A server that is stopped takes no more calls, gives those that it has some time, and ends."""

import threading
import time

import grpc
import pytest

from tests.conformance.probe import TIMEOUT_S

LONG_S = 60.0
SHORT_S = 0.3


class Slow:
    """A servicer that answers when it may, or when its call is over."""

    def __init__(self):
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.is_over = threading.Event()

    def __call__(self, request, context):
        """Wait."""
        context.add_callback(self.is_over.set)
        context.add_callback(self.may_end.set)
        self.has_begun.set()
        self.may_end.wait(TIMEOUT_S)
        return b"late"


@pytest.fixture
def slow():
    """The servicer."""
    return Slow()


@pytest.fixture
def probe(open_probe, slow):
    """Its server."""
    return open_probe("unary_unary", slow)


@pytest.fixture
def method(probe):
    """The way to it."""
    return probe.connect()


@pytest.fixture
def call(method, slow):
    """A call that is under way."""
    call = method.future(b"", timeout=TIMEOUT_S)
    assert slow.has_begun.wait(TIMEOUT_S)
    return call


def assert_unavailable(method):
    """No new call is taken."""
    with pytest.raises(grpc.RpcError) as raised:
        method(b"", timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def test_new_calls_are_refused_while_old_ones_finish(probe, method, slow, call):
    """Those on the connection that is there as those on a new one."""
    stopped = probe.server.stop(LONG_S)
    assert_unavailable(method)
    assert_unavailable(probe.connect())
    assert not stopped.is_set()
    slow.may_end.set()
    assert call.result() == b"late"
    assert stopped.wait(TIMEOUT_S)


def test_grace_is_not_waited_for_in_full(probe, slow, call):
    """The last call that ends ends the server."""
    begun = time.monotonic()
    stopped = probe.server.stop(LONG_S)
    slow.may_end.set()
    assert stopped.wait(TIMEOUT_S)
    assert time.monotonic() - begun < LONG_S / 2
    assert call.result() == b"late"


def test_calls_are_cancelled_when_grace_is_over(probe, slow, call):
    """The servicer is told and the client has a status that says to try elsewhere."""
    begun = time.monotonic()
    stopped = probe.server.stop(SHORT_S)
    assert slow.is_over.wait(TIMEOUT_S)
    assert time.monotonic() - begun >= SHORT_S
    assert call.exception().code() is grpc.StatusCode.UNAVAILABLE
    assert stopped.wait(TIMEOUT_S)


@pytest.mark.parametrize("grace", [None, 0])
def test_calls_are_cancelled_at_once_without_grace(probe, slow, call, grace):
    """None waits until it is so, 0 does not."""
    stopped = probe.server.stop(grace)
    if grace is None:
        assert stopped.is_set()
    assert stopped.wait(TIMEOUT_S)
    assert slow.is_over.wait(TIMEOUT_S)
    assert call.exception().code() is grpc.StatusCode.UNAVAILABLE


def test_shorter_grace_counts_when_it_comes_second(probe, slow, call):
    """An operator who is asked twice means it."""
    first, second = probe.server.stop(LONG_S), probe.server.stop(0)
    assert slow.is_over.wait(TIMEOUT_S)
    assert first.wait(TIMEOUT_S)
    assert second.wait(TIMEOUT_S)
    assert call.exception().code() is grpc.StatusCode.UNAVAILABLE


def test_wait_for_termination_returns_when_the_server_has_ended(probe, slow, call):
    """And says whether its own time ran out first."""
    assert probe.server.wait_for_termination(timeout=0.05) is True
    results = []
    waiting = threading.Thread(target=lambda: results.append(probe.server.wait_for_termination()))
    waiting.start()
    stopped = probe.server.stop(LONG_S)
    slow.may_end.set()
    assert stopped.wait(TIMEOUT_S)
    waiting.join(TIMEOUT_S)
    assert results == [False]
    assert call.result() == b"late"


def test_stop_of_a_server_that_has_ended_is_no_error(probe):
    """It has ended."""
    assert probe.server.stop(None).wait(TIMEOUT_S)
    assert probe.server.stop(None).is_set()
    assert probe.server.stop(SHORT_S).is_set()
    assert probe.server.wait_for_termination(timeout=TIMEOUT_S) is False


def test_stop_closes_the_port(probe, method):
    """Whoever comes then finds nobody."""
    assert probe.server.stop(None).wait(TIMEOUT_S)
    assert_unavailable(method)
    assert_unavailable(probe.connect())


def test_stop_ends_a_stream_that_waits_for_its_client(open_probe):
    """A servicer that reads is not left reading."""
    has_begun, has_ended, client_may_end = threading.Event(), threading.Event(), threading.Event()

    def read_all(requests, context):
        has_begun.set()
        try:
            yield from requests
        finally:
            has_ended.set()

    def send_none():
        client_may_end.wait(TIMEOUT_S)
        yield from ()

    probe = open_probe("stream_stream", read_all)
    call = probe.connect()(send_none(), timeout=TIMEOUT_S)
    assert has_begun.wait(TIMEOUT_S)
    assert probe.server.stop(SHORT_S).wait(TIMEOUT_S)
    assert has_ended.wait(TIMEOUT_S)
    with pytest.raises(grpc.RpcError) as raised:
        next(call)
    client_may_end.set()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
