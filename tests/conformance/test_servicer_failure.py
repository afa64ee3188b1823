"""A servicer that fails: what its client is told, and that the server goes on."""

import grpc
import pytest

from tests.conformance.probe import PATH, SERVICE, TIMEOUT_S

UNREADABLE = b"unreadable"


class UnprintableError(Exception):
    """An error whose text cannot be had."""

    def __str__(self):
        raise self


def read(message):
    """A deserializer that fails at one message."""
    if message == UNREADABLE:
        raise ValueError(message)
    return message


def fail(method, request=b""):
    """The code and message with which a call ends, whatever its shape."""
    with pytest.raises(grpc.RpcError) as raised:
        list(method(request, timeout=TIMEOUT_S))
    return raised.value.code(), raised.value.details()


def raise_error(request, context):
    """A servicer that fails at once."""
    raise ValueError("größer\nboom")


def test_exception_is_unknown_with_its_text(serve):
    """As grpcio words it."""
    expected = (grpc.StatusCode.UNKNOWN, "Exception calling application: größer\nboom")
    assert fail(serve("unary_unary", raise_error)) == expected
    assert fail(serve("unary_stream", raise_error)) == expected


def test_exception_without_text_is_unknown(serve):
    """Not even its text can be had."""

    def raise_unprintable(request, context):
        raise UnprintableError

    expected = (grpc.StatusCode.UNKNOWN, "Calling application raised unprintable Exception!")
    assert fail(serve("unary_unary", raise_unprintable)) == expected


def test_exception_after_responses_is_unknown_and_they_arrive(serve):
    """The client has read what was sent before."""

    def answer_and_raise(request, context):
        yield b"one"
        raise ValueError("boom")

    call = serve("unary_stream", answer_and_raise)(b"", timeout=TIMEOUT_S)
    assert next(call) == b"one"
    assert fail(lambda *_, **__: call) == (grpc.StatusCode.UNKNOWN, "Exception iterating responses: boom")


def test_exception_after_a_status_was_set_has_that_status(serve):
    """What the servicer said of its failure counts more than the failure."""

    def set_and_raise(request, context):
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("gone")
        raise ValueError("boom")

    assert fail(serve("unary_unary", set_and_raise)) == (grpc.StatusCode.NOT_FOUND, "gone")


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream"])
def test_response_that_cannot_be_serialized_is_internal(serve, shape):
    """The serializer's failure is not shown."""

    def refuse(response):
        raise ValueError(response)

    def answer(request, context):
        return b"answer" if shape == "unary_unary" else iter([b"answer"])

    method = serve(shape, answer, response_serializer=refuse)
    assert fail(method) == (grpc.StatusCode.INTERNAL, "Failed to serialize response!")


def test_response_of_none_is_internal(serve):
    """A servicer that forgets to answer."""
    method = serve("unary_unary", lambda request, context: None)
    assert fail(method) == (grpc.StatusCode.INTERNAL, "Failed to serialize response!")


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream"])
def test_request_that_cannot_be_deserialized_is_internal(serve, shape):
    """The servicer is not called."""
    called = []
    method = serve(shape, lambda *given: called.append(given), request_deserializer=read)
    assert fail(method, UNREADABLE) == (grpc.StatusCode.INTERNAL, "Exception deserializing request!")
    assert called == []


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("shape", ["stream_unary", "stream_stream"])
def test_request_of_a_stream_that_cannot_be_deserialized_is_internal(serve, shape):
    """The servicer's iterator ends there; grpcio's server does not always stop afterwards."""
    received = []

    def receive(requests, context):
        received.extend(requests)
        return b"" if shape == "stream_unary" else iter(())

    method = serve(shape, receive, request_deserializer=read)
    assert fail(method, iter([b"readable", UNREADABLE])) == (
        grpc.StatusCode.INTERNAL,
        "Exception deserializing request!",
    )
    assert received == [b"readable"]


def test_call_without_its_one_request_is_unimplemented(open_probe):
    """A client that takes the method for another shape."""
    probe = open_probe("unary_unary", lambda request, context: request)
    method = probe.open_channel().stream_unary(PATH)
    code, details = fail(method, iter(()))
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert details.endswith("requires exactly one request message.")


@pytest.mark.parametrize("path", [f"/{SERVICE}/Nothing", "/sluice.testing.Nobody/Call"])
def test_method_that_is_not_there_is_unimplemented(open_probe, path):
    """Neither the method nor the service."""
    probe = open_probe("unary_unary", lambda request, context: request)
    assert fail(probe.open_channel().unary_unary(path)) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def test_failure_leaves_the_connection_as_it_was(serve):
    """The next call is answered."""

    def fail_if_asked(request, context):
        if request == b"fail":
            raise ValueError
        return request

    method = serve("unary_unary", fail_if_asked)
    for _ in range(20):
        assert fail(method, b"fail")[0] is grpc.StatusCode.UNKNOWN
        assert method(b"well", timeout=TIMEOUT_S) == b"well"
