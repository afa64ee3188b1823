"""Unix sockets: who may connect, and what a server finds where its socket is to be."""

import os
import socket
import stat
import threading
from pathlib import Path

import grpc
import pytest

pytest.importorskip("kernels.transport", reason="the native transport is not built")

from kernels.grpc_server import Server
from kernels.tls import TlsSettings
from kernels.unix_socket import SocketFile, clear_path, listen_unix, read_path
from tests.authorities import HOUR
from tests.kernels.raw_service import SERVICE, WAIT_S
from tests.kernels.raw_service import path as method_path
from tests.kernels.tls_service import ECHO

WHO = {"Who": grpc.unary_unary_rpc_method_handler(lambda request, context: context.peer().encode())}


@pytest.fixture
def place(tmp_path):
    """Where the socket is to be."""
    return tmp_path / "server.sock"


@pytest.fixture
def start(place):
    """Start servers at a place; they end with the test."""
    started = []

    def start_server(address=None):
        server = Server(io_threads=1)
        server.add_registered_method_handlers(SERVICE, ECHO | WHO)
        assert server.add_insecure_port(address or f"unix:{place}") == 0
        server.start()
        started.append(server)
        return server

    yield start_server
    for server in started:
        server.stop(None)


def call(place, method="Echo", request=b"1"):
    """Call a server by its socket."""
    with grpc.insecure_channel(f"unix:{place}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        return channel.unary_unary(method_path(method))(request, timeout=WAIT_S)


def leave_dead(place):
    """The file of a server that was killed."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))


def test_unix_socket_serves_grpcio_s_clients(start, place):
    """Of any size; who calls has no address."""
    start()
    assert call(place, request=b"x" * 3_000_000) == b"x" * 3_000_000
    assert call(place, "Who") == b"unix:"


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
def test_unix_socket_is_named_in_both_of_grpc_s_ways(start, place, form):
    """The second with an absolute path only."""
    start(form.format(place))
    assert call(place) == b"1"


def test_unix_socket_with_a_relative_path_is_removed_wherever_the_server_has_gone(start, place, monkeypatch):
    """Its folder was that of the start."""
    monkeypatch.chdir(place.parent)
    server = start(f"unix:{place.name}")
    monkeypatch.chdir("/")
    assert call(place) == b"1"
    server.stop(None)
    assert not place.exists()


def test_unix_socket_is_for_its_owner_only(start, place):
    """From its first moment on, whatever the umask leaves."""
    old = os.umask(0)
    try:
        start()
    finally:
        os.umask(old)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_socket_of_a_dead_server_is_replaced(start, place):
    """One that was killed leaves its file."""
    leave_dead(place)
    start()
    assert call(place) == b"1"


def test_socket_of_a_living_server_is_refused(start, place):
    """And goes on to serve."""
    start()
    with pytest.raises(RuntimeError, match="a server listens there"):
        Server().add_insecure_port(f"unix:{place}")
    assert call(place) == b"1"


def test_socket_of_a_server_with_a_full_backlog_is_refused(place):
    """It lives, though it does not answer."""
    with listen_unix(place, 0), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(place))
        with pytest.raises(OSError, match="a server listens there"):
            clear_path(place)
    assert place.exists()


def test_file_that_is_no_socket_is_refused_and_left(place):
    """Nothing of anybody is removed."""
    place.write_text("precious")
    with pytest.raises(RuntimeError, match="something else than a socket is there"):
        Server().add_insecure_port(f"unix:{place}")
    assert place.read_text() == "precious"


def test_link_to_a_socket_is_refused_and_left(start, place):
    """What it leads to is another's."""
    link = place.with_name("link")
    leave_dead(place)
    link.symlink_to(place)
    with pytest.raises(RuntimeError, match="something else than a socket is there"):
        Server().add_insecure_port(f"unix:{link}")
    assert place.exists()


@pytest.mark.parametrize("address", ["unix:/nowhere/at/all", "unix:" + "x" * 200, "unix:"])
def test_place_that_cannot_be_had_is_named(address):
    """As other addresses are."""
    with pytest.raises(RuntimeError, match=f"cannot listen on {address}"):
        Server().add_insecure_port(address)


def test_server_that_ends_leaves_the_socket_of_its_successor(start, place):
    """Which has taken the place while the first one drained."""
    first = start()
    place.unlink()
    start()
    first.stop(None)
    assert call(place) == b"1"
    assert place.exists()


def test_servers_that_start_at_once_do_not_take_each_other_for_dead(place):
    """One of them has the place, and it is reached there."""
    leave_dead(place)
    ready, made, refused = threading.Barrier(8), [], []

    def listen():
        ready.wait()
        try:
            made.append(listen_unix(place, 8))
        except OSError as error:
            refused.append(error.strerror)

    threads = [threading.Thread(target=listen) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), refused) == (1, ["a server listens there"] * 7)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
    made[0].close()


def test_unix_socket_with_tls_serves_who_is_trusted(place, authority, member):
    """As a port does."""
    own = authority.serve()
    server = Server(io_threads=1)
    server.add_registered_method_handlers(SERVICE, ECHO)
    server.add_secure_port(f"unix:{place}", TlsSettings(certificate=own.chain, key=own.key, client_ca=authority.pem))
    server.start()
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    for pair, is_welcome in ((member, True), (authority.issue(ends=-HOUR / 2), False)):
        credentials = grpc.ssl_channel_credentials(authority.pem, pair.key, pair.chain)
        with grpc.secure_channel(f"unix:{place}", credentials, options) as channel:
            outcome = channel.unary_unary(method_path("Echo")).future(b"1", timeout=WAIT_S)
            assert (outcome.exception() is None) is is_welcome
    server.stop(None)


def test_read_path_of_other_addresses_is_none():
    """They have a port."""
    assert read_path("127.0.0.1:0") is None
    assert read_path("unix:a/b") == Path("a/b")
    assert read_path("unix:///a/b") == Path("/a/b")


def test_socket_file_that_is_gone_is_no_failure(place):
    """Somebody has tidied up."""
    leave_dead(place)
    file = SocketFile(place)
    place.unlink()
    file.remove()
