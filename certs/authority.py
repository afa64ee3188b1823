"""Issues the certificates of certs.identities into one folder and keeps them whole and fresh."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from certs.files import SECRET_MODE, replace_file
from certs.identities import AUTHORITIES, IDENTITIES, Identity

CA_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
# A peer whose clock is a little behind must not refuse a certificate made a moment ago.
BACKDATE = timedelta(minutes=5)

Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def ensure_certificates(directory: Path, *, renew: bool = False, now: datetime | None = None) -> tuple[str, ...]:
    """Make every certificate that is missing, broken or about to expire, and leave the others as they are.

    Parameters
    ----------
    renew : bool
        Issue every leaf anew. Authorities keep their keys, so that who trusts them today still does.
    now : datetime
        The time to judge by, timezone-aware; the clock's when None.

    Returns
    -------
    tuple of str
        Names of the certificates that were issued, authorities first.
    """
    now = now or datetime.now(UTC)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(directory):
        issued: list[str] = []
        authorities = {name: _ensure_authority(directory, name, now, issued) for name in AUTHORITIES}
        for identity in IDENTITIES:
            issuer = authorities[identity.authority]
            if renew or not _is_leaf_good(directory, identity, issuer[0], now):
                _write_pair(directory, identity.name, _issue_leaf(identity, issuer, now))
                issued.append(identity.name)
        return tuple(issued)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ensure_authority(directory: Path, name: str, now: datetime, issued: list[str]) -> Pair:
    pair = _read_pair(directory, name)
    if pair is not None and pair[0].not_valid_after_utc - now > RENEW_BEFORE:
        return pair
    key = pair[1] if pair is not None else None
    pair = _issue_authority(name, now, key)
    _write_pair(directory, name, pair)
    issued.append(name)
    return pair


def _is_leaf_good(directory: Path, identity: Identity, issuer: x509.Certificate, now: datetime) -> bool:
    pair = _read_pair(directory, identity.name)
    if pair is None or pair[0].not_valid_after_utc - now <= RENEW_BEFORE:
        return False
    try:
        pair[0].verify_directly_issued_by(issuer)
        names = pair[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return names == _alternative_names(identity)


def _read_pair(directory: Path, name: str) -> Pair | None:
    """Read a certificate and its key; None when either is missing or broken, or they do not belong together."""
    key_path = directory / f"{name}.key"
    try:
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate((directory / f"{name}.pem").read_bytes())
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None
    key_path.chmod(SECRET_MODE)
    return certificate, key


def _write_pair(directory: Path, name: str, pair: Pair) -> None:
    """Write key, then certificate: a crash between the two leaves a pair that does not match and is made anew."""
    certificate, key = pair
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    replace_file(directory / f"{name}.key", secret, SECRET_MODE)
    replace_file(directory / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))


def _issue_authority(name: str, now: datetime, key: ec.EllipticCurvePrivateKey | None) -> Pair:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"sluice {name}")
    builder = (
        _builder(subject, subject, key.public_key(), key.public_key(), now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    return builder.sign(key, hashes.SHA256()), key


def _issue_leaf(identity: Identity, issuer: Pair, now: datetime) -> Pair:
    authority, authority_key = issuer
    key = ec.generate_private_key(ec.SECP256R1())
    # No leaf may outlive the authority that vouches for it.
    lifetime = min(LEAF_LIFETIME, authority.not_valid_after_utc - now)
    subject = _subject(f"sluice {identity.name}")
    builder = (
        _builder(subject, authority.subject, key.public_key(), authority_key.public_key(), now, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([identity.usage]), critical=False)
        .add_extension(_alternative_names(identity), critical=False)
    )
    return builder.sign(authority_key, hashes.SHA256()), key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative_names(identity: Identity) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
    names += [x509.DNSName(name) for name in identity.dns_names]
    names += [x509.IPAddress(address) for address in identity.addresses]
    return x509.SubjectAlternativeName(names)


def _key_usage(**granted: bool) -> x509.KeyUsage:
    usages = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**(dict.fromkeys(usages, False) | granted))
