"""Listening sockets in the file system: for their owner only, and never in the place of a server that lives."""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "unix:"
OWNER_ONLY = 0o600


def read_path(address: str) -> Path | None:
    """The file that an address names, "unix:path" or "unix:///path"; None for an address of another kind."""
    if not address.startswith(PREFIX):
        return None
    path = address.removeprefix(PREFIX)
    return Path(path.removeprefix("//") if path.startswith("///") else path)


def listen_unix(path: Path, backlog: int) -> socket.socket:
    """Return a socket that listens at a path and does not block.

    Raises
    ------
    OSError
        A server listens there, something else is there, or the folder cannot be written.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        # Before there is a file: Linux gives it the socket's mode.
        os.fchmod(made.fileno(), OWNER_ONLY)
        with locked_folder(path):
            clear_path(path)
            made.bind(str(path))
            made.listen(backlog)
    except BaseException:
        made.close()
        raise
    return made


@contextmanager
def locked_folder(path: Path) -> Iterator[None]:
    """Keep servers that start at the same time from taking each other for dead between bind and listen."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def clear_path(path: Path) -> None:
    """Remove the socket that a dead server has left. Raises OSError when a living one, or anything else, is there."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise FileExistsError(errno.EEXIST, "something else than a socket is there", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A server whose backlog is full lives too.
        probe.setblocking(False)
        outcome = probe.connect_ex(str(path))
    if outcome != errno.ECONNREFUSED:
        raise OSError(errno.EADDRINUSE, "a server listens there", str(path))
    path.unlink()


class SocketFile:
    """The file of a listening socket, to be removed when the server ends."""

    def __init__(self, path: Path):
        self._path = path.absolute()
        self._number = self._path.stat().st_ino

    def remove(self) -> None:
        """Remove it, unless another server has put its own there."""
        with suppress(OSError):
            if self._path.stat().st_ino == self._number:
                self._path.unlink()
