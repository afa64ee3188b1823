"""Who may do what beside inference: by the policy where there is one, else by where the peer is, and a setting.

Without a policy only what reaches beyond a request is guarded at all.
"""

import ipaddress
from collections.abc import Callable, Collection
from urllib.parse import unquote

import grpc

from service.access_calls import CALLS
from service.guard import Guard
from service.status import PermissionDeniedError

# By names of service.policy_settings.CONTROLS, the actions of a policy where those are called otherwise.
CONTROL_ACTIONS = {"model_overrides": "load_override"}
# Calls that, where they name no model, tell of all those that their caller may see.
LISTS = frozenset({"RepositoryIndex", "ModelStatistics"})
# Headers by which a proxy says that it speaks for somebody else.
FORWARDING_HEADERS = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-envoy-external-address"})


class Permissions:
    """Decides by the peer of a call.

    Parameters
    ----------
    remote_controls
        What others than local peers may change too, by names of service.policy_settings.CONTROLS; without a policy.
    guard
        The policy; None without.
    """

    def __init__(self, remote_controls: Collection[str] = (), guard: Guard | None = None):
        self._remote_controls = frozenset(remote_controls)
        self._guard = guard

    @property
    def has_policy(self) -> bool:
        """Whether a policy decides."""
        return self._guard is not None

    def check(self, control: str, context: grpc.ServicerContext, model: str | None = None) -> None:
        """Raise PermissionDeniedError unless the peer may use the control, on a model where that is of one."""
        if self._guard is not None:
            self.check_action(CONTROL_ACTIONS.get(control, control), context, model)
        elif control not in self._remote_controls and not is_local(context):
            raise PermissionDeniedError(
                f"{control}: only callers on the server's own machine may change this; to allow others, add it to the "
                "server's setting remote_controls"
            )

    def check_action(self, action: str, context: grpc.ServicerContext, model: str | None) -> None:
        """Raise PermissionDeniedError unless the policy allows an action; without one, it is allowed."""
        if self._guard is not None:
            decision = self._guard.decide(context, action, model)
            if not decision.allowed:
                raise PermissionDeniedError(decision.reason)

    def refuse_call(self, path: str, request: object, context: grpc.ServicerContext) -> str:
        """Why the policy does not allow a call of a method; empty when it does.

        Inference is allowed here: the engine looks at the model of each message.
        """
        call = CALLS.get(path)
        if call is None:
            return f"{path}: a method of which the policy knows nothing"
        if self._guard is None or call.action is None or call.action == "infer":
            return ""
        model = getattr(request, call.model_field) if call.model_field else ""
        if not model and path.rpartition("/")[2] in LISTS and self._guard.may_anywhere(context, call.action):
            return ""
        decision = self._guard.decide(context, call.action, model or None)
        return "" if decision.allowed else decision.reason

    def find_visible(self, action: str, context: grpc.ServicerContext) -> Callable[[str], bool]:
        """Whether the peer may do something with a model, by its name; for lists."""
        if self._guard is None:
            return lambda model: True
        guard = self._guard
        return lambda model: guard.decide(context, action, model).allowed


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
