"""Who calls: the owner of the connection's certificate or, where that is a gateway, whom it says that it speaks for."""

import base64
import binascii
import json
import re
from collections.abc import Collection, Iterable, Mapping

from service.access_policy import Identity
from service.forwarded_certificate import ForwardedCertificateError, read_uris
from service.headers import CERTIFICATE_HEADER, TOKEN_HEADER

# The key of grpcio's auth context that holds a peer's URI names.
URI_NAMES = "peer_uri"
BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")

AuthContext = Mapping[str, Iterable[bytes]]
Metadata = Iterable[tuple[str, str | bytes]]


class CallerError(ValueError):
    """A gateway says in a form that cannot be read for whom it speaks; the text names the header."""


class Callers:
    """Tells callers by what their handshake proved and, of gateways, by two headers; those of others mean nothing.

    Parameters
    ----------
    gateways
        URI names of which a gateway's certificate carries one.
    """

    def __init__(self, gateways: Collection[str]):
        self._gateways = frozenset(gateways)

    def speaks_for_others(self, auth: AuthContext) -> bool:
        """Whether the peer is a gateway."""
        return not self._gateways.isdisjoint(read_names(auth))

    def identify(self, auth: AuthContext, metadata: Metadata) -> Identity:
        """Who calls. Raises CallerError."""
        if not self.speaks_for_others(auth):
            return Identity(read_names(auth))
        return read_forwarded(metadata)


def read_names(auth: AuthContext) -> tuple[str, ...]:
    """The URI names of the peer's own certificate; none without one."""
    return tuple(name.decode("utf-8", "replace") for name in auth.get(URI_NAMES, ()))


def read_forwarded(metadata: Metadata) -> Identity:
    """Whom a gateway speaks for. Raises CallerError."""
    certificate, token = None, None
    for name, value in metadata:
        if name == CERTIFICATE_HEADER:
            certificate = _read_once(name, certificate, value)
        elif name == TOKEN_HEADER:
            token = _read_once(name, token, value)
    try:
        uris = () if certificate is None else read_uris(certificate)
    except ForwardedCertificateError as error:
        raise CallerError(f"{CERTIFICATE_HEADER}: {error}") from None
    return Identity(uris, None if token is None else read_claims(token))


def read_claims(token: str) -> Mapping[str, object]:
    """The claims of a verified token, as the gateway passes them on. Raises CallerError."""
    expected = f"{TOKEN_HEADER}: expected a JSON object in base64url"
    if not BASE64URL.fullmatch(token):
        raise CallerError(expected)
    try:
        claims = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise CallerError(expected) from None
    if not isinstance(claims, dict):
        raise CallerError(expected)
    return claims


def _read_once(name: str, before: str | None, value: str | bytes) -> str:
    if before is not None:
        raise CallerError(f"{name}: expected once, given more often")
    return value if isinstance(value, str) else value.decode("latin-1")
