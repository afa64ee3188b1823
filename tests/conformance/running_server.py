"""A server of one kind in this process, on a free port, for as long as a test needs it."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

from tests.free_ports import HOST

THREADS = 8
STOP_TIMEOUT_S = 30.0


@contextlib.contextmanager
def running_server(kind, register, *, identity=None, threads=THREADS):
    """Start a server with the services that `register(server)` adds; yields it and its address, and stops it."""
    with ThreadPoolExecutor(threads) as pool:
        server = kind.make(pool)
        register(server)
        port = add_port(server, kind, identity)
        server.start()
        try:
            yield server, f"{HOST}:{port}"
        finally:
            assert server.stop(0).wait(STOP_TIMEOUT_S)


def add_port(server, kind, identity=None, address=f"{HOST}:0"):
    """Listen at an address, in plain text without an identity; returns the port."""
    if identity is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, kind.make_credentials(identity))
