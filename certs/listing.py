"""Lists what certificates a folder holds and how long they last."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.x509.oid import NameOID

from certs.authority import RENEW_BEFORE
from certs.identities import AUTHORITIES, IDENTITIES

State = Literal["valid", "expiring", "expired", "missing", "broken"]


@dataclass(frozen=True)
class Entry:
    """One certificate as found on disk; the last three are None when it is missing or broken."""

    name: str
    identity: str
    state: State
    issuer: str | None = None
    expires: datetime | None = None
    days_left: int | None = None


def inventory(directory: Path, *, now: datetime | None = None) -> tuple[Entry, ...]:
    """Describe every certificate that a deployment needs, authorities first.

    Parameters
    ----------
    now : datetime
        The time to judge by, timezone-aware; the clock's when None.
    """
    now = now or datetime.now(UTC)
    wanted = [(name, f"sluice {name}") for name in AUTHORITIES]
    wanted += [(identity.name, identity.uri) for identity in IDENTITIES]
    return tuple(_entry(directory, name, identity, now) for name, identity in wanted)


def _entry(directory: Path, name: str, identity: str, now: datetime) -> Entry:
    try:
        certificate = x509.load_pem_x509_certificate((directory / f"{name}.pem").read_bytes())
    except FileNotFoundError:
        return Entry(name, identity, "missing")
    except ValueError:
        return Entry(name, identity, "broken")
    issuer = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    expires = certificate.not_valid_after_utc
    return Entry(
        name=name,
        identity=identity,
        state=_judge(certificate, now),
        issuer=str(issuer[0].value) if issuer else certificate.issuer.rfc4514_string(),
        expires=expires,
        days_left=(expires - now).days,
    )


def _judge(certificate: x509.Certificate, now: datetime) -> State:
    left = certificate.not_valid_after_utc - now
    if left.total_seconds() <= 0:
        return "expired"
    return "expiring" if left <= RENEW_BEFORE else "valid"
