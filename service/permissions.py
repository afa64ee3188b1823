"""Who may change what lies beyond a request: peers of this machine, and others what a setting allows by name."""

import ipaddress
from collections.abc import Collection
from urllib.parse import unquote

import grpc

from service.status import PermissionDeniedError

# Headers by which a proxy says that it speaks for somebody else.
FORWARDING_HEADERS = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-envoy-external-address"})


class Permissions:
    """Decides by the peer of a call.

    Parameters
    ----------
    remote_controls
        What others than local peers may change too, by names of service.settings.CONTROLS.
    """

    def __init__(self, remote_controls: Collection[str] = ()):
        self._remote_controls = frozenset(remote_controls)

    def check(self, control: str, context: grpc.ServicerContext) -> None:
        """Raise PermissionDeniedError unless the peer may use the control."""
        if control not in self._remote_controls and not is_local(context):
            raise PermissionDeniedError(
                f"{control}: only callers on the server's own machine may change this; to allow others, add it to the "
                "server's setting remote_controls"
            )


def is_local(context: grpc.ServicerContext) -> bool:
    """Whether the peer is a process of this machine that speaks for itself.

    With a certificate it does not: the gateway's is shown for whoever calls through it.
    """
    if b"ssl" in context.auth_context().get("transport_security_type", ()):
        return False
    if any(name in FORWARDING_HEADERS for name, _ in context.invocation_metadata() or ()):
        return False
    return is_local_address(context.peer())


def is_local_address(peer: str) -> bool:
    """Whether a peer, as gRPC writes it, is reached without leaving the machine."""
    scheme, _, place = unquote(peer).partition(":")
    if scheme == "unix":
        return True
    host = place.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
