"""Clients that misbehave on the connection: whatever they do, the others are served as before."""

import contextlib

import numpy as np
import pytest
from inference_messages import build_request

from tests.end_to_end.load import make_request, run_load
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target
from tests.http2_frames import DATA, HEADERS, LARGEST_WINDOW
from tests.raw_http2 import RawConnection, connect

LARGE = build_request("expander", {"input": np.array([2**20])}).SerializeToString()
SMALL = make_request(1).SerializeToString()
CONNECTIONS = 20


@pytest.fixture
def server(transport, repository):
    """A server of the test's own."""
    with ServerProcess(repository, "--insecure") as server:
        yield server


@pytest.fixture
def load(clients, server):
    """Others, who are served before, meanwhile and after; at the end nothing of the bad one is left."""
    with run_load(clients, Target(server.address), callers=4) as load:
        load.wait_for_more(50)
        yield load
        load.wait_for_more(200)
    assert load.failures == []
    server.terminate()
    assert server.await_event("stopped")["drained"]
    assert server.wait() == 0


@pytest.mark.parametrize("missing", [1, len(SMALL)], ids=["the last byte", "all but the prefix"])
def test_client_that_vanishes_in_the_middle_of_a_message_harms_nobody(server, load, missing):
    """Half a request is forgotten with its connection."""
    for _ in range(CONNECTIONS):
        with RawConnection(server.address) as connection:
            connection.send_call(SMALL, missing=missing)
            connection.await_ping()
            connection.reset()
    load.wait_for_more(50)


def test_client_that_vanishes_before_its_answer_harms_nobody(server, load):
    """Its answer goes nowhere."""
    for _ in range(CONNECTIONS):
        with RawConnection(server.address) as connection:
            for _ in range(50):
                connection.send_call(SMALL)
            connection.reset()
    load.wait_for_more(50)


@pytest.mark.parametrize(
    ("window", "first"), [(LARGEST_WINDOW, DATA), (0, HEADERS)], ids=["reads nothing", "allows nothing"]
)
def test_client_that_does_not_take_large_answers_harms_nobody(server, load, window, first):
    """Neither one that stops reading from its socket nor one whose window is shut holds up another's answer."""
    with RawConnection(server.address, window=window) as connection:
        for _ in range(20):
            connection.send_call(LARGE)
        connection.await_frame(first)
        load.wait_for_more(300)


def test_connections_that_say_nothing_harm_nobody(server, load):
    """Neither those that speak HTTP/2 and ask nothing nor those that do not even that."""
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(RawConnection(server.address))
            connection.await_ping()
            stack.enter_context(connect(server.address))
        load.wait_for_more(100)
        connection.await_ping()


@pytest.mark.parametrize(
    "words", [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", bytes(1000)]
)
def test_connection_that_speaks_something_else_is_closed(server, load, words):
    """HTTP/1, TLS on a port without, and noise."""
    with connect(server.address) as connection:
        connection.sendall(words)
        while connection.recv(65536):
            pass
