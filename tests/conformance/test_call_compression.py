"""Messages are compressed where a side says so, by the algorithm that it says, and read by the other."""

from contextlib import ExitStack

import grpc
import pytest

from tests.conformance.probe import TIMEOUT_S
from tests.conformance.servers import MAX_MESSAGE_BYTES
from tests.conformance.tap import DECOMPRESSORS, Tap

ALGORITHMS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
LARGE = bytes(200_000)


@pytest.fixture(params=ALGORITHMS)
def algorithm(request):
    """The name of every algorithm."""
    return request.param


@pytest.fixture
def tap(open_probe):
    """Serves a behaviour behind a tap; `tap(…)` gives the method and the Tap, whose messages are those of one call."""
    with ExitStack() as stack:

        def open_tap(shape, behaviour):
            probe = open_probe(shape, behaviour)
            tap = stack.enter_context(Tap(probe.address))
            stack.callback(probe.close_channels)
            return probe.connect(tap.address), tap

        yield open_tap


def compress(algorithm, response):
    """A servicer that compresses its responses."""

    def answer(request, context):
        context.set_compression(ALGORITHMS[algorithm])
        return response

    return answer


def assert_compressed(messages, algorithm, *expected):
    """Each message was compressed on the wire and is what was expected."""
    assert [is_compressed for is_compressed, _ in messages] == [True] * len(expected)
    assert [DECOMPRESSORS[algorithm](message) for _, message in messages] == list(expected)


def test_compressed_request_is_read(tap, algorithm):
    """The servicer does not notice; the answer is not compressed for that."""
    method, tapped = tap("unary_unary", lambda request, context: request)
    assert method(LARGE, timeout=TIMEOUT_S, compression=ALGORITHMS[algorithm]) == LARGE
    assert_compressed(tapped.requests, algorithm, LARGE)
    assert tapped.responses == [(False, LARGE)]


def test_compressed_requests_of_a_stream_are_read(tap, algorithm):
    """Each message by itself."""
    method, tapped = tap("stream_unary", lambda requests, context: b"".join(requests))
    sent = [LARGE, b"1" * 1000, b"2" * 1000]
    assert method(iter(sent), timeout=TIMEOUT_S, compression=ALGORITHMS[algorithm]) == b"".join(sent)
    assert_compressed(tapped.requests, algorithm, *sent)


def test_response_is_compressed_as_the_servicer_says(tap, algorithm):
    """The request was not."""
    method, tapped = tap("unary_unary", compress(algorithm, LARGE))
    assert method(b"", timeout=TIMEOUT_S) == LARGE
    assert_compressed(tapped.responses, algorithm, LARGE)


def test_responses_of_a_stream_are_compressed_as_the_servicer_says(tap, algorithm):
    """Each message by itself."""
    method, tapped = tap("unary_stream", compress(algorithm, iter([LARGE, b"1" * 1000])))
    assert list(method(b"", timeout=TIMEOUT_S)) == [LARGE, b"1" * 1000]
    assert_compressed(tapped.responses, algorithm, LARGE, b"1" * 1000)


def test_response_is_compressed_when_initial_metadata_was_sent_first(tap, algorithm):
    """The algorithm is told with it."""

    def answer(request, context):
        context.set_compression(ALGORITHMS[algorithm])
        context.send_initial_metadata([("key", "value")])
        return LARGE

    method, tapped = tap("unary_unary", answer)
    response, call = method.with_call(b"", timeout=TIMEOUT_S)
    assert response == LARGE
    assert call.initial_metadata() == (("key", "value"),)
    assert_compressed(tapped.responses, algorithm, LARGE)


def test_both_ways_are_compressed_by_different_algorithms(tap):
    """What the client uses does not bind the server."""
    method, tapped = tap("unary_unary", compress("gzip", LARGE))
    assert method(LARGE, timeout=TIMEOUT_S, compression=grpc.Compression.Deflate) == LARGE
    assert_compressed(tapped.requests, "deflate", LARGE)
    assert_compressed(tapped.responses, "gzip", LARGE)


def test_one_response_is_left_uncompressed_as_the_servicer_says(tap):
    """Of a stream that is compressed otherwise."""

    def answer(request, context):
        context.set_compression(grpc.Compression.Gzip)
        yield LARGE
        context.disable_next_message_compression()
        yield LARGE
        yield LARGE

    method, tapped = tap("unary_stream", answer)
    assert list(method(b"", timeout=TIMEOUT_S)) == [LARGE] * 3
    assert [is_compressed for is_compressed, _ in tapped.responses] == [True, False, True]


def test_error_of_a_call_that_is_compressed_is_told(tap, algorithm):
    """With no message to compress."""

    def abort(request, context):
        context.set_compression(ALGORITHMS[algorithm])
        context.abort(grpc.StatusCode.ABORTED, "so")

    method, tapped = tap("unary_unary", abort)
    with pytest.raises(grpc.RpcError) as raised:
        method(LARGE, timeout=TIMEOUT_S, compression=ALGORITHMS[algorithm])
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.ABORTED, "so")
    assert tapped.responses == []


def test_request_that_is_too_large_when_it_is_read_is_refused(serve, algorithm):
    """A few kilobytes on the wire are not a way around the limit."""
    method = serve("unary_unary", lambda request, context: request)
    with pytest.raises(grpc.RpcError) as raised:
        method(bytes(2 * MAX_MESSAGE_BYTES), timeout=TIMEOUT_S, compression=ALGORITHMS[algorithm])
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert method(b"next", timeout=TIMEOUT_S) == b"next"
