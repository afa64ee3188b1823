"""Peers that keep the server waiting: for a handshake, a message, room for a reply, a ping's answer, the next call."""

import itertools

import pytest

from tests.attacks.attacked_server import (
    ECHO_PATH,
    INFER_PATH,
    POUR_PATH,
    STREAM_PATH,
    check_reply,
    large_reply_request,
    small_request,
)
from tests.http2_frames import (
    ACK,
    CANCEL,
    DATA,
    GOAWAY,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    NO_ERROR,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    encode_frame,
    encode_message,
    encode_settings,
    encode_window_update,
)

DEADLINE_EXCEEDED = 4
# Also what a client has to greet in, which a busy machine may keep waiting.
SHORT_S = 1.0
# Well beyond a short limit and the interval at which limits are looked at.
LONG_S = 2.0
# Of peers that are slow and steady: all that they do takes longer, and each step far less, even on a busy machine.
STEADY_S = 2.0


def trickle(server, content, pause_s=0.2):
    """The bytes of a content one by one, with time in between."""
    for place in range(len(content)):
        server.bystander.await_seconds(pause_s)
        yield content[place : place + 1]


# ---- the handshake


@pytest.mark.parametrize(
    "words", [b"", PREFACE[:1], PREFACE[:-1], PREFACE, PREFACE + encode_settings({})[:-1]], ids=range(5)
)
def test_connection_that_does_not_greet_is_closed(attack, words):
    """Silent, or cut short anywhere before the end of its first SETTINGS."""
    server = attack(handshake_timeout_s=SHORT_S)
    with server.connect(greets=False) as connection:
        connection.send(words)
        connection.await_end()
    server.await_connections(1)


def test_greeting_that_trickles_is_cut_off(attack):
    """The whole of it has to come in time."""
    server = attack(handshake_timeout_s=SHORT_S)
    with server.connect(greets=False) as connection:
        assert connection.flood(trickle(server, PREFACE + encode_settings({})))


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /x HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
        PREFACE + encode_frame(PING, payload=bytes(8)),
        PREFACE + encode_frame(SETTINGS, ACK),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes(100),
        bytes(range(256)) * 100,
    ],
    ids=["HTTP/1.1", "upgrade", "almost", "PING first", "ACK first", "TLS", "zeros", "noise"],
)
def test_connection_that_speaks_something_else_is_closed_at_once(attack, words):
    """Without waiting for more of it."""
    server = attack(handshake_timeout_s=60)
    with server.connect(greets=False) as connection:
        connection.flood([words])
        connection.await_end()
    server.await_connections(1)


# ---- messages that do not come


@pytest.mark.parametrize("path", [INFER_PATH, STREAM_PATH, ECHO_PATH], ids=["infer", "stream", "python"])
@pytest.mark.parametrize("sent", [1, 5, 6, 1000], ids=["a byte", "prefix", "begun", "more"])
def test_message_that_stops_coming_ends_its_call(attack, path, sent):
    """DEADLINE_EXCEEDED, and the connection goes on."""
    server = attack(receive_timeout_s=SHORT_S)
    with server.connect() as connection:
        stream = connection.open_call(_path=path)
        connection.send_data(stream, encode_message(bytes(2000))[:sent])
        assert connection.await_reply(stream).status == DEADLINE_EXCEEDED
        assert server.buffered_bytes == 0
        check_reply(connection.await_reply(connection.send_call(small_request())).message)


@pytest.mark.parametrize("path", [INFER_PATH, ECHO_PATH], ids=["infer", "python"])
def test_call_of_one_message_that_does_not_begin_ends(attack, path):
    """A unary method has nothing else to wait for."""
    server = attack(receive_timeout_s=SHORT_S)
    with server.connect() as connection:
        assert connection.await_reply(connection.open_call(_path=path)).status == DEADLINE_EXCEEDED


def test_message_that_comes_slowly_is_served(attack):
    """A byte now and then is enough."""
    server = attack(receive_timeout_s=STEADY_S)
    with server.connect() as connection:
        stream = connection.open_call()
        content = encode_message(small_request())
        connection.send_data(stream, content[:-12])
        for part in trickle(server, content[-12:]):
            connection.send_data(stream, part)
        connection.send_data(stream, b"", ends=True)
        check_reply(connection.await_reply(stream).message)


