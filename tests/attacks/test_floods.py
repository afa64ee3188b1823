"""Frames that cost their sender next to nothing, in such numbers that they would keep the server busy."""

import itertools

import pytest

from tests.attacks.attacked_server import STREAM_PATH, check_reply, small_request
from tests.http2_frames import (
    ACK,
    CANCEL,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    encode_frame,
    encode_header,
    encode_message,
    encode_reset,
    encode_settings,
    encode_window_update,
)
from tests.raw_http2 import encode_request

IDLE_FRAMES = {
    "PING": encode_frame(PING, payload=bytes(8)),
    "PING that acknowledges nothing": encode_frame(PING, ACK, payload=bytes(8)),
    "SETTINGS": encode_settings({}),
    "SETTINGS of a window": encode_settings({INITIAL_WINDOW_SIZE: 100}),
    "PRIORITY": encode_frame(PRIORITY, stream=1, payload=bytes(5)),
    "PRIORITY of an idle stream": encode_frame(PRIORITY, stream=101, payload=bytes(5)),
    "WINDOW_UPDATE": encode_window_update(0, 1),
    "WINDOW_UPDATE of a stream": encode_window_update(1, 1),
    "DATA": encode_frame(DATA, stream=1),
    "DATA of padding": encode_frame(DATA, PADDED, 1, b"\3\0\0\0"),
}


@pytest.mark.parametrize("frame", IDLE_FRAMES.values(), ids=IDLE_FRAMES)
def test_flood_of_a_frame_that_brings_nothing_ends_the_connection(attack, frame):
    """Told to calm down, if it reads."""
    server = attack(max_idle_frames_per_s=200)
    with server.connect() as connection:
        connection.open_call()
        connection.await_ping()
        connection.send(frame * 150)
        connection.await_ping()
        assert connection.flood(itertools.repeat(frame * 100))
    server.await_connections(1)


def test_flood_is_answered_with_enhance_your_calm(attack):
    """Who sends a little too much is told why it is cut off."""
    server = attack(max_idle_frames_per_s=200)
    with server.connect() as connection:
        connection.send(IDLE_FRAMES["PING"] * 300)
        last = connection.await_end()[-1]
        assert (last.kind, last.error) == (GOAWAY, ENHANCE_YOUR_CALM)


@pytest.mark.parametrize("frame", [IDLE_FRAMES["PING"], IDLE_FRAMES["SETTINGS"]], ids=["PING", "SETTINGS"])
def test_flood_that_reads_no_answers_ends_the_connection(attack, frame):
    """The answers do not pile up, whatever the limit."""
    server = attack(max_idle_frames_per_s=10**9)
    with server.connect() as connection:
        assert connection.flood(itertools.repeat(frame * 10_000))
    server.await_connections(1)


def test_pings_between_calls_never_end_the_connection(attack):
    """Ten for each call, as in a client's probe of its bandwidth: what the server sends forgives them."""
    server = attack(max_idle_frames_per_s=100)
    with server.connect() as connection:
        for _ in range(100):
            connection.send(IDLE_FRAMES["PING"] * 10)
            check_reply(connection.await_reply(connection.send_call(small_request())).message)


def test_pings_within_the_limit_never_end_the_connection(attack):
    """The count of a second is forgotten in the next."""
    server = attack(max_idle_frames_per_s=100)
    with server.connect() as connection:
        for _ in range(15):
            connection.send(IDLE_FRAMES["PING"] * 10)
            connection.await_ping()
            server.bystander.await_seconds(0.15)


def test_settings_with_many_entries_end_the_connection(attack):
    """More than there are kinds of, in one frame."""
    server = attack()
    with server.connect() as connection:
        connection.send(encode_frame(SETTINGS, payload=(b"\0\4" + bytes(4)) * 1000))
        assert connection.await_end()[-1].kind == GOAWAY


def test_unknown_frames_are_ignored(attack):
    """On any stream, of any kind, with anything in them."""
    server = attack()
    with server.connect() as connection:
        stream = connection.open_call()
        for kind in (0xA, 0xC, 0x10, 0x42, 0xFF):
            for place in (0, 1, 2, 99):
                connection.send_frame(kind, 0xFF, place, bytes(100))
        connection.send_data(stream, encode_message(small_request()), ends=True)
        check_reply(connection.await_reply(stream).message)


