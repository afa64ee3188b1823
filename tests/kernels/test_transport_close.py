"""kernels.transport: what becomes of clients that connect while a server closes."""

import socket

import pytest

pytest.importorskip("kernels.transport", reason="the native transport is not built")

from kernels.limits import Limits
from kernels.transport import Transport

WAIT_S = 30.0
SERVERS = 60
CLIENTS = 8


@pytest.mark.parametrize("io_threads", [1, 3])
def test_close_hangs_up_on_clients_that_have_just_connected(tmp_path, io_threads):
    """Whether they have been accepted, handed to another thread, or neither yet."""
    for number in range(SERVERS):
        transport = Transport(Limits(), io_threads=io_threads)
        transport.listen(f"unix:{tmp_path / str(number)}")
        transport.start()
        clients = [socket.socket(socket.AF_UNIX) for _ in range(CLIENTS)]
        for client in clients:
            client.settimeout(WAIT_S)
            client.connect(str(tmp_path / str(number)))
        transport.close()
        for client in clients:
            read_to_end(client)
        assert transport.statistics() == {"connections": 0, "buffered_bytes": 0}


def read_to_end(client):
    """Read what the server says until it hangs up, in whichever way."""
    with client:
        try:
            while client.recv(4096):
                pass
        except ConnectionResetError:
            pass
