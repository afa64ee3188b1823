"""Who is who: the two authorities and the identities that they vouch for.

The gateway has one authority and the inside another, so that a client's certificate opens the gateway and nothing
behind it.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address

from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

TRUST_DOMAIN = "spiffe://sluice.local"
GATEWAY_URI = f"{TRUST_DOMAIN}/gateway"
SERVICE_URI = f"{TRUST_DOMAIN}/service"
CLIENT_URI = f"{TRUST_DOMAIN}/client/demo"
LIMITS_URI = f"{TRUST_DOMAIN}/limits"
CONTROL_URI = f"{TRUST_DOMAIN}/control"
OPERATOR_URI = f"{TRUST_DOMAIN}/operator/demo"

GATEWAY_CA = "gateway-ca"
INTERNAL_CA = "internal-ca"
AUTHORITIES = (GATEWAY_CA, INTERNAL_CA)


@dataclass(frozen=True)
class Identity:
    """One leaf certificate: its file name, who vouches for it, and what it may be used for."""

    name: str
    authority: str
    uri: str
    usage: ObjectIdentifier
    dns_names: tuple[str, ...] = ()
    addresses: tuple[IPv4Address, ...] = ()


_LOCAL = {"dns_names": ("localhost",), "addresses": (IPv4Address("127.0.0.1"),)}

IDENTITIES = (
    Identity("gateway", GATEWAY_CA, GATEWAY_URI, ExtendedKeyUsageOID.SERVER_AUTH, **_LOCAL),
    Identity("gateway-upstream", INTERNAL_CA, GATEWAY_URI, ExtendedKeyUsageOID.CLIENT_AUTH),
    Identity("service", INTERNAL_CA, SERVICE_URI, ExtendedKeyUsageOID.SERVER_AUTH, **_LOCAL),
    Identity("limits", INTERNAL_CA, LIMITS_URI, ExtendedKeyUsageOID.SERVER_AUTH, **_LOCAL),
    Identity("control", INTERNAL_CA, CONTROL_URI, ExtendedKeyUsageOID.SERVER_AUTH, **_LOCAL),
    Identity("control-upstream", INTERNAL_CA, CONTROL_URI, ExtendedKeyUsageOID.CLIENT_AUTH),
    Identity("client", GATEWAY_CA, CLIENT_URI, ExtendedKeyUsageOID.CLIENT_AUTH),
    Identity("operator", GATEWAY_CA, OPERATOR_URI, ExtendedKeyUsageOID.CLIENT_AUTH),
)
