"""Authorities that issue whatever a test needs: certificates of any validity and purpose, chains, and revocations."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOUR = timedelta(hours=1)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
LOCAL = ("DNS:localhost", "IP:127.0.0.1")
KINDS = {
    "URI": x509.UniformResourceIdentifier,
    "DNS": x509.DNSName,
    "IP": lambda text: x509.IPAddress(ip_address(text)),
    "EMAIL": x509.RFC822Name,
    "RID": lambda text: x509.RegisteredID(x509.ObjectIdentifier(text)),
}


@dataclass(frozen=True)
class Pair:
    """A certificate with what a peer needs to follow it to its authority, and its key, PEM."""

    chain: bytes
    key: bytes

    @property
    def serial(self):
        """Its number with its authority."""
        return x509.load_pem_x509_certificate(self.chain).serial_number


class Authority:
    """Issues certificates; `issuer` makes it an intermediate one, `may_issue` says whether it is one at all."""

    def __init__(self, name="authority", *, issuer=None, may_issue=True):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = name_subject(name)
        self._issuer = issuer
        builder = self._begin(self._name, self._key.public_key(), -HOUR, HOUR, issuer or self)
        builder = builder.add_extension(x509.BasicConstraints(ca=may_issue, path_length=None), critical=True)
        self.certificate = builder.sign((issuer or self)._key, hashes.SHA256())

    @property
    def pem(self):
        """Its own certificate."""
        return encode(self.certificate)

    @property
    def serial(self):
        """Its own number with its issuer."""
        return self.certificate.serial_number

    @property
    def path(self):
        """What a holder of its certificates shows beside them: the intermediate authorities, its own first."""
        return self.pem + self._issuer.path if self._issuer else b""

    def issue(self, *names, common="peer", purpose=CLIENT, begins=-HOUR, ends=HOUR):
        """A pair; `names` are "URI:…", "DNS:…", "IP:…" or "EMAIL:…", times are from now, a purpose of None is any."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._begin(name_subject(common), key.public_key(), begins, ends, self)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if purpose:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if names:
            parts = [name.split(":", 1) for name in names]
            general = [KINDS[kind](text) for kind, text in parts]
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        return Pair(encode(builder.sign(self._key, hashes.SHA256())) + self.path, encode_key(key))

    def serve(self, **options):
        """A pair for a server on this machine."""
        return self.issue(*LOCAL, common="server", purpose=SERVER, **options)

    def revoke(self, *pairs, begins=-HOUR, ends=HOUR):
        """A list of revoked certificates, PEM."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now + begins).next_update(now + ends)
        for pair in pairs:
            entry = x509.RevokedCertificateBuilder().serial_number(pair.serial).revocation_date(now + begins)
            builder = builder.add_revoked_certificate(entry.build())
        return encode(builder.sign(self._key, hashes.SHA256()))

    @staticmethod
    def _begin(subject, public_key, begins, ends, issuer):
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer._name)
        builder = builder.public_key(public_key).serial_number(x509.random_serial_number())
        return builder.not_valid_before(now + begins).not_valid_after(now + ends)


def name_subject(common):
    """A subject of nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])


def sign_oneself():
    """A client's pair that nobody else vouches for."""
    lonely = Authority("peer")
    return Pair(lonely.pem, encode_key(lonely._key))


def encode(made):
    """PEM."""
    return made.public_bytes(serialization.Encoding.PEM)


def encode_key(key, protection=None):
    """PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection or serialization.NoEncryption()
    )


def encrypt(pem, password):
    """The same key, to be read with a password only."""
    key = serialization.load_pem_private_key(pem, None)
    return encode_key(key, serialization.BestAvailableEncryption(password))
