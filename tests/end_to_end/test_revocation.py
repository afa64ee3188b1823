"""Clients whose certificates are revoked, and authorities that are replaced, while `sluice serve` runs."""

import time
from datetime import timedelta

import grpc
import pytest

from certs.files import replace_file
from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.authorities import HOUR, Authority
from tests.end_to_end.load import run_load
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.targets import Target

TIMEOUT_S = 30.0
NAME = "spiffe://test/client"


@pytest.fixture
def authority():
    """Who vouches for everybody here."""
    return Authority()


@pytest.fixture
def folder(transport, tmp_path, authority):
    """A folder of the server's files, with nobody revoked."""
    if transport != "native":
        pytest.skip("grpcio's server looks at no lists, and closes no connection when authorities change")
    own = authority.serve()
    write(tmp_path, own, "service")
    write(tmp_path, authority.issue(f"URI:{NAME}"), "client")
    replace_file(tmp_path / "ca.pem", authority.pem)
    replace_file(tmp_path / "crl.pem", authority.revoke())
    return tmp_path


@pytest.fixture
def server(repository, folder):
    """A server that follows them."""
    files = {
        "--tls-cert": "service.pem",
        "--tls-key": "service.key",
        "--tls-client-ca": "ca.pem",
        "--tls-client-crl": "crl.pem",
    }
    options = [part for flag, name in files.items() for part in (flag, folder / name)]
    with ServerProcess(repository, *options, "--allowed-client", NAME) as server:
        yield server


def write(folder, pair, name):
    """Replace a pair's files; returns the pair."""
    replace_file(folder / f"{name}.key", pair.key)
    replace_file(folder / f"{name}.pem", pair.chain)
    return pair


def find_way(server, folder, authority, name="client"):
    """The way to the server for a client whose pair lies in the folder."""
    replace_file(folder / "first-ca.pem", authority.pem)
    return Target.of_folder(server.address, folder, "first-ca", name)


def is_live(channel):
    """Ask; False when nobody is there."""
    try:
        return GRPCInferenceServiceStub(channel).ServerLive(pb.ServerLiveRequest(), timeout=TIMEOUT_S).live
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return False
        raise


def await_end(channel):
    """Return when a channel's calls find nobody any more."""
    until = time.monotonic() + TIMEOUT_S
    while is_live(channel):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_revoked_client_is_cut_off_and_others_are_not(clients, server, folder, authority):
    """Soon, and with no restart."""
    lost = write(folder, authority.issue(f"URI:{NAME}"), "lost")
    with (
        run_load(clients, find_way(server, folder, authority), callers=4) as load,
        find_way(server, folder, authority, "lost").connect() as channel,
    ):
        assert is_live(channel)
        load.wait_for_more(50)
        replace_file(folder / "crl.pem", authority.revoke(lost))
        await_end(channel)
        load.wait_for_more(50)
    assert load.failures == []


def test_clients_of_an_authority_that_is_replaced_are_cut_off(clients, server, folder, authority):
    """In two steps, as it is done: both are trusted for a while, then the new one alone."""
    successor = Authority("successor")
    write(folder, successor.issue(f"URI:{NAME}"), "new")
    replace_file(folder / "ca.pem", authority.pem + successor.pem)
    replace_file(folder / "crl.pem", authority.revoke() + successor.revoke())
    old, new = (find_way(server, folder, authority, name) for name in ("client", "new"))
    with old.connect() as channel:
        assert is_live(channel)
        with new.connect() as probe:
            until = time.monotonic() + TIMEOUT_S
            while not is_live(probe):
                assert time.monotonic() < until
        with run_load(clients, new, callers=4) as load:
            load.wait_for_more(50)
            replace_file(folder / "ca.pem", successor.pem)
            await_end(channel)
            load.wait_for_more(50)
    assert load.failures == []


def test_list_that_cannot_be_used_leaves_the_old_one_and_is_in_the_log(clients, server, folder, authority):
    """Half of one, or one that has ended."""
    with run_load(clients, find_way(server, folder, authority), callers=2) as load:
        replace_file(folder / "crl.pem", authority.revoke()[:-40])
        assert "revoked" in server.await_event("certificates could not be read again")["reason"]
        replace_file(folder / "crl.pem", authority.revoke(ends=-HOUR / 2))
        load.wait_for_more(50)
    assert load.failures == []
    with find_way(server, folder, authority).connect() as channel:
        assert is_live(channel)


def test_list_that_ends_lets_nobody_in_and_is_in_the_log(server, folder, authority):
    """Until there is another; who is connected stays."""
    with find_way(server, folder, authority).connect() as channel:
        assert is_live(channel)
        replace_file(folder / "crl.pem", authority.revoke(ends=timedelta(seconds=3)))
        server.await_event("list of revoked certificates has expired")
        assert is_live(channel)
        with find_way(server, folder, authority).connect() as late:
            assert not is_live(late)
            replace_file(folder / "crl.pem", authority.revoke())
            until = time.monotonic() + TIMEOUT_S
            while not is_live(late):
                assert time.monotonic() < until
