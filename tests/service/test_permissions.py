"""Who may change what lies beyond a request."""

import pytest

from service.permissions import Permissions, is_local_address
from service.status import PermissionDeniedError


class Call:
    """What the check asks a call for."""

    def __init__(self, peer="ipv4:127.0.0.1:5000", *, security="insecure", metadata=()):
        self._peer, self._security, self._metadata = peer, security, metadata

    def peer(self):
        """The caller's address."""
        return self._peer

    def auth_context(self):
        """What the handshake proved."""
        return {"transport_security_type": [self._security.encode()]}

    def invocation_metadata(self):
        """The headers."""
        return self._metadata


@pytest.mark.parametrize(
    ("peer", "is_local"),
    [
        ("ipv4:127.0.0.1:5000", True),
        ("ipv4:127.9.9.9:1", True),
        ("ipv6:[::1]:5000", True),
        ("ipv6:%5B::1%5D:5000", True),
        ("ipv6:%5B::ffff:127.0.0.1%5D:5000", True),
        ("unix:", True),
        ("unix:/run/sluice.sock", True),
        ("ipv4:10.0.0.1:5000", False),
        ("ipv4:128.0.0.1:5000", False),
        ("ipv6:%5B2001:db8::1%5D:5000", False),
        ("ipv6:%5B::ffff:10.0.0.1%5D:5000", False),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_address_is_local_only_without_leaving_the_machine(peer, is_local):
    """As both transports write peers; what cannot be read is not local."""
    assert is_local_address(peer) is is_local


@pytest.mark.parametrize(
    "call",
    [
        Call("ipv4:10.0.0.1:5000"),
        Call(security="ssl"),
        Call(metadata=[("x-forwarded-for", "10.0.0.1")]),
        Call(metadata=[("accept", "any"), ("via", "1.1 proxy")]),
    ],
)
def test_control_is_for_local_peers_unless_allowed_by_name(call):
    """Who comes from elsewhere, with a certificate, or through a proxy needs the setting."""
    with pytest.raises(PermissionDeniedError, match=r"log_settings: .* remote_controls"):
        Permissions(["trace_settings"]).check("log_settings", call)
    Permissions(["log_settings"]).check("log_settings", call)


def test_control_is_open_to_a_local_peer():
    """Without any setting."""
    Permissions().check("log_settings", Call(metadata=[("user-agent", "grpc-python")]))
