"""HTTP/2 frames by hand: their numbers, how one is written, and headers in HPACK's plainest form."""

import struct
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 0x1, 0x3, 0x4
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 0x0, 0x1, 0x3, 0x5, 0x6
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x7, 0x8, 0x9, 0xB
HEAD_BYTES = 9
FRAME_BYTES = 16384
DEFAULT_WINDOW = 65535
LARGEST_WINDOW = 2**31 - 1


class Frame(NamedTuple):
    """A frame as it was read; `fields` are those of HEADERS."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    fields: tuple = ()

    @property
    def ends_stream(self):
        """Whether it is the last of its stream from its sender."""
        return self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM)

    @property
    def error(self):
        """The code of a RST_STREAM or GOAWAY."""
        place = 4 if self.kind == GOAWAY else 0
        return int.from_bytes(self.payload[place : place + 4], "big")


def encode_frame(kind, flags=0, stream=0, payload=b""):
    """A frame of whatever is asked for, allowed or not."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def encode_settings(values):
    """A SETTINGS frame of {identifier: value}."""
    return encode_frame(SETTINGS, payload=b"".join(struct.pack(">HI", *pair) for pair in values.items()))


def encode_window_update(stream, increment):
    """A WINDOW_UPDATE frame."""
    return encode_frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def encode_reset(stream, error=CANCEL):
    """A RST_STREAM frame."""
    return encode_frame(RST_STREAM, 0, stream, struct.pack(">I", error))


def encode_header(name, value):
    """A header as a literal that is never indexed and not compressed."""
    return b"\x10" + encode_text(name) + encode_text(value)


def encode_indexed_header(name, value):
    """A header as a literal that enters the dynamic table."""
    return b"\x40" + encode_text(name) + encode_text(value)


def encode_text(text):
    """A string of HPACK, not compressed."""
    content = text if isinstance(text, bytes) else text.encode()
    return encode_integer(len(content), 7) + content


def encode_integer(value, bits, first=0):
    """An integer of HPACK whose first byte has `bits` for it, beside those of `first`."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    encoded = bytearray([first | limit])
    value -= limit
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def encode_message(message, *, is_compressed=False, size=None):
    """A gRPC message with its prefix, which may announce another size."""
    return struct.pack(">?I", is_compressed, len(message) if size is None else size) + message
