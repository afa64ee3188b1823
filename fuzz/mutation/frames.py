"""Changes to connections, frame by frame: kinds, flags, streams, lengths, order, and what is inside."""

from dataclasses import replace
from random import Random

from fuzz.frames import Frame, decode_frames, encode_fields, encode_frames, request_fields
from fuzz.mutation.message import MessageMutator
from fuzz.mutation.plain import MAX_INPUT_BYTES, BytesMutator
from tests.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    encode_message,
)

# The first byte of an input says how it is sent; the frames follow.
PLAN_BYTES = 1
MAX_CHANGES = 4
PLANS = 128
# Mostly without a server of its own, which takes longer.
PLAN_MASKS = (0x3F, 0x3F, 0x7F)
PRIORITIZED = 0x20  # a flag of HEADERS
LENGTHS = (0, 1, 4, 5, 8, 9, 16383, 16384, 16385, 2**24 - 1)
WINDOWS = (0, 1, 5, 100, 16384, 65535, 2**31 - 1, 2**31, 2**32 - 1)
# Codes of RST_STREAM and GOAWAY, identifiers of SETTINGS.
CODES = (0, 1, 2, 3, 5, 7, 8, 11, 13, 100)
SETTING_IDS = (1, 2, 3, 4, 5, 6, 8, 9, 100)
BIT_FLAGS = (0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40, 0x80)
GRPC_PREFIX_BYTES = 5


