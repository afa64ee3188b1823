"""Metadata arrives as it was sent, both ways: text and bytes, in order, each key as often as it was given."""

import random
import threading

import grpc
import pytest

from tests.conformance.probe import TIMEOUT_S

BYTES = {
    "empty": b"",
    "zero": b"\0",
    "every-byte": bytes(range(256)),
    "one-of-padding": b"12345",
    "two-of-padding": b"1234",
    "large": random.Random(5).randbytes(3000),
}
TEXTS = {"words": "two words", "punctuation": "a,b;c=d~%41", "empty": ""}
DUPLICATES = (("tag", "one"), ("tag", "two"), ("tag-bin", b"\xff\x00"), ("other", "x"), ("tag-bin", b"\x00\xff"))


def echo_metadata(request, context):
    """Send what came as initial and as trailing metadata."""
    given = [pair for pair in context.invocation_metadata() if pair[0] != "user-agent"]
    context.send_initial_metadata(given)
    context.set_trailing_metadata(given)
    return request


def echo_of(method, sent):
    """Initial and trailing metadata of a call that echoes what is sent."""
    _, call = method.with_call(b"", metadata=sent, timeout=TIMEOUT_S)
    return tuple(map(tuple, call.initial_metadata())), tuple(map(tuple, call.trailing_metadata()))


@pytest.mark.parametrize("value", BYTES.values(), ids=BYTES)
def test_binary_metadata_of_any_bytes_is_unchanged(serve, value):
    """To the servicer and back, first and last."""
    sent = (("trace-bin", value),)
    assert echo_of(serve("unary_unary", echo_metadata), sent) == (sent, sent)


@pytest.mark.parametrize("value", TEXTS.values(), ids=TEXTS)
def test_text_metadata_is_unchanged(serve, value):
    """To the servicer and back, first and last."""
    sent = (("trace", value),)
    assert echo_of(serve("unary_unary", echo_metadata), sent) == (sent, sent)


def test_repeated_keys_keep_their_values_and_their_order(serve):
    """Nothing is joined, dropped or sorted among the values of a key."""
    for received in echo_of(serve("unary_unary", echo_metadata), DUPLICATES):
        assert sorted(received, key=lambda pair: pair[0]) == sorted(DUPLICATES, key=lambda pair: pair[0])


def test_invocation_metadata_leaves_out_what_is_the_protocols(serve):
    """The user agent is a servicer's business; headers of HTTP/2 and gRPC are not."""

    def list_keys(request, context):
        return ",".join(key for key, _ in context.invocation_metadata()).encode()

    call = serve("unary_unary", list_keys)
    keys = call(b"", metadata=[("mine", "x")], timeout=TIMEOUT_S, compression=grpc.Compression.Gzip)
    assert keys == b"user-agent,mine"


@pytest.mark.parametrize("shape", ["unary_stream", "stream_stream"])
def test_initial_metadata_comes_before_the_first_response(serve, shape):
    """The servicer sends nothing else until the client has it."""
    has_metadata = threading.Event()

    def answer_late(request, context):
        context.add_callback(has_metadata.set)
        context.send_initial_metadata([("early", "yes")])
        has_metadata.wait(TIMEOUT_S)
        yield b"late"

    call = serve(shape, answer_late)(iter([b""]) if shape == "stream_stream" else b"", timeout=TIMEOUT_S)
    assert call.initial_metadata() == (("early", "yes"),)
    has_metadata.set()
    assert list(call) == [b"late"]


@pytest.mark.parametrize("has_answered", [False, True], ids=["sent", "answered"])
def test_initial_metadata_that_comes_too_late_is_an_error_of_the_servicer(serve, has_answered):
    """It may be sent once, before any answer."""
    seen = []

    def send_again(request, context):
        if has_answered:
            yield b"first"
        else:
            context.send_initial_metadata([("first", "yes")])
        try:
            context.send_initial_metadata([("second", "yes")])
        except ValueError as error:
            seen.append(str(error))

    list(serve("unary_stream", send_again)(b"", timeout=TIMEOUT_S))
    assert seen == ["Initial metadata no longer allowed!"]


@pytest.mark.parametrize("has_answered", [False, True], ids=["trailers-only", "answered"])
def test_trailing_metadata_comes_with_an_error(serve, has_answered):
    """Whether or not anything was sent before it."""

    def fail(request, context):
        if has_answered:
            yield b"first"
        context.set_trailing_metadata([("why", "because"), ("why-bin", b"\x00\xff")])
        context.abort(grpc.StatusCode.ABORTED, "no")

    call = serve("unary_stream", fail)(b"", timeout=TIMEOUT_S)
    with pytest.raises(grpc.RpcError) as raised:
        list(call)
    assert raised.value.code() is grpc.StatusCode.ABORTED
    assert raised.value.trailing_metadata() == (("why", "because"), ("why-bin", b"\x00\xff"))


def test_trailing_metadata_set_twice_is_the_last(serve):
    """It replaces, it does not add."""

    def set_twice(request, context):
        context.set_trailing_metadata([("first", "x")])
        context.set_trailing_metadata([("second", "y")])
        assert tuple(context.trailing_metadata()) == (("second", "y"),)
        return request

    _, call = serve("unary_unary", set_twice).with_call(b"", timeout=TIMEOUT_S)
    assert call.trailing_metadata() == (("second", "y"),)


@pytest.mark.parametrize("pair", [("Upper", "x"), ("a key", "x"), ("key", "a\nline"), ("key", "ä")], ids=str)
@pytest.mark.parametrize("place", ["send_initial_metadata", "set_trailing_metadata"])
def test_metadata_that_http2_forbids_ends_the_call_as_internal(serve, place, pair):
    """The servicer's mistake is told to the client, and not put on the wire."""

    def send_illegal(request, context):
        getattr(context, place)([pair])
        return request

    with pytest.raises(grpc.RpcError) as raised:
        serve("unary_unary", send_illegal)(b"", timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.INTERNAL
