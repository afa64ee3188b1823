"""Ports for servers whose port must be known before they start."""

import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
LOWEST = 10_000

_given = set()


def find_free_port():
    """A port that nobody listens on, never the same twice.

    It lies below those that the kernel gives to clients' connections and to whoever asks for any: one of these could be
    taken by somebody else before the server has it.
    """
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(LOWEST, end)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
