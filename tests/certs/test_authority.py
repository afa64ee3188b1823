"""The certificates are what TLS libraries accept, stay private, renew, and heal."""

import os
import stat
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from certs import ensure_certificates
from certs.authority import LEAF_LIFETIME
from certs.identities import AUTHORITIES, IDENTITIES

NAMES = (*AUTHORITIES, *(identity.name for identity in IDENTITIES))
SERVERS = [identity for identity in IDENTITIES if identity.usage == ExtendedKeyUsageOID.SERVER_AUTH]
CLIENTS = [identity for identity in IDENTITIES if identity.usage == ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.fixture
def directory(tmp_path):
    """A folder with a full set of certificates."""
    ensure_certificates(tmp_path / "certs")
    return tmp_path / "certs"


def load(directory, name):
    """Read a certificate by its name."""
    return x509.load_pem_x509_certificate((directory / f"{name}.pem").read_bytes())


def policy(directory, authority):
    """A verification policy that trusts one authority only."""
    return PolicyBuilder().store(Store([load(directory, authority)]))


def contents(directory):
    """Every file of the folder with its bytes."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def other_authority(name):
    """The authority that is not `name`."""
    return AUTHORITIES[1 - AUTHORITIES.index(name)]


@pytest.mark.parametrize("identity", SERVERS, ids=lambda identity: identity.name)
def test_server_certificate_against_its_authority_verifies(directory, identity):
    """A server is accepted by DNS name and by address."""
    for subject in (x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))):
        chain = (
            policy(directory, identity.authority)
            .build_server_verifier(subject)
            .verify(load(directory, identity.name), [])
        )
        assert len(chain) == 2


@pytest.mark.parametrize("identity", CLIENTS, ids=lambda identity: identity.name)
def test_client_certificate_against_its_authority_names_its_uri(directory, identity):
    """A client is accepted and is known by its SPIFFE URI alone."""
    verified = policy(directory, identity.authority).build_client_verifier().verify(load(directory, identity.name), [])
    assert verified.subjects == [x509.UniformResourceIdentifier(identity.uri)]


@pytest.mark.parametrize("identity", IDENTITIES, ids=lambda identity: identity.name)
def test_certificate_against_other_authority_is_refused(directory, identity):
    """What opens the gateway opens nothing behind it, and the other way round."""
    builder = policy(directory, other_authority(identity.authority))
    verifier = (
        builder.build_server_verifier(x509.DNSName("localhost"))
        if identity in SERVERS
        else builder.build_client_verifier()
    )
    with pytest.raises(VerificationError):
        verifier.verify(load(directory, identity.name), [])


def test_client_certificate_as_server_is_refused(directory):
    """A client's certificate cannot stand for a server."""
    verifier = policy(directory, "gateway-ca").build_server_verifier(x509.DNSName("localhost"))
    with pytest.raises(VerificationError):
        verifier.verify(load(directory, "client"), [])


def test_authority_extensions_allow_signing_leaves_only(directory):
    """An authority signs leaves, no further authorities, and every link carries its key identifiers."""
    authority = load(directory, "gateway-ca")
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.digital_signature) == (True, False)
    own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.key_identifier
    leaf = load(directory, "client").extensions
    assert leaf.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == own
    assert leaf.get_extension_for_class(x509.BasicConstraints).value.ca is False


def test_serial_numbers_are_all_different(directory):
    """No two certificates share a serial number."""
    assert len({load(directory, name).serial_number for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_under_any_umask_keep_keys_private_and_certificates_readable(tmp_path, umask):
    """Permissions do not depend on the umask of who runs it."""
    before = os.umask(umask)
    try:
        ensure_certificates(tmp_path / "certs")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "certs").stat().st_mode) == 0o700
    for name in NAMES:
        assert stat.S_IMODE((tmp_path / "certs" / f"{name}.key").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "certs" / f"{name}.pem").stat().st_mode) == 0o644


def test_ensure_certificates_with_widened_key_makes_it_private_again(directory):
    """A key that was opened to others is closed."""
    (directory / "client.key").chmod(0o644)
    assert ensure_certificates(directory) == ()
    assert stat.S_IMODE((directory / "client.key").stat().st_mode) == 0o600


def test_ensure_certificates_twice_changes_nothing(directory):
    """The second run leaves every byte as it was."""
    before = contents(directory)
    assert ensure_certificates(directory) == ()
    assert contents(directory) == before


def test_ensure_certificates_with_renew_keeps_authorities(directory):
    """Renewal replaces the leaves and not what peers already trust."""
    before = contents(directory)
    issued = ensure_certificates(directory, renew=True)
    after = contents(directory)
    assert issued == tuple(identity.name for identity in IDENTITIES)
    for name in AUTHORITIES:
        assert after[f"{name}.pem"] == before[f"{name}.pem"]
    for identity in IDENTITIES:
        assert after[f"{identity.name}.pem"] != before[f"{identity.name}.pem"]
        assert after[f"{identity.name}.key"] != before[f"{identity.name}.key"]


@pytest.mark.parametrize(("days_before_expiry", "renewed"), [(31, False), (29, True), (-1, True)])
def test_ensure_certificates_near_expiry_renews_leaves(directory, days_before_expiry, renewed):
    """Leaves are renewed in their last 30 days and not before."""
    now = datetime.now(UTC) + LEAF_LIFETIME - timedelta(days=days_before_expiry)
    issued = ensure_certificates(directory, now=now)
    assert issued == (tuple(identity.name for identity in IDENTITIES) if renewed else ())
    verifier = policy(directory, "gateway-ca").time(now).build_client_verifier()
    if renewed:
        verifier.verify(load(directory, "client"), [])


def test_ensure_certificates_with_expiring_authority_keeps_its_key(directory):
    """An authority is renewed with its key, so that leaves of before still chain to it."""
    old_authority, old_leaf = load(directory, "gateway-ca"), load(directory, "client")
    now = old_authority.not_valid_after_utc - timedelta(days=1)
    assert "gateway-ca" in ensure_certificates(directory, now=now)
    authority = load(directory, "gateway-ca")
    assert authority.not_valid_after_utc > old_authority.not_valid_after_utc
    assert authority.public_key() == old_authority.public_key()
    old_leaf.verify_directly_issued_by(authority)


@pytest.mark.parametrize("suffix", ["key", "pem"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "of another"])
def test_ensure_certificates_with_half_written_leaf_heals_it(directory, suffix, damage):
    """A pair left broken by a crash is made anew, and only that one."""
    path = directory / f"service.{suffix}"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:60])
    else:
        path.write_bytes((directory / f"client.{suffix}").read_bytes())
    (directory / ".service.key.new").write_bytes(b"left by a crash")
    assert ensure_certificates(directory) == ("service",)
    key = load_pem_private_key((directory / "service.key").read_bytes(), None)
    assert load(directory, "service").public_key() == key.public_key()
    assert not (directory / ".service.key.new").exists()


def test_ensure_certificates_with_lost_authority_key_reissues_its_leaves(directory):
    """Without its key an authority is made anew, with every leaf under it and no other."""
    (directory / "internal-ca.key").unlink()
    assert ensure_certificates(directory) == (
        "internal-ca",
        "gateway-upstream",
        "service",
        "limits",
        "control",
        "control-upstream",
    )
