"""Headers that are too many, too large, never end, or mean something else than they should."""

import itertools

import pytest

from tests.attacks.attacked_server import ECHO_PATH, INFER_PATH, check_reply, small_request
from tests.http2_frames import (
    COMPRESSION_ERROR,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    PADDED,
    PING,
    PROTOCOL_ERROR,
    RST_STREAM,
    encode_frame,
    encode_header,
    encode_indexed_header,
    encode_integer,
    encode_message,
    encode_settings,
)
from tests.raw_http2 import encode_request

INTERNAL, UNIMPLEMENTED, RESOURCE_EXHAUSTED = 13, 12, 8
NEWEST_FIELD = 62


def fields(count, size=1):
    """A header block of so many fields."""
    return b"".join(encode_header(f"x-{number}", "v" * size) for number in range(count))


def blocks_of(content):
    """A header block in pieces of a frame's size."""
    return [content[start : start + FRAME_BYTES] for start in range(0, len(content), FRAME_BYTES)]


def send_headers(connection, block, flags=END_STREAM):
    """Send a header block in as many frames as it takes."""
    stream = connection.take_stream()
    first, *others = blocks_of(block)
    connection.send_frame(HEADERS, flags | (0 if others else END_HEADERS), stream, first)
    for place, part in enumerate(others, 1):
        connection.send_frame(CONTINUATION, END_HEADERS if place == len(others) else 0, stream, part)
    return stream


def trickle(server, content):
    """The bytes of a content one by one, with time in between."""
    for place in range(len(content)):
        server.bystander.await_seconds(0.02)
        yield content[place : place + 1]


@pytest.mark.parametrize("path", [INFER_PATH, ECHO_PATH], ids=["bound", "python"])
@pytest.mark.parametrize(
    "extra",
    [fields(200), fields(20, 1000), encode_header("x", "v" * 60_000), encode_header("x" * 20_000, "")],
    ids=["many fields", "many bytes", "a huge value", "a huge name"],
)
def test_headers_beyond_the_limit_are_exhausted(attack, path, extra):
    """Whoever serves the method; the connection goes on."""
    server = attack(max_header_fields=100, max_header_bytes=8192)
    with server.connect() as connection:
        for _ in range(20):
            reply = connection.await_reply(send_headers(connection, encode_request(_path=path) + extra))
            assert reply.status == RESOURCE_EXHAUSTED
        check_reply(connection.await_reply(connection.send_call(small_request())).message)


def test_headers_at_the_limit_are_taken(attack):
    """The six of every request count."""
    server = attack(max_header_fields=100)
    with server.connect() as connection:
        stream = send_headers(connection, encode_request() + fields(94), flags=0)
        connection.send_data(stream, b"\0\0\0\0\0", ends=True)
        assert connection.await_reply(stream).status != RESOURCE_EXHAUSTED


def test_small_header_block_that_unfolds_to_many_fields_costs_no_more_than_its_bytes(attack):
    """An HPACK bomb: fields of 4 KB in the table, referred to by a byte each, for half a GiB in all."""
    server = attack()
    with server.connect() as connection:
        bomb = encode_request() + encode_indexed_header("x", "v" * 4000) + bytes([0x80 | NEWEST_FIELD]) * 100_000
        used_s = -server.processor_s()
        for _ in range(5):
            send_headers(connection, bomb)
        connection.await_ping()
        used_s += server.processor_s()
        assert used_s < 0.1
    server.await_connections(1)


@pytest.mark.parametrize(
    "block",
    [
        encode_integer(4097, 5, 0x20),
        encode_integer(2**31, 5, 0x20),
        b"\x3f" + b"\xff" * 20,
        encode_request() + encode_integer(100, 5, 0x20),
        b"\xff" + b"\xff" * 20,
        encode_integer(NEWEST_FIELD + 1000, 7, 0x80),
        b"\x80",
        b"\x00\xff",
        b"\x00\x81\x00\x81\x00",
        encode_header("x", "y")[:-1],
    ],
    ids=[
        "table larger than allowed",
        "table of 2 GiB",
        "table size without end",
        "table size behind fields",
        "index without end",
        "index beyond the table",
        "index 0",
        "length beyond the block",
        "wrong Huffman code",
        "block cut short",
    ],
)
def test_header_block_that_cannot_be_read_ends_the_connection(attack, block):
    """Its state cannot be known any more."""
    server = attack()
    with server.connect() as connection:
        send_headers(connection, block)
        last = connection.await_end()[-1]
        assert (last.kind, last.error) == (GOAWAY, COMPRESSION_ERROR)
    server.await_connections(1)


