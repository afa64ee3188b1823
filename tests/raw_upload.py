"""Sends a message of any size on a raw connection as fast as the server takes it, without holding it in memory."""

from tests.http2_frames import (
    ACK,
    DATA,
    DEFAULT_WINDOW,
    END_STREAM,
    FRAME_BYTES,
    INITIAL_WINDOW_SIZE,
    PING,
    SETTINGS,
    WINDOW_UPDATE,
    encode_frame,
    encode_message,
)

# Frames that are sent at a time.
BURST = 64


class Upload:
    """One call whose message is a head, as many zeros as wanted, and a tail; the server's windows are kept to."""

    def __init__(self, connection, **fields):
        self._connection = connection
        self.stream = connection.open_call(**fields)
        self._windows = {0: DEFAULT_WINDOW, self.stream: DEFAULT_WINDOW}
        self._initial = DEFAULT_WINDOW

    def send(self, head, zeros, tail):
        """Send a whole message and end the call, unless the server ends it before; return what it says."""
        prefix = encode_message(b"", size=len(head) + zeros + len(tail))
        self._send(prefix + head)
        block = encode_frame(DATA, 0, self.stream, bytes(FRAME_BYTES))
        frames, rest = divmod(zeros, FRAME_BYTES)
        while frames > 0:
            burst = min(frames, BURST, self._await_window(FRAME_BYTES) // FRAME_BYTES)
            self._connection.send(block * burst)
            self._take(burst * FRAME_BYTES)
            frames -= burst
        self._send(bytes(rest) + tail)
        self._connection.send_frame(DATA, END_STREAM, self.stream)
        return self._connection.await_reply(self.stream)

    def _send(self, content):
        """Send what fits one frame."""
        self._await_window(len(content))
        self._connection.send_frame(DATA, 0, self.stream, content)
        self._take(len(content))

    def _await_window(self, size):
        """What may be sent now, once it is at least so much."""
        while min(self._windows.values()) < size:
            self._read(self._connection.read_frame())
        return min(self._windows.values())

    def _take(self, size):
        for stream in self._windows:
            self._windows[stream] -= size

    def _read(self, frame):
        assert not (frame.stream == self.stream and frame.ends_stream), frame.fields
        if frame.kind == WINDOW_UPDATE and frame.stream in self._windows:
            self._windows[frame.stream] += int.from_bytes(frame.payload, "big")
        elif frame.kind == SETTINGS and not frame.flags & ACK:
            self._connection.send_frame(SETTINGS, ACK)
            self._adjust(frame.payload)
        elif frame.kind == PING and not frame.flags & ACK:
            self._connection.send_frame(PING, ACK, 0, frame.payload)

    def _adjust(self, settings):
        """A new initial window moves that of the open stream."""
        for start in range(0, len(settings), 6):
            if int.from_bytes(settings[start : start + 2], "big") == INITIAL_WINDOW_SIZE:
                initial = int.from_bytes(settings[start + 2 : start + 6], "big")
                self._windows[self.stream] += initial - self._initial
                self._initial = initial
