"""A client that says whatever it is given to say, and hears the server out."""

import fcntl
import socket
import struct
import termios
import time

from fuzz.finding import Finding
from fuzz.frames import Frame, decode_frames
from tests.http2_frames import ACK, FRAME_BYTES, PING

TIMEOUT_S = 10.0
READ_BYTES = 1 << 18


class Peer:
    """One connection to a Unix socket; usable as a context.

    Attributes
    ----------
    frames : list of Frame
        What the server has said.
    is_over : bool
        Whether it has hung up.
    """

    def __init__(self, path: str):
        self.frames: list[Frame] = []
        self.is_over = False
        self._rest = b""
        self._pings = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(path)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes, unless the server has hung up."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.is_over = True

    def await_read(self) -> None:
        """Wait until the server has read all that was sent."""
        until = time.monotonic() + TIMEOUT_S
        while not self.is_over and self._count_unread() > 0:
            if time.monotonic() > until:
                raise Finding("the server does not read")
            time.sleep(0.00005)

    def _count_unread(self) -> int:
        return struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))[0]

    def await_answer(self) -> bool:
        """Ping, and wait for the answer behind all others; False when the server hangs up instead."""
        self._pings += 1
        name = struct.pack(">Q", self._pings)
        self.send(Frame(PING, payload=name).encode())
        while not self.is_over:
            heard = len(self.frames)
            self._read()
            if any(f.kind == PING and f.flags & ACK and f.payload == name for f in self.frames[heard:]):
                return True
        return False

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except ConnectionResetError:
            data = b""
        except TimeoutError:
            raise Finding("the server neither answers nor hangs up") from None
        self.is_over = not data
        frames, self._rest = decode_frames(self._rest + data)
        for frame in frames:
            if frame.kind == PING and not frame.flags & ACK:
                self.send(Frame(PING, ACK, payload=frame.payload).encode())
        if any(len(frame.payload) > FRAME_BYTES for frame in frames):
            raise Finding("the server sends a frame that is larger than any that it may send")
        self.frames += frames

    def hang_up(self) -> None:
        """Say that nothing more comes, and wait until the server has hung up."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the server was first
        while not self.is_over:
            self._read()