def test_table_size_that_goes_up_and_down_changes_nothing(attack):
    """In settings, for replies, and in blocks, for requests: the server keeps no more than its own 4 KiB."""
    server = attack()
    with server.connect() as connection:
        for size in (0, 2**32 - 1, 1, 4096, 65536) * 5:
            connection.send(encode_settings({HEADER_TABLE_SIZE: size}))
            block = encode_integer(0, 5, 0x20) + encode_integer(4096, 5, 0x20) + encode_request()
            stream = connection.take_stream()
            connection.send_frame(HEADERS, END_HEADERS, stream, block)
            connection.send_data(stream, encode_message(small_request()), ends=True)
            check_reply(connection.await_reply(stream).message)


def test_continuation_flood_ends_the_connection(attack):
    """However small each frame is."""
    server = attack()
    with server.connect() as connection:
        stream = connection.open_call(flags=0)
        assert connection.flood(itertools.repeat(encode_frame(CONTINUATION, 0, stream, encode_header("x", "y"))))
    server.await_connections(1)


@pytest.mark.parametrize("first", [HEADERS, CONTINUATION])
def test_headers_that_never_end_are_cut_off(attack, first):
    """In time, also when frames have come in between."""
    server = attack(header_timeout_s=0.3)
    with server.connect() as connection:
        connection.acknowledge_settings()
        stream = connection.open_call(flags=0)
        if first == CONTINUATION:
            connection.send_frame(CONTINUATION, 0, stream, encode_header("x", "y"))
        connection.await_end()
    server.await_connections(1)


def test_headers_whose_bytes_trickle_are_cut_off(attack):
    """A byte at a time, in one frame."""
    server = attack(header_timeout_s=0.3)
    with server.connect() as connection:
        block = encode_request()
        stream = connection.take_stream()
        connection.send(len(block).to_bytes(3, "big") + bytes([HEADERS, END_HEADERS]) + stream.to_bytes(4, "big"))
        assert connection.flood(trickle(server, block))
    server.await_connections(1)


def test_trailers_that_never_end_are_cut_off(attack):
    """They are headers too."""
    server = attack(header_timeout_s=0.3)
    with server.connect() as connection:
        stream = connection.open_call()
        connection.send_frame(HEADERS, END_STREAM, stream, encode_header("x", "y"))
        connection.await_end()
    server.await_connections(1)


@pytest.mark.parametrize(
    ("kind", "flags"), [(PING, 0), (HEADERS, END_HEADERS), (CONTINUATION, END_HEADERS), (RST_STREAM, 0)]
)
def test_frame_amid_headers_ends_the_connection(attack, kind, flags):
    """Only CONTINUATION of the same stream may come."""
    server = attack()
    with server.connect() as connection:
        connection.open_call(flags=0)
        connection.send_frame(kind, flags, connection.take_stream(), bytes(8))
        last = connection.await_end()[-1]
        assert (last.kind, last.error) == (GOAWAY, PROTOCOL_ERROR)
    server.await_connections(1)


def test_continuation_without_headers_ends_the_connection(attack):
    """There is nothing to continue."""
    server = attack()
    with server.connect() as connection:
        connection.send_frame(CONTINUATION, END_HEADERS, 1, encode_request())
        assert connection.await_end()[-1].error == PROTOCOL_ERROR
    server.await_connections(1)


@pytest.mark.parametrize("padding", [b"\x05", b"\xff" + bytes(10)], ids=["more than the frame", "nearly all"])
def test_headers_with_impossible_padding_end_the_connection(attack, padding):
    """The padding is no larger than its frame."""
    server = attack()
    with server.connect() as connection:
        connection.send_frame(HEADERS, END_HEADERS | PADDED, 1, padding)
        assert connection.await_end()[-1].error in (PROTOCOL_ERROR, FRAME_SIZE_ERROR, COMPRESSION_ERROR)
    server.await_connections(1)