def test_stream_that_rests_between_messages_is_not_ended(attack):
    """However long: it is not in the middle of anything, neither before the first message nor behind one."""
    server = attack(receive_timeout_s=SHORT_S)
    with server.connect() as connection:
        stream = connection.open_call(_path=STREAM_PATH)
        server.bystander.await_seconds(LONG_S)
        for rows in (1, 100):
            connection.send_data(stream, encode_message(small_request(rows)))
            connection.await_frame(DATA)
            server.bystander.await_seconds(LONG_S)
        connection.send_data(stream, b"", ends=True)
        assert connection.await_reply(stream).status == 0


# ---- replies that are not taken


@pytest.mark.parametrize("path", [INFER_PATH, STREAM_PATH, POUR_PATH], ids=["infer", "stream", "python"])
def test_reply_that_finds_no_window_is_given_up(attack, path):
    """The call is reset, what waited is forgotten, and the connection goes on."""
    server = attack(send_timeout_s=SHORT_S)
    with server.connect(window=0) as connection:
        message = b"3" if path == POUR_PATH else large_reply_request()
        stream = connection.send_call(message, _path=path)
        assert connection.await_reply(stream).reset == CANCEL
        server.await_state(lambda: server.buffered_bytes == 0)
        connection.send(encode_settings({INITIAL_WINDOW_SIZE: 65535}))
        check_reply(connection.await_reply(connection.send_call(small_request())).message)


def test_replies_that_fill_the_connection_s_window_are_given_up(attack):
    """One that is never opened again."""
    server = attack(send_timeout_s=SHORT_S)
    with server.connect() as connection:
        streams = [connection.send_call(large_reply_request()) for _ in range(5)]
        assert [connection.await_reply(stream).reset for stream in streams[1:]] == [CANCEL] * 4
        server.await_state(lambda: server.buffered_bytes == 0)


def test_reply_that_is_taken_slowly_is_sent_to_its_end(attack):
    """A window of a few bytes now and then is enough."""
    server = attack(send_timeout_s=STEADY_S)
    with server.connect(window=0) as connection:
        stream = connection.send_call(small_request())
        for _ in range(12):
            server.bystander.await_seconds(0.2)
            connection.send(encode_window_update(stream, 5))
        connection.widen(stream)
        check_reply(connection.await_reply(stream).message)


@pytest.mark.parametrize("path", [INFER_PATH, STREAM_PATH, POUR_PATH], ids=["infer", "stream", "python"])
def test_connection_whose_socket_is_full_is_closed(attack, path):
    """A peer that reads nothing at all, with replies of 64 KiB waiting."""
    server = attack(send_timeout_s=SHORT_S)
    with server.connect(window=LARGEST_WINDOW) as connection:
        message = b"200" if path == POUR_PATH else large_reply_request(count=2**20)
        for _ in range(10):
            connection.send_call(message, _path=path)
        server.await_state(lambda: server.buffered_bytes > 2**19)
        server.await_connections(1)


def test_connection_that_reads_slowly_is_served_to_the_end(attack):
    """A little now and then is enough."""
    server = attack(send_timeout_s=STEADY_S)
    with server.connect(window=LARGEST_WINDOW) as connection:
        streams = [connection.send_call(large_reply_request(count=2**18)) for _ in range(12)]
        for _ in range(24):
            server.bystander.await_seconds(0.1)
            for _ in range(8):
                connection.await_frame(DATA)
        assert [len(connection.await_reply(stream).data) > 2**20 for stream in streams] == [True] * 12


# ---- connections that do nothing


def test_idle_connection_is_told_to_go(attack):
    """First that it should, then that it must; the bystander, who calls, stays."""
    server = attack(idle_timeout_s=SHORT_S, is_watched=False)
    server.watch(retries=True)
    with server.connect() as connection:
        connection.await_reply(connection.send_call(small_request()))
        goaways = [frame for frame in connection.await_end() if frame.kind == GOAWAY]
        assert [frame.error for frame in goaways] == [NO_ERROR] * 2
        assert goaways[0].payload[:4] == LARGEST_WINDOW.to_bytes(4, "big")
    server.await_connections(1)


