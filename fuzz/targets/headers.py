"""Headers of calls: what the transport makes of each field, against what gRPC's specification says of it."""

import re
import tempfile
import time
from itertools import accumulate
from pathlib import Path

from fuzz.answer import read_answers
from fuzz.echo_server import EchoServer, open_engine
from fuzz.finding import Finding
from fuzz.frames import Frame, encode_fields, encode_frames, request_fields
from fuzz.peer import Peer
from kernels.limits import Limits
from kernels.metadata import SIZES, decode_metadata
from tests.http2_frames import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, encode_message

STREAM = 1
LIMITS = Limits(max_header_bytes=4096, max_header_fields=24)
OVERHEAD_BYTES = 32
RESERVED = {b"te", b"content-type", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding"}
ENCODINGS = {b"identity", b"deflate", b"gzip"}
TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
UNIT_NS = {b"H": 3600 * 10**9, b"M": 60 * 10**9, b"S": 10**9, b"m": 10**6, b"u": 10**3, b"n": 1}
LATEST_NS = 2**63 - 1
INTERNAL, UNIMPLEMENTED, EXHAUSTED = 13, 12, 8
# The transport knows the time of its turn, which began a little earlier.
TURN_S = 5.0


class HeadersTarget:
    """Makes an input the fields of a call to Python: they arrive as they were sent, or the status says why not."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        folder = Path(self._folder.name)
        self._engine = open_engine(folder / "models", inline="always")
        self._server = EchoServer(folder / "socket", self._engine, LIMITS)

    def run(self, data: bytes) -> None:
        """Run one input."""
        fields = request_fields(b"/echo/Echo", *split_fields(data))
        started = time.monotonic()
        with Peer(self._server.path) as peer:
            peer.send(encode_call(fields))
            while peer.await_answer() and self._server.answer_events():
                pass
            peer.hang_up()
            answers = read_answers(peer.frames)
        if STREAM in answers and not answers[STREAM].is_reset:
            check_status(fields, answers[STREAM].fields)
        if self._server.opened:
            check_call(fields, self._server.opened[0], started)
        self._server.settle()

    def close(self) -> None:
        """Stop the server."""
        self._server.close()
        self._engine.close()
        self._folder.cleanup()


def split_fields(data: bytes) -> list[tuple[bytes, bytes]]:
    """An input's fields: lines of a name, a colon that is not the first byte, and a value."""
    fields = []
    for line in data.split(b"\n"):
        colon = line.find(b":", 1)
        fields.append((line, b"") if colon < 0 else (line[:colon], line[colon + 1 :]))
    return fields


def encode_call(fields: list[tuple[bytes, bytes]]) -> bytes:
    """A connection with one call of one message."""
    return PREFACE + encode_frames(
        [
            Frame(SETTINGS),
            Frame(HEADERS, END_HEADERS, STREAM, encode_fields(fields)),
            Frame(DATA, END_STREAM, STREAM, encode_message(b"hello")),
        ]
    )


def check_status(fields: list[tuple[bytes, bytes]], answered: dict[bytes, bytes]) -> None:
    """Hold the status of a call that was not reset against its fields."""
    expected = expect_status(fields)
    found = answered.get(b"grpc-status", answered.get(b":status"))
    if found is not None and found.decode() != str(expected):
        raise Finding(f"the call was answered with {answered}, expected {expected}")


def expect_status(fields: list[tuple[bytes, bytes]]) -> int:
    """The HTTP or gRPC status that a call of such fields gets."""
    read = cut_fields(fields)
    chosen = dict(read)
    if not re.fullmatch(rb"application/grpc([+;].*)?", chosen.get(b"content-type", b"application/grpc"), re.DOTALL):
        return 415
    if len(read) < len(fields):
        return EXHAUSTED
    if b"grpc-timeout" in chosen and not TIMEOUT.fullmatch(chosen[b"grpc-timeout"]):
        return INTERNAL
    if chosen.get(b"grpc-encoding", b"identity") not in ENCODINGS:
        return UNIMPLEMENTED
    return 0


def cut_fields(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields that are read: those before a limit is exceeded."""
    sizes = accumulate(len(name) + len(value) + OVERHEAD_BYTES for name, value in fields)
    return [
        field
        for count, (field, size) in enumerate(zip(fields, sizes, strict=True), 1)
        if size <= LIMITS.max_header_bytes and count <= LIMITS.max_header_fields
    ]


def check_call(fields: list[tuple[bytes, bytes]], told: tuple, started: float) -> None:
    """Hold what Python was told of a call against what was sent."""
    if told.method != "/echo/Echo":
        raise Finding(f"the call was told of as {told.method}")
    kept = [field for field in fields if field[0] not in RESERVED and not field[0].startswith(b":")]
    flat = b"".join(SIZES.pack(len(name), len(value)) + name + value for name, value in kept)
    if tuple(decode_metadata(flat)) != told.metadata:
        raise Finding(f"the call's metadata was told of as {told.metadata}")
    check_deadline([value for name, value in fields if name == b"grpc-timeout"], told.deadline, started)


def check_deadline(timeouts: list[bytes], deadline: float | None, started: float) -> None:
    """Hold a call's deadline against its timeout; of several the last counts."""
    if len(timeouts) > 1:
        return
    number, unit = TIMEOUT.fullmatch(timeouts[0]).groups() if timeouts else (b"", b"")
    span_ns = int(number) * UNIT_NS[unit] if timeouts else LATEST_NS
    if started * 1e9 + span_ns > LATEST_NS - TURN_S * 1e9:
        # At the very end of time either is right.
        if deadline is not None and span_ns < LATEST_NS:
            return
        if deadline is not None:
            raise Finding(f"a call without a deadline got {deadline}")
    elif deadline is None or not -TURN_S < deadline - started - span_ns / 1e9 < TURN_S:
        raise Finding(f"a timeout of {timeouts} became {deadline} at {started}")
