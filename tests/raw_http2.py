"""A connection that misbehaves: HTTP/2 frames written by hand, by a client that reads when and what it likes."""

import socket
import struct
from collections import defaultdict
from dataclasses import dataclass, field

from hpack import Decoder

from tests.http2_frames import (
    ACK,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEAD_BYTES,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Frame,
    encode_frame,
    encode_header,
    encode_message,
    encode_settings,
    encode_window_update,
)

TIMEOUT_S = 30.0
HEADER_FIELDS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/inference.GRPCInferenceService/ModelInfer",
    ":authority": "localhost",
    "te": "trailers",
    "content-type": "application/grpc",
}


@dataclass
class Reply:
    """What the server has said on a stream: the fields of all its headers, its data, and the code of its reset."""

    fields: dict = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    reset: int | None = None
    has_ended: bool = False

    def take(self, frame):
        """Add a frame."""
        self.fields |= dict(frame.fields)
        if frame.kind == DATA:
            self.data += frame.payload
        if frame.kind == RST_STREAM:
            self.reset = frame.error
        self.has_ended |= frame.ends_stream or frame.kind == RST_STREAM

    @property
    def status(self):
        """gRPC's status."""
        return int(self.fields["grpc-status"])

    @property
    def message(self):
        """The only message, without its prefix."""
        return bytes(self.data[5:])


class RawConnection:
    """One connection; nothing is read or sent but what is asked for.

    Parameters
    ----------
    window
        Bytes that the server may send on each stream; also for the whole connection when it is the largest.
    greets
        Whether HTTP/2's preface is sent.
    tls
        An ssl.SSLContext of a client's; plain text without.
    timeout_s
        How long the server may take nothing, or say nothing.
    """

    def __init__(self, address, *, window=DEFAULT_WINDOW, greets=True, tls=None, timeout_s=TIMEOUT_S):
        self._socket = connect(address, timeout_s)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        self._decoder = Decoder()
        self._streams = defaultdict(Reply)
        self._next_stream = 1
        if greets:
            self.send(PREFACE + encode_settings({INITIAL_WINDOW_SIZE: window}))
        if window == LARGEST_WINDOW:
            self.send(encode_window_update(0, LARGEST_WINDOW - DEFAULT_WINDOW))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def send(self, content):
        """Send bytes as they are."""
        self._socket.sendall(content)

    def send_frame(self, kind, flags=0, stream=0, payload=b""):
        """Send a frame."""
        self.send(encode_frame(kind, flags, stream, payload))

    def flood(self, contents):
        """Send one content after another; return whether the server hung up meanwhile."""
        try:
            for content in contents:
                self.send(content)
        except ConnectionError:
            return True
        return False

    def take_stream(self):
        """The number of a stream that has not been used."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        return stream

    def open_call(self, flags=END_HEADERS, extra=b"", **fields):
        """Send the headers of a ModelInfer, or of what `fields` make of it; return the stream.

        Underscores in a name are hyphens, and a first one is a colon; None leaves a field out. `extra` is
        appended to the header block.
        """
        stream = self.take_stream()
        self.send_frame(HEADERS, flags, stream, encode_request(**fields) + extra)
        return stream

    def send_call(self, message, *, missing=0, **fields):
        """Send a whole call and return its stream; `missing` bytes at its end are not sent, so that it never ends."""
        stream = self.open_call(**fields)
        content = encode_message(message)
        self.send_data(stream, content[: len(content) - missing], ends=not missing)
        return stream

    def send_data(self, stream, content, *, ends=False, frame_bytes=FRAME_BYTES):
        """Send DATA in frames of a size, the last of which ends the stream or not."""
        frames = [content[start : start + frame_bytes] for start in range(0, len(content), frame_bytes)] or [b""]
        self.send(
            b"".join(
                encode_frame(DATA, END_STREAM if ends and place == len(frames) else 0, stream, part)
                for place, part in enumerate(frames, 1)
            )
        )

    def widen(self, stream):
        """Have the server send all that it likes on a stream."""
        self.send(encode_window_update(stream, LARGEST_WINDOW - DEFAULT_WINDOW))
        self.send(encode_window_update(0, LARGEST_WINDOW - DEFAULT_WINDOW))

    def acknowledge_settings(self):
        """Read the server's settings and acknowledge them."""
        self.await_frame(SETTINGS)
        self.send_frame(SETTINGS, ACK)

    def await_ping(self):
        """Return when the server has read all that was sent before."""
        self.send_frame(PING, 0, 0, b"in order")
        self._await_frame(lambda frame: frame.kind == PING and frame.flags & ACK)

    def await_frame(self, kind):
        """The first frame of a kind, once it has been read."""
        return self._await_frame(lambda frame: frame.kind == kind)

    def _await_frame(self, is_wanted):
        while not is_wanted(frame := self.read_frame()):
            pass
        return frame

    def await_reply(self, stream):
        """What the server says on a stream, once it has ended; what came while others were waited for is part of it."""
        while not self._streams[stream].has_ended:
            self.read_frame()
        return self._streams.pop(stream)

    def read_frame(self):
        """The next frame."""
        head = self._read(HEAD_BYTES)
        payload = self._read(int.from_bytes(head[:3], "big"))
        fields = tuple(self._decoder.decode(payload)) if head[3] == HEADERS else ()
        frame = Frame(head[3], head[4], int.from_bytes(head[5:], "big") & LARGEST_WINDOW, payload, fields)
        self._streams[frame.stream].take(frame)
        return frame

    def await_end(self):
        """The frames that come until the server closes the connection; none when it takes them along."""
        frames = []
        try:
            while True:
                frames.append(self.read_frame())
        except (AssertionError, ConnectionError):
            return frames

    def _read(self, size):
        parts = bytearray()
        while len(parts) < size:
            part = self._socket.recv(size - len(parts))
            assert part, "the server hung up"
            parts += part
        return bytes(parts)

    def detach(self):
        """Give its socket's descriptor away, without TLS's good-bye."""
        return self._socket.detach()

    def shut(self):
        """Say that nothing more comes."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self):
        """Vanish: the server learns of it by a reset, or when it next writes."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def connect(address, timeout_s=TIMEOUT_S):
    """A TCP connection, over which nothing has been said."""
    host, _, port = address.rpartition(":")
    made = socket.create_connection((host, int(port)), timeout_s)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def encode_request(**fields):
    """The header block of a ModelInfer, or of what `fields` make of it, as in `open_call`."""
    given = {_field_name(name): value for name, value in fields.items()}
    merged = {name: value for name, value in (HEADER_FIELDS | given).items() if value is not None}
    return b"".join(encode_header(name, value) for name, value in merged.items())


def _field_name(name):
    return name.replace("_", ":", 1).replace("_", "-") if name.startswith("_") else name.replace("_", "-")
