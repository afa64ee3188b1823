"""Who calls, by the handshake and by what gateways say."""

import base64
import json

import pytest

from service.access_policy import Identity
from service.callers import CallerError, Callers

GATEWAY, CLIENT, OTHER = (f"spiffe://sluice.local/{name}" for name in ("gateway", "client/demo", "client/other"))
CERTIFICATE = ("x-forwarded-client-cert", f"Hash={'0' * 64};URI={CLIENT}")
CALLERS = Callers([GATEWAY])


def auth(*names):
    """A handshake with a certificate of these URI names."""
    return {"transport_security_type": [b"ssl"], "peer_uri": [name.encode() for name in names]}


def token(claims, *, pad=False):
    """The header that a gateway makes of a token's claims."""
    encoded = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    return ("sluice-token", encoded if pad else encoded.rstrip("="))


def test_gateway_speaks_for_its_client():
    """By certificate and token; what else it sends is nobody's name."""
    claims = {"iss": "https://issuer", "sub": "ada", "roles": ["tester"]}
    for pad in (True, False):
        headers = [("user-agent", "envoy"), CERTIFICATE, token(claims, pad=pad)]
        assert CALLERS.identify(auth(GATEWAY), headers) == Identity((CLIENT,), claims)
    assert CALLERS.identify(auth(GATEWAY), [CERTIFICATE]) == Identity((CLIENT,), None)


def test_gateway_that_says_nothing_speaks_for_nobody():
    """Its own name counts for nothing."""
    assert CALLERS.identify(auth(GATEWAY), []) == Identity((), None)


def test_others_speak_for_themselves_whatever_they_send():
    """One name of several makes a gateway, and nothing else does."""
    headers = [CERTIFICATE, token({"sub": "ada"})]
    assert CALLERS.identify(auth(OTHER, CLIENT), headers) == Identity((OTHER, CLIENT), None)
    assert CALLERS.identify({}, headers) == Identity((), None)
    assert CALLERS.identify(auth(f"{GATEWAY}/x"), headers) == Identity((f"{GATEWAY}/x",), None)
    assert CALLERS.identify(auth(OTHER, GATEWAY), headers).uris == (CLIENT,)
    assert Callers([]).identify(auth(GATEWAY), headers) == Identity((GATEWAY,), None)


@pytest.mark.parametrize(
    "headers",
    [
        [CERTIFICATE, CERTIFICATE],
        [("x-forwarded-client-cert", "nonsense")],
        [token({}), token({})],
        [("sluice-token", "")],
        [("sluice-token", "a.b.c")],
        [("sluice-token", "AAAA")],
        [("sluice-token", "A")],
        [("sluice-token", base64.urlsafe_b64encode(b"[" * 9000).decode())],
        [token([{"sub": "ada"}])],
        [token("ada")],
    ],
)
def test_gateway_that_cannot_be_understood_is_refused(headers):
    """Nobody is taken for less, or more, than he is."""
    with pytest.raises(CallerError, match=headers[0][0]):
        CALLERS.identify(auth(GATEWAY), headers)
