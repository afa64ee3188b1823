"""More connections than are allowed, and connections that end at any moment."""

import contextlib

from tests.attacks.attacked_server import check_service, small_request
from tests.http2_frames import PREFACE, encode_frame, encode_message, encode_settings
from tests.raw_http2 import connect, encode_request


def test_connection_beyond_the_limit_is_closed_at_once(attack):
    """Those before it stay, and one that ends makes room."""
    server = attack(max_connections=4)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(server.connect()) for _ in range(3)]
        server.await_connections(4)
        for _ in range(50):
            with server.connect(greets=False) as refused:
                assert refused.await_end() == []
        for connection in held:
            connection.await_ping()
    server.await_connections(1)
    check_service(server.address)


def test_connections_that_come_and_go_are_all_given_back(attack):
    """Silent ones, greeted ones, and ones that vanish."""
    server = attack()
    for number in range(600):
        with server.connect(greets=number % 3 > 0) as connection:
            if number % 2:
                connection.reset()
    server.await_connections(1)


def test_connection_cut_off_after_any_byte_leaves_nothing(attack):
    """Every prefix of a call."""
    content = (
        PREFACE
        + encode_settings({})
        + encode_frame(0x1, 0x4, 1, encode_request())
        + encode_frame(0x0, 0x1, 1, encode_message(small_request()))
    )
    server = attack()
    for size in range(len(content)):
        with connect(server.address) as connection:
            connection.sendall(content[:size])
    server.await_connections(1)
