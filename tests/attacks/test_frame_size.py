"""Frames that are larger than the server has allowed."""

import struct

import pytest

from tests.http2_frames import CONTINUATION, DATA, FRAME_BYTES, FRAME_SIZE_ERROR, HEADERS, PING, SETTINGS
from tests.raw_http2 import encode_request


@pytest.mark.parametrize("kind", [DATA, HEADERS, SETTINGS, PING, CONTINUATION, 0xFE])
def test_frame_larger_than_allowed_ends_the_connection_at_its_head(attack, kind):
    """Before anything of it has come: nobody waits for 16 MiB of headers."""
    server = attack()
    with server.connect() as connection:
        stream = connection.take_stream()
        if kind == CONTINUATION:
            connection.send_frame(HEADERS, 0, stream, encode_request())
        connection.send(struct.pack(">I", FRAME_BYTES + 1)[1:] + struct.pack(">BBI", kind, 0, stream))
        assert connection.await_end()[-1].error == FRAME_SIZE_ERROR
    server.await_connections(1)
