"""Keeps two deployments out of one state folder and off each other's ports."""

import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from service.deployment import Endpoint


class InstanceError(Exception):
    """Something else holds what this deployment needs; the text names it."""


@contextmanager
def lock_instance(path: Path) -> Iterator[None]:
    """Hold the lock of a state folder; InstanceError when another process does, with its number.

    The kernel lets go of it when the process ends, however it does.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = lock.read().strip() or "unknown"
            raise InstanceError(f"{path.parent.parent} is in use by another sluice, process {owner}") from None
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def find_owner(path: Path) -> int | None:
    """Number of the process that holds a lock of lock_instance; None when nobody does."""
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        # Empty for a moment, while its owner writes it.
        return int(path.read_text() or 0) or None
    except FileNotFoundError:
        pass
    return None


def check_ports(endpoints: Mapping[str, Endpoint]) -> None:
    """Raise InstanceError for the first endpoint that is taken, named by what it is for.

    Asked before anything starts, so that nothing has to be taken back; no one shares a port by SO_REUSEPORT.
    """
    for purpose, endpoint in endpoints.items():
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # A port whose last connections have just been closed is free; one that is listened on is not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((endpoint.host, endpoint.port))
                probe.listen(1)
            except OSError as error:
                raise InstanceError(f"{purpose}: cannot listen on {endpoint}: {error.strerror}") from None
