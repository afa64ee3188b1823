"""The port for scrapes: what it answers, and what it does not let anybody do."""

import contextlib
import http.client
import socket
import threading
import time

import pytest

from service import metrics_server
from service.exposition import CONTENT_TYPE, Family
from service.metrics import Metrics
from service.metrics_server import MAX_CONNECTIONS, MetricsServer

WAIT_S = 30


def describe_one():
    """A source of one sample."""
    family = Family("sluice_test", "gauge", "A test")
    family.add(1)
    return [family]


TEXT = b"# HELP sluice_test A test\n# TYPE sluice_test gauge\nsluice_test 1\n"


@contextlib.contextmanager
def running(*sources, host="127.0.0.1"):
    """A server of these sources."""
    server = MetricsServer(host, 0, Metrics(*sources))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def ask(server, path="/metrics", method="GET"):
    """Status, headers and body."""
    with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=WAIT_S)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def ask_until_answered(server):
    """As ask; a thread is free again a moment after its peer has been hung up on."""
    until = time.monotonic() + WAIT_S
    while True:
        try:
            return ask(server)
        except (ConnectionError, http.client.HTTPException):
            assert time.monotonic() < until


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "unix:/tmp/sluice.sock"])
def test_scrape_gets_the_text_over_every_kind_of_host(host):
    """A server on a Unix socket is scraped over loopback."""
    with running(describe_one, host=host) as server:
        status, headers, body = ask(server, "/metrics?name=any")
    assert (status, body) == (200, TEXT)
    assert headers["Content-Type"] == CONTENT_TYPE
    assert int(headers["Content-Length"]) == len(TEXT)


def test_other_paths_and_methods_are_refused():
    """There is one thing to be had, by GET; HEAD is GET without a body."""
    with running(describe_one) as server:
        assert ask(server, "/")[0] == 404
        assert ask(server, "/metrics/")[0] == 404
        assert ask(server, method="POST")[0] == 501
        status, headers, body = ask(server, method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(TEXT)), b"")


def test_source_that_fails_is_logged_and_the_others_answer(caplog):
    """A scrape is worth more than any one metric."""

    def fail():
        raise RuntimeError("no such file")

    with running(fail, describe_one) as server:
        assert ask(server)[2] == TEXT
    assert "no such file" in caplog.text


def test_port_that_is_taken_is_an_error():
    """Nobody shares it in silence."""
    with running(describe_one) as server, pytest.raises(OSError, match="in use"):
        MetricsServer(server.host, server.port, Metrics())


def test_peers_that_say_nothing_are_bounded_and_hung_up_on(monkeypatch):
    """So many connections and no more; when their time is over, a scrape gets through again."""
    monkeypatch.setattr(metrics_server._Handler, "timeout", 0.5)
    with running(describe_one) as server, contextlib.ExitStack() as stack:
        address = (server.host, server.port)
        silent = [stack.enter_context(socket.create_connection(address, WAIT_S)) for _ in range(MAX_CONNECTIONS)]
        late = stack.enter_context(socket.create_connection(address, WAIT_S))
        assert late.recv(1) == b""
        assert all(one.recv(1) == b"" for one in silent)
        assert ask_until_answered(server)[2] == TEXT


def test_scrapes_at_the_same_time_each_get_the_text():
    """One that takes long keeps no other waiting."""
    both_came = threading.Barrier(2, timeout=WAIT_S)

    def wait():
        both_came.wait()
        return describe_one()

    with running(wait) as server:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(ask(server)[2])) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert answers == [TEXT, TEXT]


def test_stop_closes_the_port():
    """And one that was never started can be stopped."""
    with running(describe_one) as server:
        pass
    with pytest.raises(ConnectionRefusedError):
        ask(server)
    MetricsServer("127.0.0.1", 0, Metrics()).stop()
