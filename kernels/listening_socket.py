"""Makes the socket on which a server listens, of a host's address or of a path."""

import socket

from kernels.unix_socket import listen_unix, read_path

BACKLOG = 4096


def open_socket(address: str) -> socket.socket:
    """Return a listening socket that shares its port with nobody. Raises OSError."""
    path = read_path(address)
    if path is not None:
        return listen_unix(path, BACKLOG)
    host, _, port = address.rpartition(":")
    family, kind, _, _, place = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, kind)
    try:
        # A port whose connections were closed a moment ago is free; one that is listened on is not.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setblocking(False)
        made.bind(place)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made
