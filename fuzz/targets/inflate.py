"""Compressed messages: what the transport inflates, against Python's zlib."""

import tempfile
import zlib
from pathlib import Path

from fuzz.answer import read_answers, split_messages
from fuzz.echo_server import EchoServer, open_engine
from fuzz.finding import Finding
from fuzz.frames import Frame, encode_fields, encode_frames, request_fields
from fuzz.peer import Peer
from kernels.limits import Limits
from tests.http2_frames import DATA, END_HEADERS, END_STREAM, FRAME_BYTES, HEADERS, PREFACE, SETTINGS, encode_message

STREAM = 1
LIMIT_BYTES = 32768
# What a stream's window holds before the server's settings are known.
WINDOW_BYTES = 60000
IS_GZIP = 0x01
ZLIB_BITS, GZIP_BITS = 15, 31
OK, EXHAUSTED, INTERNAL = b"0", b"8", b"13"


class InflateTarget:
    """Sends an input as a compressed message; Python gets what zlib makes of it, or the status says why not."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        folder = Path(self._folder.name)
        self._engine = open_engine(folder / "models", inline="always")
        self._server = EchoServer(folder / "socket", self._engine, Limits(max_message_bytes=LIMIT_BYTES))

    def run(self, data: bytes) -> None:
        """Run one input: its first byte chooses the encoding, the rest is the message."""
        is_gzip, message = bool(data[:1] and data[0] & IS_GZIP), data[1:WINDOW_BYTES]
        statuses, plain = expect_outcome(message, is_gzip)
        with Peer(self._server.path) as peer:
            peer.send(encode_call(message, is_gzip))
            while peer.await_answer() and self._server.answer_events():
                pass
            peer.hang_up()
            answer = read_answers(peer.frames)[STREAM]
        if self._server.received != ([] if plain is None else [plain]):
            raise Finding(f"{len(plain or b'')} bytes were inflated to {list(map(len, self._server.received))}")
        if answer.fields.get(b"grpc-status") not in statuses:
            raise Finding(f"answered with {answer.fields}, expected {statuses}")
        if split_messages(answer.content) != ([] if plain is None else [(False, plain)]):
            raise Finding("the echo differs")
        self._server.settle()

    def close(self) -> None:
        """Stop the server."""
        self._server.close()
        self._engine.close()
        self._folder.cleanup()


def expect_outcome(data: bytes, is_gzip: bool) -> tuple[set[bytes], bytes | None]:
    """The statuses that a message may get, and what it inflates to."""
    if len(data) > LIMIT_BYTES:
        return {EXHAUSTED}, None
    inflater = zlib.decompressobj(GZIP_BITS if is_gzip else ZLIB_BITS)
    try:
        plain = inflater.decompress(data, LIMIT_BYTES + 1)
    except zlib.error:
        return {INTERNAL}, None
    if len(plain) > LIMIT_BYTES:
        # An error that lies right behind may be noticed first.
        return {EXHAUSTED, INTERNAL}, None
    return ({OK}, plain) if inflater.eof and not inflater.unused_data else ({INTERNAL}, None)


def encode_call(message: bytes, is_gzip: bool) -> bytes:
    """A connection with one call of one compressed message."""
    encoding = (b"grpc-encoding", b"gzip" if is_gzip else b"deflate")
    content = encode_message(message, is_compressed=True)
    parts = [content[place : place + FRAME_BYTES] for place in range(0, len(content), FRAME_BYTES)]
    fields = encode_fields(request_fields(b"/echo/Echo", encoding))
    return PREFACE + encode_frames(
        [
            Frame(SETTINGS),
            Frame(HEADERS, END_HEADERS, STREAM, fields),
            *(Frame(DATA, END_STREAM if part is parts[-1] else 0, STREAM, part) for part in parts),
        ]
    )
