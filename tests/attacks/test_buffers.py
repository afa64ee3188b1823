"""Bytes that the server must keep: of messages that never end, of requests that are not read, of replies not taken."""

import contextlib

import pytest

from tests.attacks.attacked_server import (
    ECHO_PATH,
    INFER_PATH,
    STREAM_PATH,
    check_reply,
    large_reply_request,
    small_request,
)
from tests.http2_frames import LARGEST_WINDOW, SETTINGS, encode_message

RESOURCE_EXHAUSTED = 8
MIB = 2**20


def half_send(connection, path=INFER_PATH, size=MIB, sent=MIB // 2):
    """Begin a message and send a part of it."""
    stream = connection.open_call(_path=path)
    connection.send_data(stream, encode_message(bytes(sent), size=size))
    return stream


@pytest.mark.parametrize("path", [INFER_PATH, STREAM_PATH, ECHO_PATH], ids=["infer", "stream", "python"])
def test_messages_over_a_connection_s_limit_are_exhausted(attack, path):
    """One call is refused, those before it go on, and other connections have room."""
    server = attack(max_connection_bytes=4 * MIB)
    with server.connect() as connection:
        connection.acknowledge_settings()
        streams = [half_send(connection, path) for _ in range(20)]
        assert connection.await_reply(streams[-1]).status == RESOURCE_EXHAUSTED
        assert server.buffered_bytes <= 4 * MIB
        with server.connect() as other:
            other.acknowledge_settings()
            half_send(other)
            other.await_ping()
    server.await_connections(1)


def test_messages_over_the_limit_of_all_are_exhausted(attack):
    """Small ones of others are served even then."""
    server = attack(max_connection_bytes=4 * MIB, max_buffered_bytes=8 * MIB)
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(server.connect())
            connection.acknowledge_settings()
            streams = [half_send(connection) for _ in range(10)]
            connection.await_ping()
        assert connection.await_reply(streams[-1]).status == RESOURCE_EXHAUSTED
        assert server.buffered_bytes <= 8 * MIB
        server.bystander.await_calls()
    server.await_connections(1)


def test_messages_that_are_only_announced_leave_room_for_others(attack):
    """What has not come is not counted: or a few bytes each would turn everybody away."""
    server = attack(max_buffered_bytes=64 * MIB)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(server.connect())
            for _ in range(1000):
                half_send(connection, size=32 * MIB, sent=1)
            connection.await_ping()
        with server.connect() as other:
            other.acknowledge_settings()
            reply = other.await_reply(other.send_call(small_request(rows=50_000)))
            assert reply.status != RESOURCE_EXHAUSTED
    server.await_connections(1)


@pytest.mark.parametrize("path", [INFER_PATH, STREAM_PATH], ids=["infer", "stream"])
@pytest.mark.parametrize("window", [0, LARGEST_WINDOW], ids=["shut window", "full socket"])
def test_replies_that_are_not_taken_stay_within_the_limit(attack, path, window):
    """Requests of a few bytes for replies of 64 KiB."""
    server = attack(max_connection_bytes=4 * MIB, max_streams=1000)
    content = encode_message(large_reply_request())
    with server.connect(window=window) as connection:
        connection.await_frame(SETTINGS)
        for _ in range(500):
            connection.send_data(connection.open_call(_path=path), content, ends=True)
        server.await_state(lambda: server.buffered_bytes > 3 * MIB)
        server.bystander.await_calls()
        assert server.buffered_bytes <= 4 * MIB + 2**18
    server.await_connections(1)


@pytest.mark.parametrize("window", [0, LARGEST_WINDOW], ids=["shut window", "full socket"])
def test_stream_whose_replies_are_not_taken_is_read_no_further(attack, window):
    """As many requests as a stream may have at a time are answered; the others wait in its window."""
    server = attack()
    with server.connect(window=window) as connection:
        connection.acknowledge_settings()
        stream = connection.open_call(_path=STREAM_PATH)
        connection.send_data(stream, encode_message(large_reply_request()) * 2000)
        connection.send_frame(0x6, 0, 0, bytes(8))
        server.await_state(lambda: server.buffered_bytes > 3 * MIB)
        server.bystander.await_calls(50)
        assert server.buffered_bytes < 8 * MIB
    server.await_connections(1)


def test_stream_whose_replies_are_taken_late_is_served_to_its_end(attack):
    """Every request, in order, once the window opens."""
    server = attack()
    with server.connect(window=0) as connection:
        connection.acknowledge_settings()
        stream = connection.open_call(_path=STREAM_PATH)
        connection.send_data(stream, encode_message(large_reply_request()) * 300, ends=True)
        server.await_state(lambda: server.buffered_bytes > 3 * MIB)
        connection.widen(stream)
        reply = connection.await_reply(stream)
        assert (reply.status, len(reply.data) > 300 * 65536) == (0, True)


def test_python_call_whose_request_is_not_asked_for_is_read_no_further(attack):
    """Behind the message that a handler works on, a window's worth is kept."""
    server = attack()
    with server.connect() as connection:
        connection.acknowledge_settings()
        stream = connection.open_call(_path="/nowhere")
        connection.send_data(stream, encode_message(bytes(1000)) * 3000)
        reply = connection.await_reply(stream)
        assert reply.status == 12
        check_reply(connection.await_reply(connection.send_call(small_request())).message)
