"""The native server as grpcio's clients see it: what becomes of calls whose handler or message is broken."""

import grpc
import pytest

from tests.kernels.raw_handlers import ECHO, echo, fail, unary
from tests.kernels.raw_service import path, refused

Code = grpc.StatusCode


def leave(request, context):
    """End the thread, as a handler that calls sys.exit does."""
    raise SystemExit("leaving")


class UnprintableError(Exception):
    """Has no text."""

    def __str__(self):
        raise ValueError("no text")


def fail_unprintably(request, context):
    """Break, and do not say how."""
    raise UnprintableError


@pytest.mark.parametrize(
    ("handler", "code", "text"),
    [
        (unary(fail), Code.UNKNOWN, "Exception calling application: broken handler"),
        (unary(leave), Code.UNKNOWN, "Exception calling application: leaving"),
        (unary(fail_unprintably), Code.UNKNOWN, "Calling application raised unprintable Exception!"),
        (unary(echo, request_deserializer=int), Code.INTERNAL, "Exception deserializing request!"),
        (unary(echo, response_serializer=int), Code.INTERNAL, "Failed to serialize response!"),
        (unary(lambda request, context: None), Code.INTERNAL, "Failed to serialize response!"),
    ],
)
def test_broken_handler_gives_grpcio_s_status(serve, caplog, handler, code, text):
    """The failure is in the log, and the next call is served."""
    service = serve({"Broken": handler, **ECHO})
    with refused(code, text):
        service.call("Broken", b"no number")
    assert caplog.records
    assert service.call("Echo", b"1") == b"1"


def test_stream_that_breaks_gives_what_it_had_and_the_status(serve):
    """Replies first."""

    def count(request, context):
        yield b"1"
        raise ValueError("broken handler")

    replies = serve({"Count": grpc.unary_stream_rpc_method_handler(count)}).read("Count")
    assert next(replies) == b"1"
    with refused(Code.UNKNOWN, "Exception iterating responses: broken handler"):
        next(replies)


def test_client_stream_with_an_unreadable_message_ends(serve):
    """The handler sees its requests end."""
    seen = []

    def collect(requests, context):
        seen.extend(requests)
        return b""

    handler = grpc.stream_unary_rpc_method_handler(collect, request_deserializer=int)
    with refused(Code.INTERNAL, "Exception deserializing request!"):
        serve({"Collect": handler}).write("Collect", [b"1", b"2", b"x", b"4"])
    assert seen == [1, 2]


def test_unary_call_without_a_request_is_unimplemented(serve):
    """As grpcio has it."""
    service = serve(ECHO)
    with refused(Code.UNIMPLEMENTED, f'"{path("Echo")}" requires exactly one request message.'):
        service.write("Echo", [])
