"""Who may call a server behind the gateway: its gateway, proven by certificate, and nobody else."""

import shutil
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from certs import ensure_certificates
from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.end_to_end.load import find_wrong, make_request
from tests.end_to_end.targets import Target

TIMEOUT_S = 30.0


def copy_authorities(twins, folder):
    """The deployment's own authorities, to issue what it never would."""
    for path in twins.certificates.glob("*-ca.*"):
        shutil.copy(path, folder)


def make_expired(twins, folder):
    """The gateway's own certificate, of last year."""
    copy_authorities(twins, folder)
    ensure_certificates(folder, now=datetime.now(UTC) - timedelta(days=400))
    return folder, "gateway-upstream"


def make_foreign(twins, folder):
    """The gateway's name, by another authority."""
    ensure_certificates(folder)
    return folder, "gateway-upstream"


def make_client_inside(twins, folder):
    """A client's name, by the internal authority: what a compromised neighbour might have."""
    for suffix in ("pem", "key"):
        shutil.copy(twins.certificates / f"internal-ca.{suffix}", folder / f"gateway-ca.{suffix}")
    ensure_certificates(folder)
    return folder, "client"


REFUSED = {
    "nobody": lambda twins, folder: (twins.certificates, None),
    "a client of the gateway": lambda twins, folder: (twins.certificates, "client"),
    "an operator": lambda twins, folder: (twins.certificates, "operator"),
    "the gateway as its clients know it": lambda twins, folder: (twins.certificates, "gateway"),
    "another server": lambda twins, folder: (twins.certificates, "service"),
    "another authority": make_foreign,
    "expired": make_expired,
}


def connect(twins, folder, identity):
    """A channel to one of the servers, past the gateway, that trusts it and shows a certificate."""
    files = [folder / f"{identity}.{suffix}" for suffix in ("pem", "key")] if identity else []
    target = Target(twins.backends[0].address, twins.certificates / "internal-ca.pem", *files)
    return target.connect()


def test_gateways_own_certificate_opens_the_server(twins):
    """The refusals below are for who calls, not for how."""
    with connect(twins, twins.certificates, "gateway-upstream") as channel:
        reply = GRPCInferenceServiceStub(channel).ModelInfer(make_request(3), timeout=TIMEOUT_S)
    assert find_wrong(reply, 3) == ""


@pytest.mark.parametrize("who", REFUSED)
def test_server_behind_the_gateway_shakes_no_others_hand(twins, tmp_path, who):
    """No certificate, or one that is not the internal authority's for clients, or no longer: no connection."""
    folder, identity = REFUSED[who](twins, tmp_path)
    with connect(twins, folder, identity) as channel, pytest.raises(grpc.RpcError) as raised:
        GRPCInferenceServiceStub(channel).ModelInfer(make_request(3), timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def ask_infer(channel):
    """The hot method."""
    return GRPCInferenceServiceStub(channel).ModelInfer(make_request(3), timeout=TIMEOUT_S)


def ask_live(channel):
    """A synchronous one."""
    return GRPCInferenceServiceStub(channel).ServerLive(pb.ServerLiveRequest(), timeout=TIMEOUT_S)


def ask_health(channel):
    """One of another service."""
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)


def ask_watch(channel):
    """One whose answers are a stream."""
    return next(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S))


def ask_reflection(channel):
    """One that streams both ways."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    return next(stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT_S))


@pytest.mark.parametrize("ask", [ask_infer, ask_live, ask_health, ask_watch, ask_reflection])
def test_another_identity_of_the_internal_authority_is_denied_everything(twins, tmp_path, ask):
    """It may connect, and learns that it may not call: whatever the method."""
    folder, identity = make_client_inside(twins, tmp_path)
    with connect(twins, folder, identity) as channel, pytest.raises(grpc.RpcError) as raised:
        ask(channel)
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "gateway" in raised.value.details()


def test_server_of_another_authority_is_not_trusted(twins, tmp_path):
    """A client, too, knows whom it calls."""
    ensure_certificates(tmp_path)
    target = Target.of_folder(twins.backends[0].address, tmp_path, "internal-ca", "gateway-upstream")
    with target.connect() as channel, pytest.raises(grpc.RpcError) as raised:
        ask_live(channel)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
