"""Clients of a gateway that limits: certificates of their own, and what a refusal tells them."""

from contextlib import contextmanager

import grpc
from gateway_rig import infer, open_channel
from google.rpc import error_details_pb2, status_pb2

from tests.authorities import Authority

DETAILS = "grpc-status-details-bin"


class Crowd:
    """Clients with names of their own, by an authority that the gateway trusts beside its own."""

    def __init__(self, certificates):
        self._folder = certificates
        self._authority = Authority("crowd")
        trusted = certificates / "gateway-ca.pem"
        trusted.write_bytes(trusted.read_bytes() + self._authority.pem)

    def issue(self, name, *uris):
        """Make a certificate, whose file is found by `name`."""
        pair = self._authority.issue(*(f"URI:{uri}" for uri in uris))
        (self._folder / f"{name}.pem").write_bytes(pair.chain)
        (self._folder / f"{name}.key").write_bytes(pair.key)

    @contextmanager
    def connect(self, gateway, name):
        """A channel of the client of that name."""
        if not (self._folder / f"{name}.pem").exists():
            self.issue(name, f"spiffe://example.org/{name}")
        with open_channel(gateway, self._folder, name) as channel:
            yield channel


def count_let_through(channel, calls, ask=infer):
    """How many of some calls, one after another, a limit let through; any other failure is raised."""
    refusals = [error for _ in range(calls) if (error := find_refusal(channel, ask))]
    return calls - len(refusals)


def find_refusal(channel, ask=infer):
    """The error by which a call was refused, RESOURCE_EXHAUSTED; None when it was let through."""
    try:
        ask(channel)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return error
    return None


def read_retry_s(error):
    """The delay that a refusal carries; its status is that of the call, as clients' libraries insist."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())[DETAILS])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    [detail] = status.details
    info = error_details_pb2.RetryInfo()
    assert detail.Unpack(info)
    return info.retry_delay.ToTimedelta().total_seconds()
