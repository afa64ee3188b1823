"""HTTP/2 frames as bytes and back, well formed or not."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tests.http2_frames import CONTINUATION, FRAME_BYTES, HEAD_BYTES, encode_header

KIND_PLACE = 3


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes
    ----------
    claimed : int or None
        The length that its head gives; None is the payload's own.
    """

    kind: int
    flags: int = 0
    stream: int = 0
    payload: bytes = b""
    claimed: int | None = None

    def encode(self) -> bytes:
        """The frame on the wire."""
        size = len(self.payload) if self.claimed is None else self.claimed
        return (
            struct.pack(">I", size & 0xFFFFFF)[1:]
            + struct.pack(">BBI", self.kind, self.flags, self.stream)
            + self.payload
        )

    def with_payload(self, payload: bytes) -> "Frame":
        """The same frame with another payload, in its honest length."""
        return replace(self, payload=payload, claimed=None)


def encode_frames(frames: Iterable[Frame]) -> bytes:
    """Frames one after another."""
    return b"".join(frame.encode() for frame in frames)


def decode_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames at the start of some bytes, and what is left of these."""
    frames, place = [], 0
    while (size := size_of(data, place)) is not None and place + HEAD_BYTES + size <= len(data):
        kind, flags, stream = struct.unpack_from(">BBI", data, place + 3)
        frames.append(Frame(kind, flags, stream, data[place + HEAD_BYTES : place + HEAD_BYTES + size]))
        place += HEAD_BYTES + size
    return frames, data[place:]


def size_of(data: bytes, place: int) -> int | None:
    """The length in the frame's head at that place; None when it is cut off."""
    return int.from_bytes(data[place : place + 3], "big") if place + HEAD_BYTES <= len(data) else None


def complete_frame(rest: bytes) -> bytes | None:
    """What a frame that was cut off lacks: zeros, while a server would wait for them; None where it waits for more.

    That is behind headers which nghttp2 ignores, where it does not look at a CONTINUATION's length.
    """
    if not rest:
        return b""
    filled = rest + bytes(max(0, HEAD_BYTES - len(rest)))
    size = size_of(filled, 0)
    if size > FRAME_BYTES:
        return None if filled[KIND_PLACE] == CONTINUATION else filled[len(rest) :]
    return filled[len(rest) :] + bytes(max(0, HEAD_BYTES + size - len(filled)))


def encode_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header fields as a block in HPACK's plainest form."""
    return b"".join(encode_header(name, value) for name, value in fields)


def request_fields(path: bytes, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The header fields of a call, with more behind them."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"fuzz")]
    return [*fields, (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more]
