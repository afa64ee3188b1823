"""Compressed messages that grow beyond all bounds, or cannot be read."""

import gzip
import zlib

import pytest

from tests.attacks.attacked_server import INFER_PATH, STREAM_PATH, check_reply, small_request
from tests.http2_frames import encode_message

INTERNAL, RESOURCE_EXHAUSTED = 13, 8
MIB = 2**20
PATHS = pytest.mark.parametrize("path", [INFER_PATH, STREAM_PATH], ids=["infer", "stream"])
ENCODINGS = pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)], ids=["gzip", "deflate"]
)


def call_compressed(connection, content, encoding, path=INFER_PATH):
    """Send a call whose message says that it is compressed; return its reply."""
    stream = connection.open_call(_path=path, grpc_encoding=encoding)
    connection.send_data(stream, encode_message(content, is_compressed=True), ends=True)
    return connection.await_reply(stream)


@ENCODINGS
def test_compressed_message_is_served(attack, encoding, compress):
    """It is as good as any other."""
    server = attack()
    with server.connect() as connection:
        check_reply(call_compressed(connection, compress(small_request()), encoding).message)


@PATHS
@ENCODINGS
def test_compressed_message_that_inflates_over_the_limit_is_exhausted(attack, path, encoding, compress):
    """A thousandth of the bytes announced and sent; the limit holds for what they stand for."""
    server = attack(max_message_bytes=MIB)
    with server.connect() as connection:
        bomb = compress(bytes(8 * MIB))
        assert len(bomb) < 10_000
        for _ in range(50):
            assert call_compressed(connection, bomb, encoding, path).status == RESOURCE_EXHAUSTED
        check_reply(connection.await_reply(connection.send_call(small_request())).message)


@PATHS
@pytest.mark.parametrize("size", [MIB, 200_000], ids=["large", "from a few bytes"])
def test_compressed_messages_that_inflate_over_the_limit_of_bytes_are_exhausted(attack, path, size):
    """Each is within the limit of a message, but not all of them together, held by calls that do not end."""
    server = attack(max_message_bytes=MIB, max_connection_bytes=8 * MIB)
    content = encode_message(gzip.compress(bytes(size)), is_compressed=True)
    with server.connect(window=0) as connection:
        for _ in range(100):
            connection.send_data(connection.open_call(_path=path, grpc_encoding="gzip"), content)
        connection.await_ping()
        assert server.buffered_bytes <= 8 * MIB
        server.bystander.await_calls()
    server.await_connections(1)


@PATHS
@ENCODINGS
@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-1],
        lambda content: content[:2],
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content + b"x",
        lambda content: content + content,
        lambda content: content[:12] + b"\xff\xff\xff\xff" + content[16:],
        lambda content: content[:-4] + b"\0\0\0\1",
        lambda content: bytes(100),
        lambda content: b"plain text",
    ],
    ids=["cut", "head", "half", "nothing", "a byte more", "twice", "corrupt", "wrong check", "zeros", "not compressed"],
)
def test_compressed_message_that_cannot_be_read_is_an_error(attack, path, encoding, compress, spoil):
    """INTERNAL, and the connection goes on."""
    server = attack()
    with server.connect() as connection:
        content = spoil(compress(bytes(range(256)) * 10))
        assert call_compressed(connection, content, encoding, path).status == INTERNAL
        check_reply(connection.await_reply(connection.send_call(small_request())).message)


def test_message_compressed_in_another_way_than_said_is_an_error(attack):
    """Nothing is guessed."""
    server = attack()
    with server.connect() as connection:
        assert call_compressed(connection, zlib.compress(b"x"), "gzip").status == INTERNAL
        assert call_compressed(connection, gzip.compress(b"x"), "deflate").status == INTERNAL
        assert call_compressed(connection, b"x", "identity").status == INTERNAL
