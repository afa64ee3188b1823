"""A servicer is told who calls: where from, how guarded, and as whom its certificate names them."""

import dataclasses

import grpc
import pytest

from certs import ensure_certificates
from certs.identities import GATEWAY_URI
from tests.conformance.probe import TIMEOUT_S


class Onlooker:
    """A servicer that writes down what its context says of the caller."""

    def __call__(self, request, context):
        """Write it down."""
        self.peer = context.peer()
        self.auth_context = context.auth_context()
        self.identities = context.peer_identities()
        self.identity_key = context.peer_identity_key()
        return request


@pytest.fixture
def guarded(identity, certificates):
    """The server's identity, which takes clients of the internal authority only."""
    authority = (certificates / "internal-ca.pem").read_bytes()
    return dataclasses.replace(identity, client_authority=authority)


def name_client(folder, name="gateway-upstream"):
    """As a client of the internal authority, with a certificate from a folder."""
    return {"certificate": folder / f"{name}.pem", "key": folder / f"{name}.key"}


def test_caller_in_plain_text_has_an_address_and_no_name(serve):
    """Everything but a name."""
    onlooker = Onlooker()
    serve("unary_unary", onlooker)(b"", timeout=TIMEOUT_S)
    kind, host, port = onlooker.peer.split(":")
    assert (kind, host) == ("ipv4", "127.0.0.1")
    assert 0 < int(port) < 2**16
    assert onlooker.auth_context["transport_security_type"] == [b"insecure"]
    assert onlooker.identities is None
    assert onlooker.identity_key is None


def test_caller_without_a_certificate_has_no_name(open_probe, identity, certificates):
    """TLS of the server alone."""
    onlooker = Onlooker()
    probe = open_probe("unary_unary", onlooker, identity=identity)
    probe.connect(authority=certificates / "internal-ca.pem")(b"", timeout=TIMEOUT_S)
    assert onlooker.auth_context["transport_security_type"] == [b"ssl"]
    assert "x509_common_name" not in onlooker.auth_context
    assert onlooker.identities is None
    assert onlooker.identity_key is None


def test_caller_with_a_certificate_is_who_it_names(open_probe, guarded, certificates):
    """By its alternative names first of all."""
    onlooker = Onlooker()
    probe = open_probe("unary_unary", onlooker, identity=guarded)
    call = probe.connect(authority=certificates / "internal-ca.pem", **name_client(certificates))
    call(b"", timeout=TIMEOUT_S)
    expected = {
        "transport_security_type": [b"ssl"],
        "x509_common_name": [b"sluice gateway-upstream"],
        "x509_subject_alternative_name": [GATEWAY_URI.encode()],
        "x509_pem_cert": [(certificates / "gateway-upstream.pem").read_bytes()],
    }
    assert {key: onlooker.auth_context.get(key) for key in expected} == expected
    assert onlooker.identity_key == "x509_subject_alternative_name"
    assert list(onlooker.identities) == [GATEWAY_URI.encode()]
    assert onlooker.peer.startswith("ipv4:127.0.0.1:")


def test_caller_without_a_certificate_is_refused_where_one_is_demanded(open_probe, guarded, certificates):
    """No call of theirs is seen."""
    onlooker = Onlooker()
    probe = open_probe("unary_unary", onlooker, identity=guarded)
    with pytest.raises(grpc.RpcError) as raised:
        probe.connect(authority=certificates / "internal-ca.pem")(b"", timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not hasattr(onlooker, "peer")


def test_caller_of_another_authority_is_refused(open_probe, guarded, certificates, tmp_path):
    """The same name, vouched for by somebody else."""
    onlooker = Onlooker()
    probe = open_probe("unary_unary", onlooker, identity=guarded)
    ensure_certificates(tmp_path)
    with pytest.raises(grpc.RpcError) as raised:
        probe.connect(authority=certificates / "internal-ca.pem", **name_client(tmp_path))(b"", timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not hasattr(onlooker, "peer")


def test_caller_in_plain_text_is_refused_by_tls(open_probe, identity):
    """Nothing is answered that is not encrypted, and the next caller is served."""
    onlooker = Onlooker()
    probe = open_probe("unary_unary", onlooker, identity=identity)
    with pytest.raises(grpc.RpcError) as raised:
        probe.connect()(b"", timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not hasattr(onlooker, "peer")


def test_callers_of_two_connections_are_told_apart(open_probe):
    """Each has a port of its own."""
    onlooker = Onlooker()
    probe = open_probe("unary_unary", onlooker)
    peers = set()
    for _ in range(2):
        probe.connect()(b"", timeout=TIMEOUT_S)
        peers.add(onlooker.peer)
    assert len(peers) == 2