def test_connection_with_a_call_is_not_idle(attack):
    """Nor is one whose call is a stream that says nothing."""
    server = attack(idle_timeout_s=SHORT_S, is_watched=False)
    server.watch(retries=True)
    with server.connect() as connection:
        stream = connection.open_call(_path=STREAM_PATH)
        server.bystander.await_seconds(LONG_S)
        connection.send_data(stream, b"", ends=True)
        assert connection.await_reply(stream).status == 0


def test_peer_that_answers_no_ping_is_closed(attack):
    """It is gone, though its end was never heard; its calls are cancelled."""
    server = attack(keepalive_time_s=SHORT_S, keepalive_timeout_s=SHORT_S)
    with server.connect() as connection:
        connection.open_call(_path=STREAM_PATH)
        assert PING in [frame.kind for frame in connection.await_end()]
    server.await_connections(1)


def test_peer_that_answers_pings_stays(attack):
    """For as long as it does."""
    server = attack(keepalive_time_s=0.5, keepalive_timeout_s=STEADY_S)
    with server.connect() as connection:
        for _ in range(6):
            ping = connection.await_frame(PING)
            connection.send_frame(PING, ACK, 0, ping.payload)
        connection.await_ping()


def test_peer_that_says_anything_is_not_taken_for_gone(attack):
    """The answer to a ping may be a long way behind: bytes of a message say as much."""
    server = attack(keepalive_time_s=0.2, keepalive_timeout_s=STEADY_S, receive_timeout_s=0)
    with server.connect() as connection:
        stream = connection.open_call()
        content = encode_message(small_request())
        connection.send_data(stream, content[:-15])
        for part in trickle(server, content[-15:]):
            connection.send_data(stream, part)
        connection.send_data(stream, b"", ends=True)
        check_reply(connection.await_reply(stream).message)


def test_peer_that_vanishes_after_it_was_told_to_go_is_closed(attack):
    """A call keeps such a connection open, but only while there is somebody at its other end."""
    server = attack(idle_timeout_s=0.2, keepalive_time_s=SHORT_S, keepalive_timeout_s=SHORT_S, is_watched=False)
    with server.connect() as connection:
        connection.await_frame(GOAWAY)
        connection.open_call(_path=STREAM_PATH)
        connection.await_end()
    server.await_connections(0)


def test_old_connection_is_told_to_go_and_its_calls_end_by_themselves(attack):
    """Without a limit to the grace."""
    server = attack(max_connection_age_s=SHORT_S, is_watched=False)
    with server.connect() as connection:
        stream = connection.open_call(_path=STREAM_PATH)
        connection.await_frame(GOAWAY)
        connection.await_frame(GOAWAY)
        connection.send_data(stream, encode_message(small_request()), ends=True)
        assert connection.await_reply(stream).status == 0
        connection.await_end()
    server.await_connections(0)


def test_old_connection_that_does_not_go_is_closed_after_the_grace(attack):
    """With the calls that it still has."""
    server = attack(max_connection_age_s=SHORT_S, max_connection_age_grace_s=SHORT_S, is_watched=False)
    with server.connect() as connection:
        connection.open_call(_path=STREAM_PATH)
        kinds = [frame.kind for frame in connection.await_end()]
        assert GOAWAY in kinds
        assert RST_STREAM not in kinds
    server.await_connections(0)


def test_client_of_grpc_s_own_outlives_the_age_of_its_connections(attack):
    """It is told in time, and takes another one: no call fails."""
    server = attack(max_connection_age_s=SHORT_S, is_watched=False)
    server.watch(retries=True)
    server.bystander.await_seconds(2.5)


# ---- what a client may do


def test_goaway_of_a_client_lets_its_calls_end(attack):
    """And the connection with them."""
    server = attack()
    with server.connect() as connection:
        stream = connection.open_call()
        connection.send_frame(GOAWAY, 0, 0, bytes(8))
        connection.send_data(stream, encode_message(small_request()), ends=True)
        check_reply(connection.await_reply(stream).message)
        connection.await_end()
    server.await_connections(1)


def test_client_that_closes_its_side_at_once_is_answered_or_gone(attack):
    """Calls whose connection says that nothing more comes."""
    server = attack()
    for _ in itertools.repeat(None, 50):
        with server.connect() as connection:
            connection.send_call(small_request())
            connection.shut()
            connection.await_end()
    server.await_connections(1)
