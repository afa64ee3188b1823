"""Messages of any size up to the server's limit arrive whole; one above it is refused, and only that one."""

import random

import grpc
import pytest

from tests.conformance.probe import TIMEOUT_S
from tests.conformance.servers import MAX_MESSAGE_BYTES

# gRPC puts so many bytes before each message.
PREFIX_BYTES = 5
# Around the ends of a frame, of the first window, and of grpcio's own limit; and as much as goes in.
SIZES = (
    0,
    1,
    2**14 - PREFIX_BYTES,
    2**14 - PREFIX_BYTES + 1,
    2**16 - 1 - PREFIX_BYTES,
    2**16,
    4 * 2**20 + 1,
    MAX_MESSAGE_BYTES,
)
MANY = 2000


def make_message(size, nonce=0):
    """Bytes that are not like those of another nonce, nor like their own shifted."""
    return random.Random(nonce).randbytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_message_of_any_size_comes_back_whole(serve, size):
    """As request and as response."""
    message = make_message(size)
    assert serve("unary_unary", lambda request, context: request)(message, timeout=TIMEOUT_S) == message


def test_large_messages_of_a_stream_come_back_in_order(serve):
    """They go both ways at once."""
    messages = [make_message(2**21 + nonce, nonce) for nonce in range(6)]
    method = serve("stream_stream", lambda requests, context: requests)
    assert list(method(iter(messages), timeout=TIMEOUT_S)) == messages


def test_many_small_messages_come_back_in_order(serve):
    """Of every size from none."""
    messages = [make_message(nonce % 300, nonce) for nonce in range(MANY)]
    method = serve("stream_stream", lambda requests, context: requests)
    assert list(method(iter(messages), timeout=TIMEOUT_S)) == messages


@pytest.mark.parametrize("shape", ["unary_unary", "stream_unary"])
def test_message_above_the_limit_is_refused_and_the_next_is_not(serve, shape):
    """The connection is as it was."""
    wrap = (lambda message: iter([message])) if shape == "stream_unary" else lambda message: message

    def count(given, context):
        return b"%d" % len(given if shape == "unary_unary" else b"".join(given))

    method = serve(shape, count)
    with pytest.raises(grpc.RpcError) as raised:
        method(wrap(bytes(MAX_MESSAGE_BYTES + 1)), timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert method(wrap(b"next"), timeout=TIMEOUT_S) == b"4"
