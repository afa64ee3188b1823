"""A connection that misbehaves: HTTP/2 frames written by hand, by a client that reads when and what it likes."""

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0x0, 0x1, 0x4, 0x6, 0x8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
INITIAL_WINDOW_SIZE = 0x4
LARGEST_WINDOW = 2**31 - 1
FRAME_BYTES = 16384
TIMEOUT_S = 30.0


class RawConnection:
    """One connection in plain text; nothing is read or sent but what is asked for.

    Parameters
    ----------
    window
        Bytes that the server may send on each stream; also for the whole connection when it is the largest.
    """

    def __init__(self, address, *, window=65535):
        self._socket = connect(address)
        self._socket.sendall(PREFACE)
        self._send(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window))
        if window == LARGEST_WINDOW:
            self._send(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - 65535))
        self._next_stream = 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def send_call(self, message, *, path="/inference.GRPCInferenceService/ModelInfer", missing=0, more_headers=None):
        """Send a ModelInfer or another call; `missing` bytes at its end are not sent, so that it never ends."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
            **(more_headers or {}),
        }
        self._send(HEADERS, END_HEADERS, stream, b"".join(encode_header(*header) for header in headers.items()))
        content = b"\0" + struct.pack(">I", len(message)) + message
        content = content[: len(content) - missing]
        for start in range(0, len(content), FRAME_BYTES):
            part = content[start : start + FRAME_BYTES]
            is_last = start + len(part) == len(content) and not missing
            self._send(DATA, END_STREAM if is_last else 0, stream, part)

    def _send(self, kind, flags, stream, payload):
        self._socket.sendall(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    def await_ping(self):
        """Return when the server has read all that was sent before."""
        self._send(PING, 0, 0, b"in order")
        self._await_frame(lambda kind, flags: kind == PING and flags & ACK)

    def await_frame(self, wanted):
        """Return when the first frame of a kind has been read."""
        self._await_frame(lambda kind, flags: kind == wanted)

    def _await_frame(self, is_wanted):
        while True:
            head = self._read(9)
            size = int.from_bytes(head[:3], "big")
            self._read(size)
            if is_wanted(head[3], head[4]):
                return

    def _read(self, size):
        parts = bytearray()
        while len(parts) < size:
            part = self._socket.recv(size - len(parts))
            assert part, "the server hung up"
            parts += part
        return bytes(parts)

    def reset(self):
        """Vanish: the server learns of it by a reset, or when it next writes."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def connect(address):
    """A TCP connection, over which nothing has been said."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), TIMEOUT_S)


def encode_header(name, value):
    """A header in HPACK's plainest form: literal, never indexed, not compressed; both parts below 127 bytes."""
    return b"\x10" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
