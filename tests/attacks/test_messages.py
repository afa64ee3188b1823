"""Messages that are too large, cut into unlikely pieces, or not what their prefix says."""

import pytest

from tests.attacks.attacked_server import ECHO_PATH, INFER_PATH, STREAM_PATH, check_reply, small_request
from tests.http2_frames import DATA, END_STREAM, LARGEST_WINDOW, PADDED, encode_frame, encode_message

INTERNAL, RESOURCE_EXHAUSTED = 13, 8
PATHS = pytest.mark.parametrize("path", [INFER_PATH, STREAM_PATH, ECHO_PATH], ids=["infer", "stream", "python"])
LIMIT = 4096
MIB = 2**20


def prove_alive(connection):
    """Have a call on the same connection answered."""
    check_reply(connection.await_reply(connection.send_call(small_request())).message)


@PATHS
@pytest.mark.parametrize("size", [LIMIT + 1, 2**32 - 1])
def test_message_announced_over_the_limit_is_exhausted(attack, path, size):
    """At its prefix, with the limit in the text."""
    server = attack(max_message_bytes=LIMIT)
    with server.connect() as connection:
        for _ in range(100):
            stream = connection.open_call(_path=path)
            connection.send_data(stream, encode_message(b"", size=size))
            reply = connection.await_reply(stream)
            assert reply.status == RESOURCE_EXHAUSTED
            assert str(LIMIT) in reply.fields["grpc-message"]
        prove_alive(connection)


@PATHS
def test_message_sent_over_the_limit_is_exhausted(attack, path):
    """What comes of it is thrown away, and does not use up the windows."""
    server = attack(max_message_bytes=LIMIT)
    with server.connect() as connection:
        connection.acknowledge_settings()
        for _ in range(400):
            stream = connection.send_call(bytes(60_000), _path=path)
            assert connection.await_reply(stream).status == RESOURCE_EXHAUSTED
        prove_alive(connection)


@PATHS
def test_message_in_frames_of_a_byte_is_served(attack, path):
    """Its prefix too."""
    server = attack()
    with server.connect() as connection:
        stream = connection.open_call(_path=path)
        connection.send_data(stream, encode_message(small_request()), ends=True, frame_bytes=1)
        assert connection.await_reply(stream).status == 0


def test_messages_in_padded_frames_are_served(attack):
    """Padding counts for the windows, which open again: there is more of it than they hold."""
    server = attack()
    content = encode_message(small_request())
    frames = [
        (END_STREAM if place == len(content) else 0, b"\xff" + content[place - 1 : place] + bytes(255))
        for place in range(1, len(content) + 1)
    ]
    with server.connect(window=LARGEST_WINDOW) as connection:
        for _ in range(20 * MIB // (257 * len(content))):
            stream = connection.open_call()
            connection.send(b"".join(encode_frame(DATA, PADDED | ends, stream, part) for ends, part in frames))
            check_reply(connection.await_reply(stream).message)


def test_padding_as_long_as_its_frame_ends_the_connection(attack):
    """There is no room for it."""
    server = attack()
    with server.connect() as connection:
        stream = connection.open_call()
        connection.send_frame(DATA, PADDED, stream, b"\x06hello")
        connection.await_end()
    server.await_connections(1)


@pytest.mark.parametrize(("path", "status"), [(INFER_PATH, INTERNAL), (STREAM_PATH, 0)], ids=["one", "a stream"])
def test_several_messages_in_a_frame_are_as_many_for_the_method(attack, path, status):
    """A method of one message refuses a second; each of a stream's is answered."""
    server = attack()
    with server.connect() as connection:
        stream = connection.open_call(_path=path)
        connection.send_data(stream, encode_message(small_request()) * 20, ends=True)
        reply = connection.await_reply(stream)
        assert reply.status == status
        assert (len(reply.data) > 20 * 16) == (status == 0)
        prove_alive(connection)


@PATHS
@pytest.mark.parametrize(
    "content",
    [b"\0", b"\0\0\0\0", b"\0\0\0\0\5hell", b"\2\0\0\0\0", b"\xff\0\0\0\1x", b"\1\0\0\0\1x"],
    ids=["a byte", "half a prefix", "half a message", "flag 2", "flag 255", "compressed without encoding"],
)
def test_message_that_is_not_as_framed_is_an_error(attack, path, content):
    """INTERNAL, as gRPC has it, and nothing of it stays."""
    server = attack()
    with server.connect() as connection:
        stream = connection.open_call(_path=path)
        connection.send_data(stream, content, ends=True)
        assert connection.await_reply(stream).status == INTERNAL
        prove_alive(connection)


def test_call_without_a_message_is_an_error(attack):
    """For a method of one; a stream without any is just over."""
    server = attack()
    with server.connect() as connection:
        for path, status in ((INFER_PATH, INTERNAL), (STREAM_PATH, 0), (ECHO_PATH, 12)):
            stream = connection.open_call(_path=path)
            connection.send_data(stream, b"", ends=True)
            assert connection.await_reply(stream).status == status


@pytest.mark.parametrize("content", [bytes(100), b"\xff" * 300, b"\x0a\xff\xff\xff\xff\x0f", b"hello"])
def test_message_that_is_no_request_is_refused(attack, content):
    """INVALID_ARGUMENT; in a stream as an answer of its own."""
    server = attack()
    with server.connect() as connection:
        assert connection.await_reply(connection.send_call(content)).status in (3, 5)
        assert connection.await_reply(connection.send_call(content, _path=STREAM_PATH)).status == 0
        prove_alive(connection)


def test_end_of_a_stream_in_an_empty_frame_counts_once(attack):
    """And the call is answered."""
    server = attack()
    with server.connect() as connection:
        for _ in range(100):
            stream = connection.send_call(small_request(), missing=0)
            check_reply(connection.await_reply(stream).message)
            stream = connection.open_call()
            connection.send_data(stream, encode_message(small_request()))
            connection.send(encode_frame(DATA, END_STREAM, stream))
            check_reply(connection.await_reply(stream).message)
