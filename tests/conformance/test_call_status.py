"""A call ends with the status that its servicer gives it: code, message and details."""

import grpc
import pytest

from tests.conformance.probe import PATH, TIMEOUT_S

ERRORS = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
MESSAGES = {
    "plain": "no such thing",
    "empty": "",
    "unicode": "größer als ☺ und 😈",
    "lines": "\t\none\r\ntwo\n",
    "percent": "100% of %41 and %zz and %",
    "long": "ä" * 1000,
}
# google.rpc.Status of code 5 with the message "gone", in protobuf's encoding.
RICH_STATUS = b"\x08\x05\x12\x04gone"


class GivenStatus(grpc.Status):
    """A status as grpcio-status makes them."""

    def __init__(self, code, details, trailing_metadata):
        self.code, self.details, self.trailing_metadata = code, details, trailing_metadata


def fail(method, request=b""):
    """The error with which a call ends."""
    with pytest.raises(grpc.RpcError) as raised:
        method(request, timeout=TIMEOUT_S)
    return raised.value


@pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
def test_abort_gives_every_code(serve, code):
    """All of gRPC's codes but OK."""
    error = fail(serve("unary_unary", lambda request, context: context.abort(code, "for this reason")))
    assert (error.code(), error.details()) == (code, "for this reason")


@pytest.mark.parametrize("details", MESSAGES.values(), ids=MESSAGES)
def test_abort_gives_every_message(serve, details):
    """Whatever is in it, percent signs and line ends too."""
    abort = serve("unary_unary", lambda request, context: context.abort(grpc.StatusCode.NOT_FOUND, details))
    error = fail(abort)
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, details)


def test_abort_with_ok_is_unknown(serve):
    """An abortion is never a success."""
    error = fail(serve("unary_unary", lambda request, context: context.abort(grpc.StatusCode.OK, "fine")))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, "")


@pytest.mark.parametrize("code", [5, None, "NOT_FOUND"], ids=str)
def test_abort_with_what_is_no_code_is_unknown(serve, code):
    """The message is kept."""
    error = fail(serve("unary_unary", lambda request, context: context.abort(code, "why")))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, "why")


def test_abort_that_the_servicer_swallows_still_aborts(serve):
    """What it returns afterwards is not what the client gets."""

    def swallow(request, context):
        with pytest.raises(Exception):  # noqa: B017, PT011 - grpcio raises Exception itself
            context.abort(grpc.StatusCode.ABORTED, "swallowed")
        return request

    error = fail(serve("unary_unary", swallow))
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "swallowed")


def test_abort_with_status_carries_rich_details(serve):
    """The key that google.rpc.Status travels under is metadata like any other."""
    pair = ("grpc-status-details-bin", RICH_STATUS)
    status = GivenStatus(grpc.StatusCode.NOT_FOUND, "gone", (pair,))
    error = fail(serve("unary_unary", lambda request, context: context.abort_with_status(status)))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "gone")
    assert error.trailing_metadata() == (pair,)


def test_abort_is_told_to_asyncio(open_probe, loop):
    """With its message and its details."""
    pair = ("grpc-status-details-bin", RICH_STATUS)
    status = GivenStatus(grpc.StatusCode.NOT_FOUND, MESSAGES["unicode"], (pair,))
    probe = open_probe("unary_unary", lambda request, context: context.abort_with_status(status))

    async def call():
        async with grpc.aio.insecure_channel(probe.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary(PATH)(b"", timeout=TIMEOUT_S)
        return raised.value

    error = loop.run(call())
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, MESSAGES["unicode"])
    assert tuple(error.trailing_metadata()) == (pair,)


def test_abort_in_a_stream_comes_after_what_was_sent(serve):
    """The client reads every response, then the status."""

    def answer_and_abort(request, context):
        yield b"one"
        yield b"two"
        context.abort(grpc.StatusCode.DATA_LOSS, "no more")

    call = serve("unary_stream", answer_and_abort)(b"", timeout=TIMEOUT_S)
    assert [next(call), next(call)] == [b"one", b"two"]
    with pytest.raises(grpc.RpcError) as raised:
        next(call)
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.DATA_LOSS, "no more")


def test_abort_of_a_stream_of_requests_does_not_wait_for_its_end(serve):
    """The client goes on sending and has its status all the same."""

    def abort_at_once(requests, context):
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, next(requests).decode())

    def send_without_end():
        while True:
            yield b"enough"

    error = fail(serve("stream_unary", abort_at_once), send_without_end())
    assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream"])
def test_code_that_is_set_without_abort_is_the_calls(serve, shape):
    """The servicer ends in its own way, and the client sees an error."""

    def set_code(request, context):
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("größer")
        return b"answer" if shape == "unary_unary" else iter([b"answer"])

    method = serve(shape, set_code)
    error = fail(method if shape == "unary_unary" else lambda *given, **options: list(method(*given, **options)))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "größer")


def test_code_that_is_no_code_is_unknown(serve):
    """As for an abortion."""

    def set_number(request, context):
        context.set_code(5)
        return request

    assert fail(serve("unary_unary", set_number)).code() is grpc.StatusCode.UNKNOWN


def test_details_that_are_set_without_a_code_are_no_error(serve):
    """They are told only of errors."""

    def set_details(request, context):
        context.set_details("all is well")
        return b"answer"

    response, call = serve("unary_unary", set_details).with_call(b"", timeout=TIMEOUT_S)
    assert (response, call.code(), call.details()) == (b"answer", grpc.StatusCode.OK, "")


def test_context_tells_what_was_set(serve):
    """A servicer's layers read each other's; details are bytes."""
    seen = []

    def look(request, context):
        seen.append((context.code(), context.details(), context.trailing_metadata()))
        context.set_code(grpc.StatusCode.ABORTED)
        context.set_details("größer")
        context.set_trailing_metadata((("key", "value"),))
        seen.append((context.code(), context.details(), context.trailing_metadata()))
        return request

    fail(serve("unary_unary", look))
    assert seen == [(None, None, None), (grpc.StatusCode.ABORTED, "größer".encode(), (("key", "value"),))]
