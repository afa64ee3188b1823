"""Calls that end otherwise than they should: reset while the engine has their message, cut off, failed amid a reply."""

import numpy as np
from inference_messages import encode_request

from tests import raw_http2
from tests.attacks.attacked_server import STREAM_PATH, check_reply, small_request
from tests.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    encode_frame,
    encode_message,
    encode_reset,
    encode_window_update,
)

INTERNAL = 13
# A stream's messages that are taken before the first is answered; the others wait behind these.
STREAM_EXCHANGES = 64
BAD_PREFIX = b"\x02\0\0\0\0"


def test_calls_reset_with_their_message_underway_leave_nothing_charged_to_the_connection(attack):
    """However many a client resets, its next call finds room."""
    server = attack(max_connection_bytes=65536)
    request = encode_request("identity", {"input": np.zeros((1, 4), np.float32)}, request_id="r" * 2000)
    message = encode_message(request)
    with server.connect() as connection:
        for _ in range(100):
            stream = connection.take_stream()
            headers = encode_frame(HEADERS, END_HEADERS, stream, raw_http2.encode_request())
            connection.send(headers + encode_frame(DATA, END_STREAM, stream, message) + encode_reset(stream))
            connection.await_ping()
        check_reply(connection.await_reply(connection.send_call(request)).message)


def test_message_cut_off_behind_waiting_ones_fails_the_call(attack):
    """Though it was not looked at before those had been taken."""
    server = attack()
    message = encode_message(small_request())
    with server.connect() as connection:
        stream = connection.open_call(_path=STREAM_PATH)
        connection.send_data(stream, message * (STREAM_EXCHANGES + 1) + message[:-1], ends=True)
        assert connection.await_reply(stream).status == INTERNAL


def test_stream_that_fails_amid_a_reply_sends_no_part_of_another(attack):
    """Else its client would read one message made of two."""
    server, window = attack(), 10
    message = encode_message(small_request())
    with server.connect(window=window) as connection:
        stream = connection.open_call(_path=STREAM_PATH)
        connection.send_data(stream, message)
        first = connection.await_frame(DATA).payload
        assert len(first) == window
        connection.send_data(stream, message + BAD_PREFIX)
        connection.await_ping()
        connection.send(encode_window_update(stream, 65535))
        reply = connection.await_reply(stream)
        assert (reply.status, bytes(reply.data)) == (INTERNAL, first)
