"""A server behind a Unix socket: `--host unix:PATH`."""

import stat

import pytest

from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.load import find_wrong, make_request
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target
from tests.end_to_end.test_start_and_stop import run_cli

TIMEOUT_S = 30.0


@pytest.fixture
def place(transport, tmp_path):
    """Where the socket is to be, for whichever transport."""
    return tmp_path / "sluice.sock"


def serve(repository, place):
    """A server there."""
    return ServerProcess(repository, "--insecure", "--host", f"unix:{place}")


def infer(server):
    """Call it as its log says where it is."""
    with Target(server.address).connect() as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(pb.ServerLiveRequest(), timeout=TIMEOUT_S).live
        return find_wrong(stub.ModelInfer(make_request(3), timeout=TIMEOUT_S), 3)


def test_server_at_a_unix_socket_infers_for_its_owner(repository, place):
    """Bound methods and others; the log names it as clients do, and the file goes with the server."""
    with serve(repository, place) as server:
        assert server.address == f"unix:{place}"
        assert infer(server) == ""
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        server.terminate()
        assert server.wait() == 0
    assert not place.exists()


def test_server_that_was_killed_is_followed_at_its_socket(repository, place):
    """Its file is no hindrance."""
    with serve(repository, place) as server:
        server.kill()
    assert place.exists()
    with serve(repository, place) as server:
        assert infer(server) == ""


def test_second_server_at_a_socket_is_refused_and_the_first_goes_on(repository, place):
    """In words that say why."""
    with serve(repository, place) as server:
        done = run_cli("serve", "--model-repository", repository, "--insecure", "--host", f"unix:{place}")
        assert done.returncode == 1
        assert f"cannot listen on unix:{place}: a server listens there" in done.stderr
        assert infer(server) == ""


def test_server_does_not_take_the_place_of_a_file(repository, place):
    """Whatever it is."""
    place.write_text("precious")
    done = run_cli("serve", "--model-repository", repository, "--insecure", "--host", f"unix:{place}")
    assert done.returncode == 1
    assert f"cannot listen on unix:{place}: something else than a socket is there" in done.stderr
    assert place.read_text() == "precious"
