"""Whole connections: any bytes, in any pieces, to bound methods and to Python's."""

import itertools
import tempfile
from pathlib import Path

from fuzz.answer import read_answers, split_messages
from fuzz.echo_server import EchoServer, open_engine
from fuzz.frames import Frame, complete_frame, decode_frames
from fuzz.peer import Peer
from kernels.limits import Limits
from tests.http2_frames import PREFACE

# An input's first byte says how the rest is sent.
PIECES = (1, 2, 3, 7)
PIECES_MASK, IS_STRICT, IS_RAW, IS_IMPATIENT, IS_ABRUPT, IS_BRIEF = 0x03, 0x04, 0x08, 0x10, 0x20, 0x40
GENEROUS = Limits(max_message_bytes=1 << 20)
# Small enough for a short input to reach them.
STRICT = Limits(
    max_streams=4,
    max_header_bytes=1024,
    max_header_fields=16,
    max_message_bytes=4096,
    max_connection_bytes=8192,
    max_buffered_bytes=12288,
    max_idle_frames_per_s=20,
    max_resets_per_s=1,
)
# Calls of Python's that answer each other's messages without end are left.
MAX_ROUNDS = 16
OK = b"0"


class ConnectionTarget:
    """Connects, says what the input is, hears the answers out, and hangs up; nothing may be left then.

    A server with generous limits runs its models on the I/O thread, one with strict limits on threads of the engine. An
    input may ask for a server of its own, which is told to drain and then stopped while the client is there yet.
    """

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        self._sockets = Path(self._folder.name)
        self._engines = {kind: open_engine(self._sockets / kind, inline=kind) for kind in ("always", "never")}
        self._numbers = itertools.count()
        self._generous, self._strict = self._open_server(GENEROUS, "always"), self._open_server(STRICT, "never")

    def _open_server(self, limits: Limits, inline: str) -> EchoServer:
        path = self._sockets / f"socket-{next(self._numbers)}"
        return EchoServer(path, self._engines[inline], limits)

    def run(self, data: bytes) -> None:
        """Run one input."""
        plan, said = (data[0], data[1:]) if data else (0, b"")
        said = said if plan & IS_RAW else PREFACE + said
        if plan & IS_BRIEF:
            self._run_briefly(plan, said)
            return
        server = self._strict if plan & IS_STRICT else self._generous
        with Peer(server.path) as peer:
            if say(peer, plan, said):
                hear(peer, server)
            if not plan & IS_ABRUPT:
                peer.hang_up()
            check_answers(peer.frames)
        if plan & IS_ABRUPT:
            # Accepted after it: when this one is gone, the other one has been there too.
            with Peer(server.path) as second:
                second.hang_up()
        server.settle()

    def _run_briefly(self, plan: int, said: bytes) -> None:
        limits, inline = (STRICT, "never") if plan & IS_STRICT else (GENEROUS, "always")
        server = self._open_server(limits, inline)
        with Peer(server.path) as peer:
            is_patient = say(peer, plan, said)
            server.answer_events()
            server.drain()
            if is_patient:
                hear(peer, server)
            server.close()
            peer.hang_up()
            check_answers(peer.frames)
        server.settle()

    def close(self) -> None:
        """Stop everything."""
        for part in (self._generous, self._strict, *self._engines.values()):
            part.close()
        self._folder.cleanup()


def say(peer: Peer, plan: int, said: bytes) -> bool:
    """Say it in the plan's pieces, and the rest of a frame that is cut off; whether an answer can be waited for."""
    send_in_pieces(peer, said, PIECES[plan & PIECES_MASK])
    if plan & (IS_IMPATIENT | IS_RAW):
        return False
    rest = complete_frame(decode_frames(said[len(PREFACE) :])[1])
    peer.send(rest or b"")
    return rest is not None


def hear(peer: Peer, server: EchoServer) -> None:
    """Wait until all that was said is answered."""
    for _ in range(MAX_ROUNDS):
        if not peer.await_answer() or not server.answer_events():
            return


def check_answers(frames: list[Frame]) -> None:
    """Hold what the server has said against HTTP/2's and gRPC's rules."""
    for answer in read_answers(frames).values():
        if answer.fields.get(b"grpc-status") == OK and not answer.is_reset:
            split_messages(answer.content)


def send_in_pieces(peer: Peer, data: bytes, count: int) -> None:
    """Send so many pieces of about the same size, each once the server has read the one before."""
    size = max(1, -(-len(data) // count))
    for place in range(0, len(data), size):
        peer.await_read()
        peer.send(data[place : place + size])