class FramesMutator:
    """Changes a connection.

    Parameters
    ----------
    words
        What may stand in header blocks and messages.
    paths
        Methods that calls may be of.
    fields
        Header fields that calls may have.
    """

    def __init__(self, words: tuple[bytes, ...], paths: tuple[bytes, ...], fields: tuple[tuple[bytes, bytes], ...]):
        self._bytes = BytesMutator(words)
        self._messages = MessageMutator(words)
        self._paths = paths
        self._fields = fields

    def mutate(self, data: bytes, other: bytes, random: Random) -> bytes:
        """Change the plan, bytes, or a few frames."""
        if random.random() < 0.1:
            return self._bytes.mutate(data, other, random)
        plan = (
            bytes([random.randrange(PLANS) & random.choice(PLAN_MASKS)]) if random.random() < 0.1 else data[:PLAN_BYTES]
        )
        frames, rest = decode_frames(data[PLAN_BYTES:])
        for _ in range(1 + int(random.expovariate(0.7)) % MAX_CHANGES):
            if not frames:
                frames = [Frame(SETTINGS)]
            frames = random.choice(CHANGES)(self, frames, random.randrange(len(frames)), other, random)
        return (plan + encode_frames(frames) + rest)[:MAX_INPUT_BYTES]

    def split(self, data: bytes) -> list[bytes]:
        """Cut between frames; the plan is one piece."""
        frames, rest = decode_frames(data[PLAN_BYTES:])
        return [data[:PLAN_BYTES], *(frame.encode() for frame in frames), rest]

    # ---- the order

    def _drop(self, frames, index, _other, _random):
        return frames[:index] + frames[index + 1 :]

    def _repeat(self, frames, index, _other, random):
        return frames[:index] + [frames[index]] * random.choice((2, 2, 3, 30)) + frames[index + 1 :]

    def _move(self, frames, index, _other, random):
        rest = frames[:index] + frames[index + 1 :]
        place = random.randrange(len(rest) + 1)
        return [*rest[:place], frames[index], *rest[place:]]

    def _truncate(self, frames, index, _other, _random):
        return frames[: index + 1]

    def _take(self, frames, index, other, random):
        taken = decode_frames(other[PLAN_BYTES:])[0]
        if not taken:
            return frames
        start = random.randrange(len(taken))
        return frames[: index + 1] + taken[start : start + random.randint(1, 4)] + frames[index + 1 :]

    def _take_as_new_stream(self, frames, index, other, random):
        taken = decode_frames(other[PLAN_BYTES:])[0]
        shift = max(frame.stream for frame in frames) + 1 & ~1
        shifted = [replace(frame, stream=frame.stream + shift & 0x7FFFFFFF) for frame in taken if frame.stream]
        return frames + shifted[: random.randint(1, 8)]

    # ---- one frame's head

    def _set_kind(self, frames, index, _other, random):
        return put(frames, index, replace(frames[index], kind=random.randrange(12)))

    def _flip_flag(self, frames, index, _other, random):
        flags = (END_STREAM, END_HEADERS) if random.random() < 0.6 else BIT_FLAGS
        return put(frames, index, replace(frames[index], flags=frames[index].flags ^ random.choice(flags)))

    def _set_stream(self, frames, index, _other, random):
        streams = [frame.stream for frame in frames]
        stream = random.choice((0, 1, 2, max(streams) + 2, 2**31 - 1, 2**31 + 1, *streams)) & 0xFFFFFFFF
        return put(frames, index, replace(frames[index], stream=stream))

    def _lie_about_length(self, frames, index, _other, random):
        size = len(frames[index].payload) + random.randint(-9, 9) if random.random() < 0.6 else random.choice(LENGTHS)
        return put(frames, index, replace(frames[index], claimed=max(0, size)))

    # ---- what is inside

    def _change_payload(self, frames, index, other, random):
        payload = self._bytes.mutate(frames[index].payload, other, random)
        return put(frames, index, frames[index].with_payload(payload))

    def _change_message(self, frames, index, other, random):
        """Change the message in DATA, with its prefix put right or not."""
        index = choose_kind(frames, DATA, index, random)
        payload = frames[index].payload
        message = self._messages.mutate(payload[GRPC_PREFIX_BYTES:], other, random)
        prefixed = encode_message(message, is_compressed=payload[:1] == b"\1")
        if random.random() < 0.1:
            prefixed = self._bytes.mutate(payload[:GRPC_PREFIX_BYTES], b"", random) + message
        return put(frames, index, frames[index].with_payload(prefixed))

    def _append_message(self, frames, index, _other, random):
        index = choose_kind(frames, DATA, index, random)
        payload = frames[index].payload * random.choice((2, 3, 70)) if random.random() < 0.5 else b"\0\0\0\0\0"
        return put(frames, index, frames[index].with_payload(frames[index].payload + payload[:MAX_APPENDED_BYTES]))

    def _pad(self, frames, index, _other, random):
        frame, size = frames[index], random.choice((0, 1, 100, 255))
        padded = frame.with_payload(bytes([size]) + frame.payload + bytes(random.choice((size, size, 0))))
        return put(frames, index, replace(padded, flags=frame.flags | PADDED))

    def _prioritize(self, frames, index, _other, random):
        index = choose_kind(frames, HEADERS, index, random)
        frame = frames[index]
        head = random.choice((0, 1, frame.stream, 2**31)).to_bytes(4, "big") + b"\x10"
        return put(frames, index, replace(frame.with_payload(head + frame.payload), flags=frame.flags | PRIORITIZED))

    def _split(self, frames, index, _other, random):
        """Split DATA in two frames, headers with a continuation."""
        frame = frames[index]
        place = random.randrange(len(frame.payload) + 1)
        first, second = frame.with_payload(frame.payload[:place]), frame.with_payload(frame.payload[place:])
        if frame.kind in (HEADERS, CONTINUATION):
            first = replace(first, flags=frame.flags & ~END_HEADERS)
            second = replace(second, kind=CONTINUATION, flags=frame.flags & END_HEADERS)
        else:
            first = replace(first, flags=frame.flags & ~END_STREAM)
        return [*frames[:index], first, second, *frames[index + 1 :]]

    # ---- new frames

    def _add_call(self, frames, index, other, random):
        stream = (max(frame.stream for frame in frames) + 1 & 0x7FFFFFFF) | 1
        more = random.sample(self._fields, random.choice((0, 0, 1, 2, len(self._fields))))
        block = encode_fields(request_fields(random.choice(self._paths), *more))
        message = random.choice([frame.payload for frame in frames if frame.kind == DATA] or [b"\0\0\0\0\0"])
        return [
            *frames[: index + 1],
            Frame(HEADERS, END_HEADERS | random.choice((0, 0, 0, END_STREAM)), stream, block),
            Frame(DATA, random.choice((0, END_STREAM, END_STREAM)), stream, message),
            *frames[index + 1 :],
        ]

    def _add_control(self, frames, index, _other, random):
        stream = random.choice((0, *(frame.stream for frame in frames)))
        window, code = random.choice(WINDOWS).to_bytes(4, "big"), random.choice(CODES).to_bytes(4, "big")
        setting = random.choice(SETTING_IDS).to_bytes(2, "big") + random.choice(WINDOWS).to_bytes(4, "big")
        made = random.choice(
            (
                Frame(RST_STREAM, 0, stream, code),
                Frame(WINDOW_UPDATE, 0, stream, window),
                Frame(WINDOW_UPDATE, 0, 0, window),
                Frame(SETTINGS, 0, 0, setting * random.choice((1, 1, 2, 40))),
                Frame(SETTINGS, 1, 0),
                Frame(PING, random.choice((0, 1)), 0, bytes(8)),
                Frame(PRIORITY, 0, stream, bytes(5)),
                Frame(GOAWAY, 0, 0, bytes(4) + code),
                Frame(DATA, random.choice((0, END_STREAM)), stream),
                Frame(HEADERS, END_HEADERS | END_STREAM, stream, encode_fields([(b"trailer", b"1")])),
            )
        )
        return [*frames[: index + 1], *[made] * random.choice((1, 1, 1, 2, 25)), *frames[index + 1 :]]


MAX_APPENDED_BYTES = 8192
CHANGES = (
    FramesMutator._drop,
    FramesMutator._repeat,
    FramesMutator._move,
    FramesMutator._truncate,
    FramesMutator._take,
    FramesMutator._take_as_new_stream,
    FramesMutator._set_kind,
    FramesMutator._flip_flag,
    FramesMutator._flip_flag,
    FramesMutator._set_stream,
    FramesMutator._lie_about_length,
    FramesMutator._change_payload,
    FramesMutator._change_payload,
    FramesMutator._change_message,
    FramesMutator._change_message,
    FramesMutator._change_message,
    FramesMutator._append_message,
    FramesMutator._pad,
    FramesMutator._prioritize,
    FramesMutator._split,
    FramesMutator._add_call,
    FramesMutator._add_call,
    FramesMutator._add_control,
    FramesMutator._add_control,
)


def put(frames: list[Frame], index: int, frame: Frame) -> list[Frame]:
    """The same frames but one."""
    return [*frames[:index], frame, *frames[index + 1 :]]


def choose_kind(frames: list[Frame], kind: int, index: int, random: Random) -> int:
    """The place of a frame of that kind; `index` when there is none."""
    places = [place for place, frame in enumerate(frames) if frame.kind == kind]
    return random.choice(places) if places else index
