"""A servicer learns that its call is over, however it ends, and what it does then hurts nobody."""

import threading

import grpc
import pytest

from tests.conformance.probe import PATH, TIMEOUT_S
from tests.raw_http2 import RawConnection


class Patient:
    """A servicer that waits until its call is over, and what it has seen by then."""

    def __init__(self):
        self.has_begun = threading.Event()
        self.is_over = threading.Event()
        self.has_looked = threading.Event()
        self.errors = []

    def __call__(self, request, context):
        """Wait, look, and try to send something nevertheless."""
        context.add_callback(self.is_over.set)
        self.has_begun.set()
        self.is_over.wait(TIMEOUT_S)
        self.is_active = context.is_active()
        try:
            context.send_initial_metadata([("too", "late")])
        except grpc.RpcError as error:
            self.errors.append(error)
            self.has_looked.set()
            raise
        return request

    def assert_saw_cancellation(self):
        """It was told, and could send no more."""
        assert self.has_looked.wait(TIMEOUT_S)
        assert self.is_over.is_set()
        assert not self.is_active
        assert len(self.errors) == 1


def test_cancellation_by_the_client_is_seen_by_the_servicer(serve):
    """Callbacks are called, the context is not active, and nothing can be sent."""
    patient = Patient()
    call = serve("unary_unary", patient).future(b"", timeout=TIMEOUT_S)
    assert patient.has_begun.wait(TIMEOUT_S)
    call.cancel()
    patient.assert_saw_cancellation()


def test_cancellation_by_an_asyncio_client_is_seen_by_the_servicer(open_probe, loop):
    """The same from a loop."""
    patient = Patient()
    probe = open_probe("unary_unary", patient)

    async def call_and_cancel():
        async with grpc.aio.insecure_channel(probe.address) as channel:
            call = channel.unary_unary(PATH)(b"", timeout=TIMEOUT_S)
            assert await loop.get_loop().run_in_executor(None, patient.has_begun.wait, TIMEOUT_S)
            call.cancel()
            assert await call.code() is grpc.StatusCode.CANCELLED

    loop.run(call_and_cancel())
    patient.assert_saw_cancellation()


def test_connection_that_breaks_cancels_its_calls(open_probe):
    """A client that vanishes is a client that cancels."""
    patient = Patient()
    probe = open_probe("unary_unary", patient)
    with RawConnection(probe.address) as connection:
        connection.send_call(b"", _path=PATH)
        assert patient.has_begun.wait(TIMEOUT_S)
        connection.reset()
        patient.assert_saw_cancellation()


def test_cancellation_of_one_call_leaves_the_others(serve):
    """Of the same connection."""
    patient = Patient()

    def wait_if_asked(request, context):
        return patient(request, context) if request == b"wait" else request

    method = serve("unary_unary", wait_if_asked)
    cancelled = method.future(b"wait", timeout=TIMEOUT_S)
    assert patient.has_begun.wait(TIMEOUT_S)
    others = [method.future(b"%d" % nonce, timeout=TIMEOUT_S) for nonce in range(20)]
    cancelled.cancel()
    assert [other.result() for other in others] == [b"%d" % nonce for nonce in range(20)]
    patient.assert_saw_cancellation()


def test_cancellation_ends_the_wait_for_a_request(serve):
    """The iterator of requests raises what grpcio's servicers know, or ends, as it happens in grpcio too."""
    has_begun, is_over, client_may_end = threading.Event(), threading.Event(), threading.Event()
    errors = []

    def read_all(requests, context):
        try:
            for _ in requests:
                has_begun.set()
        except Exception as error:
            errors.append(error)
            raise
        finally:
            is_over.set()
        return b""

    def send_one():
        yield b"one"
        client_may_end.wait(TIMEOUT_S)

    call = serve("stream_unary", read_all).future(send_one(), timeout=TIMEOUT_S)
    assert has_begun.wait(TIMEOUT_S)
    call.cancel()
    assert is_over.wait(TIMEOUT_S)
    client_may_end.set()
    assert all(isinstance(error, grpc.RpcError) for error in errors)


def test_cancellation_closes_the_generator_of_responses(serve):
    """It is not asked for more than it has begun."""
    is_closed = threading.Event()

    def answer_without_end(request, context):
        try:
            while True:
                yield b"more"
        finally:
            is_closed.set()

    call = serve("unary_stream", answer_without_end)(b"", timeout=TIMEOUT_S)
    assert next(call) == b"more"
    call.cancel()
    assert is_closed.wait(TIMEOUT_S)


def test_cancellation_by_the_servicer_is_the_clients_status(serve):
    """And the servicer's own callbacks are called."""
    is_over, has_looked, was_active = threading.Event(), threading.Event(), []

    def cancel(request, context):
        context.add_callback(is_over.set)
        context.cancel()
        is_over.wait(TIMEOUT_S)
        was_active.append(context.is_active())
        has_looked.set()
        return request

    with pytest.raises(grpc.RpcError) as raised:
        serve("unary_unary", cancel)(b"", timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.CANCELLED
    assert has_looked.wait(TIMEOUT_S)
    assert is_over.is_set()
    assert was_active == [False]


def return_it(request, context):
    """End well."""
    return request


def abort_it(request, context):
    """End with an error."""
    context.abort(grpc.StatusCode.ABORTED, "so")


def raise_it(request, context):
    """End by accident."""
    raise ValueError("boom")


@pytest.mark.parametrize("end", [return_it, abort_it, raise_it])
def test_callbacks_are_called_at_every_end(serve, end):
    """In the order in which they were added, each once; one that raises keeps no other from it."""
    called, is_over = [], threading.Event()

    def add_callbacks(request, context):
        context.add_callback(lambda: called.append(context.is_active()))
        context.add_callback(lambda: 1 / 0)
        context.add_callback(lambda: called.append("second"))
        assert context.add_callback(is_over.set)
        assert context.is_active()
        return end(request, context)

    call = serve("unary_unary", add_callbacks).future(b"", timeout=TIMEOUT_S)
    assert is_over.wait(TIMEOUT_S)
    assert called == [False, "second"]
    assert (call.exception() is None) is (end is return_it)


def test_callback_of_a_call_that_is_over_is_refused(serve):
    """It would never be called."""
    contexts, is_over = [], threading.Event()

    def keep(request, context):
        contexts.append(context)
        context.add_callback(is_over.set)
        return request

    assert serve("unary_unary", keep)(b"", timeout=TIMEOUT_S) == b""
    assert is_over.wait(TIMEOUT_S)
    assert contexts[0].add_callback(is_over.set) is False
    assert not contexts[0].is_active()
