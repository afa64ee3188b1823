"""A servicer knows how long its client waits, and when it waits no longer."""

import threading

import grpc
import pytest

from tests.conformance.probe import PATH, TIMEOUT_S
from tests.raw_http2 import RawConnection

# In it a servicer has to begin, which a busy machine may keep waiting.
SHORT_S = 1.5
# Clocks are read in steps, and a timeout is rounded up on its way.
TOLERANCE_S = 0.1
# More than any deadline, less than what stands for none.
AGES_S = 10**9


class Witness:
    """A servicer that does nothing until its call is over, and what it has seen by then."""

    def __init__(self):
        self.is_over = threading.Event()
        self.has_looked = threading.Event()

    def __call__(self, request, context):
        """Look before and after."""
        self.remaining_before_s = context.time_remaining()
        context.add_callback(self.is_over.set)
        self.was_told = self.is_over.wait(TIMEOUT_S)
        self.is_active = context.is_active()
        self.remaining_after_s = context.time_remaining()
        self.may_add_callback = context.add_callback(self.is_over.set)
        self.has_looked.set()
        return request

    def assert_saw_deadline(self):
        """It was told at the deadline, and time was up."""
        assert self.has_looked.wait(TIMEOUT_S)
        assert 0 < self.remaining_before_s <= SHORT_S + TOLERANCE_S
        assert self.was_told
        assert not self.is_active
        assert self.remaining_after_s <= self.remaining_before_s / 2
        assert not self.may_add_callback


def test_time_remaining_is_what_the_client_gave(serve):
    """A little less, for the way."""

    def tell(request, context):
        return str(context.time_remaining()).encode()

    remaining_s = float(serve("unary_unary", tell)(b"", timeout=TIMEOUT_S))
    # The timeout is rounded up on its way.
    assert TIMEOUT_S / 2 < remaining_s < TIMEOUT_S + 1


def test_time_remaining_without_a_deadline_is_endless(serve):
    """None, as the interface has it, or greater than anything that a deadline gives, as grpcio's server has it."""

    def tell(request, context):
        remaining = context.time_remaining()
        return str("inf" if remaining is None else remaining).encode()

    assert float(serve("unary_unary", tell)(b"")) > AGES_S


def test_deadline_ends_the_call_and_is_seen_by_the_servicer(serve):
    """Both sides know."""
    witness = Witness()
    with pytest.raises(grpc.RpcError) as raised:
        serve("unary_unary", witness)(b"", timeout=SHORT_S)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    witness.assert_saw_deadline()


def test_deadline_of_a_client_that_says_nothing_is_kept_by_the_server(open_probe):
    """It does not rely on being told."""
    witness = Witness()
    probe = open_probe("unary_unary", witness)
    with RawConnection(probe.address) as connection:
        connection.send_call(b"", _path=PATH, grpc_timeout=f"{int(SHORT_S * 1000)}m")
        witness.assert_saw_deadline()


def test_deadline_ends_the_wait_for_a_request(serve):
    """A servicer that reads a stream is not left waiting: its iterator raises or ends, as it happens in grpcio too."""
    is_over, client_may_end = threading.Event(), threading.Event()

    def read_all(requests, context):
        try:
            list(requests)
        finally:
            is_over.set()
        return b""

    def send_none():
        client_may_end.wait(TIMEOUT_S)
        yield from ()

    with pytest.raises(grpc.RpcError) as raised:
        serve("stream_unary", read_all)(send_none(), timeout=SHORT_S)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert is_over.wait(TIMEOUT_S)
    client_may_end.set()


def test_deadline_ends_an_endless_stream_of_responses(serve):
    """The generator is closed, and the client has the deadline's status."""
    is_closed = threading.Event()

    def answer_without_end(request, context):
        try:
            while True:
                yield b"more"
        finally:
            is_closed.set()

    call = serve("unary_stream", answer_without_end)(b"", timeout=SHORT_S)
    with pytest.raises(grpc.RpcError) as raised:
        list(call)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert is_closed.wait(TIMEOUT_S)