def test_trailers_of_a_client_end_its_call(attack):
    """They say nothing to gRPC, whatever is in them, and the message before them counts."""
    server = attack(max_header_fields=20)
    with server.connect() as connection:
        stream = connection.open_call()
        connection.send_data(stream, encode_message(small_request()))
        trailers = encode_header("grpc-timeout", "1n") + encode_header("content-type", "x") + fields(100)
        connection.send_frame(HEADERS, END_HEADERS | END_STREAM, stream, trailers)
        check_reply(connection.await_reply(stream).message)


@pytest.mark.parametrize(
    "extra",
    [
        encode_header(":path", "/other"),
        encode_header(":method", "GET"),
        encode_header(":status", "200"),
        encode_header(":unknown", "1"),
        encode_header("Upper-Case", "1"),
        encode_header("connection", "close"),
        encode_header("transfer-encoding", "chunked"),
        encode_header("te", "gzip"),
        encode_header("content-length", "x"),
        encode_header("content-length", "7"),
        encode_header("x", "a\nb"),
        encode_header("", "empty"),
        encode_header("sp ace", "1"),
    ],
    ids=lambda extra: extra[2:].split(b"\1")[0][:18].decode("latin-1"),
)
def test_request_that_is_no_http_is_reset(attack, extra):
    """With an error of the protocol for this stream alone; a content-length that does not fit shows at the end."""
    server = attack()
    with server.connect() as connection:
        reply = connection.await_reply(connection.open_call(END_HEADERS | END_STREAM, extra))
        assert reply.reset == PROTOCOL_ERROR
        check_reply(connection.await_reply(connection.send_call(small_request())).message)


@pytest.mark.parametrize("missing", ["_method", "_path", "_scheme"])
def test_request_without_a_pseudo_header_is_reset(attack, missing):
    """As HTTP/2 has it."""
    server = attack()
    with server.connect() as connection:
        assert connection.await_reply(connection.open_call(**{missing: None})).reset == PROTOCOL_ERROR
        check_reply(connection.await_reply(connection.send_call(small_request())).message)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"content_type": None}, "415"),
        ({"content_type": "text/plain"}, "415"),
        ({"content_type": "application/grpcweb"}, "415"),
        ({"_method": "GET"}, "405"),
        ({"_method": "OPTIONS", "content_type": None}, "405"),
    ],
)
def test_request_that_is_no_grpc_is_answered_in_terms_of_http(attack, fields, status):
    """At once, however much it goes on to say."""
    server = attack()
    with server.connect() as connection:
        stream = connection.open_call(**fields)
        connection.send_data(stream, bytes(50_000))
        reply = connection.await_reply(stream)
        assert reply.fields == {":status": status}
        check_reply(connection.await_reply(connection.send_call(small_request())).message)


@pytest.mark.parametrize("fields", [{"te": None}, {"content_type": "application/grpc+proto"}])
def test_request_with_unusual_but_harmless_headers_is_served(attack, fields):
    """Clients differ."""
    server = attack()
    with server.connect() as connection:
        check_reply(connection.await_reply(connection.send_call(small_request(), **fields)).message)


@pytest.mark.parametrize(
    "timeout", ["", "1", "S", "123456789S", "-1S", "1.5S", "1X", "1 S", "\u0661S", "99999999999999S"]
)
def test_timeout_that_is_none_is_refused(attack, timeout):
    """Nothing is guessed."""
    server = attack()
    with server.connect() as connection:
        reply = connection.await_reply(connection.send_call(small_request(), grpc_timeout=timeout))
        assert reply.status == INTERNAL
        check_reply(connection.await_reply(connection.send_call(small_request())).message)


@pytest.mark.parametrize("timeout", ["99999999H", "99999999M", "00000001H"])
def test_timeout_beyond_the_clock_is_taken(attack, timeout):
    """It is one that never passes."""
    server = attack()
    with server.connect() as connection:
        check_reply(connection.await_reply(connection.send_call(small_request(), grpc_timeout=timeout)).message)


@pytest.mark.parametrize("encoding", ["snappy", "", "gzip, deflate", "GZIP"])
def test_encoding_that_is_unknown_is_unimplemented(attack, encoding):
    """Told before the message is looked at."""
    server = attack()
    with server.connect() as connection:
        reply = connection.await_reply(connection.send_call(small_request(), grpc_encoding=encoding))
        assert reply.status == UNIMPLEMENTED
