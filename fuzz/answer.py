"""What a server has answered to each of a connection's calls, read from its frames."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from hpack import Decoder, HPACKError

from fuzz.finding import Finding
from fuzz.frames import Frame
from tests.http2_frames import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM

NO_ERROR = 0
MAX_FIELDS_BYTES = 1 << 20


@dataclass
class Answer:
    """One call's answer.

    Attributes
    ----------
    fields : dict of bytes to bytes
        Of the headers and of the trailers.
    content : bytes
        What came in DATA.
    is_reset : bool
        Whether the call was broken off.
    """

    fields: dict[bytes, bytes] = field(default_factory=dict)
    content: bytes = b""
    is_whole: bool = False
    is_reset: bool = False


def read_answers(frames: Iterable[Frame]) -> dict[int, Answer]:
    """Answers by stream; Finding when the server breaks HTTP/2's rules."""
    answers: dict[int, Answer] = {}
    decoder = Decoder(MAX_FIELDS_BYTES)
    block = b""
    for frame in frames:
        if frame.kind not in (DATA, HEADERS, CONTINUATION, RST_STREAM):
            continue
        answer = answers.setdefault(frame.stream, Answer())
        if frame.kind == RST_STREAM:
            answer.is_reset = answer.is_reset or struct.unpack(">I", frame.payload)[0] != NO_ERROR
            continue
        if answer.is_whole and frame.kind != CONTINUATION:
            raise Finding("the server goes on with a stream that it has ended")
        answer.is_whole = answer.is_whole or bool(frame.kind != CONTINUATION and frame.flags & END_STREAM)
        if frame.kind == DATA:
            answer.content += frame.payload
            continue
        block += frame.payload
        if frame.flags & END_HEADERS:
            answer.fields |= decode_block(decoder, block)
            block = b""
    return answers


def decode_block(decoder: Decoder, block: bytes) -> dict[bytes, bytes]:
    """The fields of a block; Finding when it is none."""
    try:
        return dict(decoder.decode(block, raw=True))
    except HPACKError as error:
        raise Finding(f"the server sends a header block that is none: {error!r}, {block.hex()}") from None


def split_messages(content: bytes) -> list[tuple[bool, bytes]]:
    """The messages of a content with whether each is compressed; Finding when they are not framed."""
    messages = []
    while content:
        if len(content) < 5 or content[0] > 1 or len(content) - 5 < (size := int.from_bytes(content[1:5], "big")):
            raise Finding(f"the reply is not framed: {content[:64].hex()}")
        messages.append((bool(content[0]), content[5 : 5 + size]))
        content = content[5 + size :]
    return messages
