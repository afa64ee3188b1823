"""More calls at a time than a connection may have, and frames for streams that are not there."""

import pytest

from tests.attacks.attacked_server import check_reply, small_request
from tests.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    STREAM_CLOSED,
    encode_message,
    encode_reset,
    encode_window_update,
)
from tests.raw_http2 import encode_request


def test_streams_before_settings_are_acknowledged_are_refused_beyond_the_limit(attack):
    """Each by itself, so that the client may send it again; those within the limit are served."""
    server = attack(max_streams=10)
    with server.connect() as connection:
        held = [connection.open_call() for _ in range(10)]
        for _ in range(100):
            reply = connection.await_reply(connection.open_call())
            assert reply.reset == REFUSED_STREAM
        for stream in held:
            connection.send_data(stream, encode_message(small_request()), ends=True)
            check_reply(connection.await_reply(stream).message)


def test_stream_after_settings_are_acknowledged_ends_the_connection_beyond_the_limit(attack):
    """Who has agreed to the limit and breaks it is at fault."""
    server = attack(max_streams=10)
    with server.connect() as connection:
        connection.acknowledge_settings()
        for _ in range(11):
            connection.open_call()
        assert connection.await_end()[-1].error == PROTOCOL_ERROR
    server.await_connections(1)


def test_connection_with_refused_streams_outlives_the_time_for_headers(attack):
    """The headers of a refused call are complete too."""
    server = attack(max_streams=1, header_timeout_s=0.3)
    with server.connect() as connection:
        held = connection.open_call()
        connection.await_reply(connection.open_call())
        server.bystander.await_seconds(0.8)
        connection.await_ping()
        connection.send_data(held, b"", ends=True)
        assert connection.await_reply(held).status == 13


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ((DATA, 0, 7, b"x"), PROTOCOL_ERROR),
        ((DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        ((HEADERS, END_HEADERS, 2, encode_request()), PROTOCOL_ERROR),
        ((HEADERS, END_HEADERS, 0, encode_request()), PROTOCOL_ERROR),
        ((RST_STREAM, 0, 7, bytes(4)), PROTOCOL_ERROR),
        ((RST_STREAM, 0, 0, bytes(4)), PROTOCOL_ERROR),
        ((0x8, 0, 7, b"\0\0\0\1"), PROTOCOL_ERROR),
        ((PUSH_PROMISE, END_HEADERS, 1, bytes(4) + encode_request()), PROTOCOL_ERROR),
        ((PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
        ((GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    ],
    ids=[
        "DATA on an idle stream",
        "DATA on stream 0",
        "HEADERS on an even stream",
        "HEADERS on stream 0",
        "RST_STREAM on an idle stream",
        "RST_STREAM on stream 0",
        "WINDOW_UPDATE on an idle stream",
        "PUSH_PROMISE",
        "PING on a stream",
        "GOAWAY on a stream",
    ],
)
def test_frame_on_a_stream_that_cannot_have_it_ends_the_connection(attack, frame, error):
    """With an error that says so; calls of others go on."""
    server = attack()
    with server.connect() as connection:
        connection.await_reply(connection.send_call(small_request()))
        connection.send_frame(*frame)
        last = connection.await_end()[-1]
        assert (last.kind, last.error) == (GOAWAY, error)
    server.await_connections(1)


def test_frames_on_closed_streams_are_ignored(attack):
    """They may have been on their way when the stream closed; none of them is answered, and calls go on."""
    server = attack(header_timeout_s=0.3)
    with server.connect() as connection:
        closed = connection.send_call(small_request())
        connection.await_reply(closed)
        for _ in range(100):
            connection.send_frame(DATA, 0, closed, bytes(1000))
            connection.send_frame(HEADERS, END_HEADERS | END_STREAM, closed, encode_request())
            connection.send(encode_reset(closed) + encode_window_update(closed, 1))
        server.bystander.await_seconds(0.8)
        check_reply(connection.await_reply(connection.send_call(small_request())).message)


def test_data_after_the_end_of_a_stream_ends_the_connection(attack):
    """END_STREAM was the client's last word on an open call."""
    server = attack()
    with server.connect(window=0) as connection:
        stream = connection.send_call(small_request())
        connection.send_data(stream, b"x", ends=True)
        last = connection.await_end()[-1]
        assert (last.kind, last.error) == (GOAWAY, STREAM_CLOSED)
    server.await_connections(1)
