"""One deployment per state folder, and ports that are really free."""

import os
import socket
import subprocess
import sys

import pytest

from service.deployment import Endpoint
from service.instance import InstanceError, check_ports, lock_instance
from tests.free_ports import HOST, find_free_port


def test_lock_held_by_another_process_names_it(tmp_path):
    """Who holds the lock is told by number; when it is gone, so is the lock."""
    path = tmp_path / "state" / "run" / "lock"
    program = "import sys; from pathlib import Path; from service.instance import lock_instance\n"
    program += "with lock_instance(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        try:
            assert owner.stdout.readline() == "held\n"
            refusal = f"{tmp_path}/state is in use by another sluice, process {owner.pid}$"
            with pytest.raises(InstanceError, match=refusal), lock_instance(path):
                pass
        finally:
            owner.kill()
    with lock_instance(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_check_ports_of_free_ones_passes_and_holds_none():
    """The ports are free afterwards."""
    endpoint = Endpoint(HOST, find_free_port())
    check_ports({"gateway": endpoint})
    check_ports({"gateway": endpoint})


def test_check_ports_after_a_closed_connection_passes():
    """Connections of before that linger do not count as taken."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        endpoint = Endpoint(*server.getsockname())
        with socket.create_connection((endpoint.host, endpoint.port)):
            accepted, _ = server.accept()
            accepted.close()
    check_ports({"gateway": endpoint})


def test_check_ports_with_an_address_of_another_machine_names_it():
    """An address that is not here is told apart from a port that is taken."""
    with pytest.raises(InstanceError, match=r"gateway: cannot listen on 192\.0\.2\.77:1024: Cannot assign"):
        check_ports({"gateway": Endpoint("192.0.2.77", 1024)})
