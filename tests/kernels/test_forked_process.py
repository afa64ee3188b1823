"""Processes that are forked while a server runs: for a moment they hold its descriptors too."""

import ctypes
import os
import signal
import socket
import time

from tests.kernels.raw_handlers import ECHO
from tests.kernels.raw_service import WAIT_S


def test_connection_that_a_forked_process_still_holds_is_gone_for_the_server(serve):
    """What still comes on it does not reach the memory that was freed with it."""
    service = serve(ECHO)
    host, port = service.address.split(":")
    connections = [socket.create_connection((host, int(port)), WAIT_S) for _ in range(20)]
    assert service.call("Echo", b"1") == b"1"
    child = fork_and_wait()
    try:
        for connection in connections:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        await_connections(service.server, 1)
        for connection in connections:
            connection.sendall(b"more")
        for number in range(50):
            assert service.call("Echo", b"%d" % number) == b"%d" % number
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for connection in connections:
            connection.close()


def await_connections(server, count):
    """Return when so many are open."""
    until = time.monotonic() + WAIT_S
    while server._transport.statistics()["connections"] != count:
        assert time.monotonic() < until
        time.sleep(0.005)


def fork_and_wait():
    """Fork a process that does nothing, not even run what is to run at a fork; returns its number."""
    libc = ctypes.CDLL(None)
    child = libc.fork()
    if child == 0:
        libc.pause()
        libc._exit(0)
    return child