def test_flood_of_unknown_frames_leaves_others_their_turn(attack):
    """They cost their reading and are kept nowhere."""
    server = attack()
    with server.connect() as connection:
        assert not connection.flood([encode_frame(0x42) * 10_000] * 100)
        connection.await_ping()


@pytest.mark.parametrize("path", [None, STREAM_PATH, "/test.Raw/Echo", "/nowhere"], ids=str)
def test_rapid_reset_ends_the_connection(attack, path):
    """Calls that are begun and given up at once, by the thousand."""
    server = attack(max_resets_per_s=100)
    fields = {"_path": path} if path else {}
    block = encode_request(**fields) + encode_header("x", "v" * 1000)
    with server.connect() as connection:
        assert connection.flood(
            encode_frame(HEADERS, END_HEADERS, stream, block) + encode_reset(stream) for stream in range(1, 10**6, 2)
        )
    server.await_connections(1)


def test_resets_within_the_limit_never_end_the_connection(attack):
    """Clients may give up calls."""
    server = attack(max_resets_per_s=20)
    with server.connect() as connection:
        for _ in range(100):
            stream = connection.send_call(small_request(), missing=1)
            connection.send(encode_reset(stream, CANCEL))
        check_reply(connection.await_reply(connection.send_call(small_request())).message)


PROVOCATIONS = {
    "window overflow": lambda stream: encode_window_update(stream, LARGEST_WINDOW),
    "headers that are none": lambda stream: encode_frame(
        HEADERS, END_HEADERS | END_STREAM, stream, encode_header("Upper", "x")
    ),
    "trailers without an end": lambda stream: encode_frame(HEADERS, END_HEADERS, stream, encode_header("x", "y")),
    "content-length": lambda stream: encode_frame(DATA, END_STREAM, stream),
}


@pytest.mark.parametrize("provoke", PROVOCATIONS.values(), ids=PROVOCATIONS)
def test_resets_that_the_server_is_made_to_send_end_the_connection(attack, provoke):
    """ "MadeYouReset": they are the client's doing, and the client can keep them up as those of its own."""
    server = attack(max_resets_per_s=50)
    block = encode_request() + encode_header("content-length", "1000")
    with server.connect() as connection:
        first = connection.open_call(extra=encode_header("content-length", "1000"))
        connection.send(provoke(first))
        assert connection.await_reply(first).reset is not None
        assert connection.flood(
            encode_frame(HEADERS, END_HEADERS, stream, block) + provoke(stream) for stream in range(3, 10**6, 2)
        )
    server.await_connections(1)


def test_refused_streams_do_not_pile_up_answers(attack):
    """A client that opens more than it may, and reads nothing of it."""
    server = attack(max_streams=1, max_resets_per_s=100)
    with server.connect() as connection:
        assert connection.flood(
            encode_frame(HEADERS, END_HEADERS, stream, encode_request()) for stream in range(1, 10**6, 2)
        )
    server.await_connections(1)


def test_zero_increment_of_a_window_ends_the_connection(attack):
    """For a stream as for the connection."""
    server = attack()
    for is_stream in (False, True):
        with server.connect() as connection:
            stream = connection.open_call()
            connection.send(encode_window_update(stream if is_stream else 0, 0))
            assert connection.await_end()[-1].kind == GOAWAY
    server.await_connections(1)


def test_overflow_of_a_window_is_an_error(attack):
    """Of the stream's for the stream, of the connection's for the connection."""
    server = attack()
    with server.connect() as connection:
        stream = connection.open_call()
        connection.send(encode_window_update(stream, LARGEST_WINDOW))
        frame = connection.await_frame(RST_STREAM)
        assert (frame.stream, frame.error) == (stream, FLOW_CONTROL_ERROR)
        connection.send(encode_window_update(0, LARGEST_WINDOW))
        last = connection.await_end()[-1]
        assert (last.kind, last.error) == (GOAWAY, FLOW_CONTROL_ERROR)
    server.await_connections(1)


def test_settings_that_push_a_window_over_its_end_reset_its_stream(attack):
    """A window grows by the difference."""
    server = attack()
    with server.connect() as connection:
        stream = connection.open_call()
        connection.send(encode_window_update(stream, LARGEST_WINDOW - DEFAULT_WINDOW))
        connection.send(encode_settings({INITIAL_WINDOW_SIZE: LARGEST_WINDOW}))
        assert connection.await_reply(stream).reset == FLOW_CONTROL_ERROR
        check_reply(connection.await_reply(connection.send_call(small_request())).message)
