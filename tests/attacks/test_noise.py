"""Bytes that mean nothing, frames put together at random, and valid calls that are spoilt in one place."""

import contextlib
import random

import pytest

from tests.attacks.attacked_server import (
    ECHO_PATH,
    INFER_PATH,
    POUR_PATH,
    STREAM_PATH,
    large_reply_request,
    small_request,
)
from tests.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    encode_frame,
    encode_message,
    encode_settings,
    encode_window_update,
)
from tests.raw_http2 import encode_request

SEEDS = range(8)
PATHS = [INFER_PATH, STREAM_PATH, ECHO_PATH, POUR_PATH, "/nowhere"]
SHORT_S = 0.5


@pytest.fixture
def server(attack):
    """One that is patient with nobody, so that whatever noise leaves open is over soon."""
    return attack(
        handshake_timeout_s=SHORT_S,
        header_timeout_s=SHORT_S,
        receive_timeout_s=SHORT_S,
        send_timeout_s=SHORT_S,
        max_idle_frames_per_s=200,
        max_resets_per_s=20,
        max_connection_bytes=2**22,
        max_message_bytes=2**20,
    )


def flood(server, contents):
    """Each content on a connection of its own, which is then waited for, closed or reset."""
    for number, content in enumerate(contents):
        with server.connect(greets=False) as connection:
            if connection.flood([content]):
                continue
            if number % 3 == 0:
                connection.reset()
            elif number % 3 == 1:
                with contextlib.suppress(OSError):
                    connection.shut()
                connection.await_end()
    server.await_connections(1)


def make_frame(source):
    """Any frame: mostly of a kind, on a stream and of a size that exist."""
    kind = source.choice([*range(10), HEADERS, DATA, DATA, source.randrange(256)])
    flags = source.choice([0, END_STREAM, END_HEADERS, END_HEADERS | END_STREAM, source.randrange(256)])
    stream = source.choice([0, 1, 1, 3, 5, 7, 2, source.randrange(2**31)])
    payload = source.choice(
        [
            lambda: source.randbytes(source.randrange(64)),
            lambda: encode_request(_path=source.choice(PATHS)),
            lambda: encode_message(small_request()),
            lambda: encode_message(source.choice([b"3", large_reply_request(source.randrange(100_000))])),
            lambda: bytes(source.choice([0, 4, 5, 6, 8, 16384])),
            lambda: source.randrange(2**32).to_bytes(4, "big"),
        ]
    )()
    return encode_frame(kind, flags, stream, payload)


def make_calls(source):
    """A few calls as they should be."""
    frames = [encode_settings({}), encode_window_update(0, 10**6)]
    for stream in (1, 3, 5):
        path = source.choice(PATHS)
        message = b"3" if path == POUR_PATH else small_request()
        frames.append(encode_frame(HEADERS, END_HEADERS, stream, encode_request(_path=path)))
        frames.append(encode_frame(DATA, END_STREAM, stream, encode_message(message)))
    return frames


@pytest.mark.parametrize("seed", SEEDS)
def test_random_bytes_harm_nobody(server, seed):
    """With HTTP/2's preface before them or not."""
    source = random.Random(seed)
    flood(server, (source.choice([b"", PREFACE]) + source.randbytes(source.randrange(4000)) for _ in range(60)))


@pytest.mark.parametrize("seed", SEEDS)
def test_random_frames_harm_nobody(server, seed):
    """Behind a proper beginning."""
    source = random.Random(seed)
    start = PREFACE + encode_settings({})
    flood(server, (start + b"".join(make_frame(source) for _ in range(source.randrange(100))) for _ in range(60)))


@pytest.mark.parametrize("seed", SEEDS)
def test_calls_spoilt_in_one_place_harm_nobody(server, seed):
    """A byte changed, a piece left out, doubled or put elsewhere."""
    source = random.Random(seed)
    flood(server, (PREFACE + spoil(source, b"".join(make_calls(source))) for _ in range(100)))


def spoil(source, content):
    """Change something somewhere."""
    first, last = sorted(source.sample(range(len(content)), 2))
    return source.choice(
        [
            content[:first] + source.randbytes(1) + content[first + 1 :],
            content[:first] + content[last:],
            content[:last] + content[first:],
            content[first:last] + content,
            content[:first] + source.randbytes(last - first) + content[last:],
        ]
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_frames_in_another_order_harm_nobody(server, seed):
    """Frames that are right by themselves."""
    source = random.Random(seed)

    def shuffled():
        frames = make_calls(source) + [make_frame(source) for _ in range(2)]
        source.shuffle(frames)
        return PREFACE + encode_settings({}) + b"".join(frames)

    flood(server, (shuffled() for _ in range(100)))
