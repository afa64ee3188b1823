"""The native server as grpcio's clients see it: the four shapes, and who answers."""

import threading
import time

import grpc
import pytest

from tests.kernels.raw_handlers import ECHO, unary
from tests.kernels.raw_service import SERVICE, WAIT_S, path, refused

Code = grpc.StatusCode


# ---- the four shapes


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_unary_call_gets_its_own_bytes_back(serve, size):
    """Of any size, an empty message among them."""
    message = b"x" * size
    assert serve(ECHO).call("Echo", message) == message


def test_messages_pass_their_serializers(serve):
    """A handler works on objects."""
    double = unary(
        lambda request, context: 2 * request,
        request_deserializer=lambda message: int(message),
        response_serializer=lambda reply: str(reply).encode(),
    )
    assert serve({"Double": double}).call("Double", b"21") == b"42"


def test_server_stream_gives_every_reply_in_order(serve):
    """And then the status."""
    count = grpc.unary_stream_rpc_method_handler(lambda request, context: (b"%d" % n for n in range(int(request))))
    replies = serve({"Count": count}).read("Count", b"100")
    assert list(replies) == [b"%d" % n for n in range(100)]
    assert replies.code() is Code.OK


def test_client_stream_is_read_to_its_end(serve):
    """Each message once, none lost."""
    join = grpc.stream_unary_rpc_method_handler(lambda requests, context: b",".join(requests))
    service = serve({"Join": join})
    assert service.write("Join", [b"a", b"", b"c"]) == b"a,,c"
    assert service.write("Join", []) == b""


def test_streams_both_ways_talk_in_turns(serve):
    """A reply comes before the next request is written."""
    shout = grpc.stream_stream_rpc_method_handler(lambda requests, context: (r.upper() for r in requests))
    said = threading.Semaphore(1)

    def speak():
        for word in (b"one", b"two", b"three"):
            assert said.acquire(timeout=WAIT_S)
            yield word

    heard = []
    for reply in serve({"Shout": shout}).talk("Shout", speak()):
        heard.append(reply)
        said.release()
    assert heard == [b"ONE", b"TWO", b"THREE"]


def test_large_stream_to_a_slow_reader_does_not_pile_up(serve):
    """The handler waits for its client, whose every message still comes."""
    given = []

    def pour(request, context):
        for number in range(1000):
            given.append(number)
            yield b"%d" % number + b" " * 100_000

    replies = serve({"Pour": grpc.unary_stream_rpc_method_handler(pour)}).read("Pour", timeout=60)
    assert next(replies).split() == [b"0"]
    time.sleep(0.5)  # time in which a handler that does not wait would give all
    assert len(given) < 500
    assert [int(reply) for reply in replies] == list(range(1, 1000))


def test_stream_that_its_client_cancels_ends_its_handler(serve):
    """The generator is closed, also while it waits for its client to read."""
    closed = threading.Event()

    def pour(request, context):
        try:
            while True:
                yield b" " * 100_000
        finally:
            closed.set()

    replies = serve({"Pour": grpc.unary_stream_rpc_method_handler(pour)}).read("Pour")
    next(replies)
    replies.cancel()
    assert closed.wait(WAIT_S)


# ---- who answers


def test_unknown_method_is_unimplemented(serve):
    """In grpcio's words."""
    with refused(Code.UNIMPLEMENTED, "Method not found!"):
        serve(ECHO).call("Other")


def test_registered_handler_comes_before_generic_ones(serve):
    """And a generic one answers what nobody has registered."""
    service = serve(ECHO)
    generic = grpc.method_handlers_generic_handler(
        SERVICE, {name: unary(lambda request, context: b"generic") for name in ("Echo", "Other")}
    )
    service.server.add_generic_rpc_handlers((generic,))
    assert [service.call(name, b"mine") for name in ("Echo", "Other")] == [b"mine", b"generic"]


def test_generic_handler_that_fails_gives_unknown(serve, caplog):
    """The failure is in the log."""

    class Broken(grpc.GenericRpcHandler):
        def service(self, handler_call_details):
            raise ValueError("broken lookup")

    service = serve({})
    service.server.add_generic_rpc_handlers((Broken(),))
    with refused(Code.UNKNOWN, "Error in service handler!"):
        service.call("Echo")
    assert "broken lookup" in caplog.text


def test_interceptors_see_method_and_metadata_and_may_answer(serve):
    """In the order in which they were given."""
    seen = []

    class Recorder(grpc.ServerInterceptor):
        def __init__(self, name):
            self._name = name

        def intercept_service(self, continuation, handler_call_details):
            metadata = dict(handler_call_details.invocation_metadata)
            seen.append((self._name, handler_call_details.method, metadata["who"]))
            if metadata["who"] == "nobody":
                return unary(lambda request, context: context.abort(Code.UNAUTHENTICATED, "who are you?"))
            return continuation(handler_call_details)

    service = serve(ECHO, interceptors=(Recorder("first"), Recorder("second")))
    assert service.call("Echo", b"1", metadata=(("who", "me"),)) == b"1"
    assert seen == [("first", path("Echo"), "me"), ("second", path("Echo"), "me")]
    with refused(Code.UNAUTHENTICATED, "who are you?"):
        service.call("Echo", metadata=(("who", "nobody"),))
