"""A gateway with a list of revoked certificates: who is let in, and what a new list does."""

import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from gateway_rig import infer, start_rig

from certs import ensure_certificates
from certs.files import replace_file
from service.admin import AdminError

DAY = timedelta(days=1)
TIMEOUT_S = 30.0


@pytest.fixture
def rig(tmp_path):
    """A gateway that trusts everybody so far."""
    ensure_certificates(tmp_path / "certs")
    path = tmp_path / "lists" / "crl.pem"
    path.parent.mkdir()
    revoke(path, tmp_path / "certs")
    with start_rig(tmp_path, client_crl=path) as rig:
        yield rig


def revoke(path, certificates, *names):
    """Write the list of the clients' authority that names some certificates."""
    authority = x509.load_pem_x509_certificate((certificates / "gateway-ca.pem").read_bytes())
    key = serialization.load_pem_private_key((certificates / "gateway-ca.key").read_bytes(), None)
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    builder = builder.last_update(now - DAY).next_update(now + DAY)
    for name in names:
        revoked = x509.load_pem_x509_certificate((certificates / f"{name}.pem").read_bytes())
        entry = x509.RevokedCertificateBuilder().serial_number(revoked.serial_number).revocation_date(now - DAY)
        builder = builder.add_revoked_certificate(entry.build())
    replace_file(path, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


@contextmanager
def taken(rig):
    """Returns once both listeners have taken what is written within."""
    before = count_reloads(rig)
    yield
    until = time.monotonic() + TIMEOUT_S
    while count_reloads(rig) < before + 2:
        assert time.monotonic() < until
        time.sleep(0.02)


def count_reloads(rig):
    """How often listeners have taken new secrets."""
    text = rig.admin.request("GET", "/stats?filter=server_ssl_socket_factory.ssl_context_update_by_sds")
    return sum(int(line.split(": ")[1]) for line in text.splitlines())


def test_revoked_client_is_refused_and_one_that_is_connected_stays(rig, tmp_path):
    """A list that is replaced counts for who comes from then on; nobody else notices."""
    with rig.load() as load:
        load.wait_for_more(20)
        with taken(rig):
            revoke(tmp_path / "lists" / "crl.pem", rig.certificates, "client")
        with rig.connect() as channel, pytest.raises(grpc.RpcError) as raised:
            infer(channel, timeout_s=TIMEOUT_S)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        load.wait_for_more(20)
    assert load.failures == []


def test_revoked_operator_is_refused(rig, tmp_path):
    """The list is for both listeners."""
    assert rig.operator.request("GET", "/ready").strip() == "LIVE"
    with taken(rig):
        revoke(tmp_path / "lists" / "crl.pem", rig.certificates, "operator")
    with pytest.raises(AdminError, match=r"revoked|EOF occurred|reset"):
        rig.operator.request("GET", "/ready")
