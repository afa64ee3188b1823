"""kernels.listener: each connection goes to the I/O thread that has fewest."""

import contextlib
import os
import re
import socket
import time

THREADS = 4
WAIT_S = 30


def count_connections(port):
    """How many accepted connections of a port each poller of this process watches, if any, ascending."""
    watched = []
    for descriptor in os.listdir("/proc/self/fdinfo"):
        try:
            with open(f"/proc/self/fdinfo/{descriptor}") as info:
                targets = re.findall(r"^tfd:\s+(\d+)", info.read(), re.MULTILINE)
        except FileNotFoundError:  # that of the listing itself
            continue
        watched.append(sum(is_accepted(int(target), port) for target in targets))
    return sorted(count for count in watched if count)


def is_accepted(descriptor, port):
    """Whether a descriptor is the server's end of a connection to its port."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as end:
            return end.family == socket.AF_INET and end.getsockname()[1] == port and end.getpeername() is not None
    except OSError:  # no socket, or a listening one
        return False


def await_counts(port, expected):
    """Return when the connections lie as expected."""
    until = time.monotonic() + WAIT_S
    while (counts := count_connections(port)) != expected:
        assert time.monotonic() < until, f"{counts}, expected {expected}"
        time.sleep(0.01)


def test_connections_go_to_the_thread_with_fewest(serve):
    """Evenly at first; and one that comes after others were closed fills a gap."""
    port = int(serve({}, io_threads=THREADS).address.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(1, 3 * THREADS + 1):
            clients.append(stack.enter_context(socket.create_connection(("127.0.0.1", port))))
            full, more = divmod(number, THREADS)
            await_counts(port, sorted([full] * (THREADS - more) + [full + 1] * more if full else [1] * more))
        for client in clients[: 2 * THREADS]:
            client.close()
        await_counts(port, [1] * THREADS)
        clients[2 * THREADS].close()
        await_counts(port, [1] * (THREADS - 1))
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        await_counts(port, [1] * THREADS)
