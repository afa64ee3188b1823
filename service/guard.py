"""What the service itself checks: each call's identity against the policy of the deployment file."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

import grpc

from kernels.permit import ACTIONS, Permit
from service.access_policy import AccessPolicy, Decision, Identity
from service.callers import URI_NAMES, AuthContext, CallerError, Callers, Metadata
from service.headers import CERTIFICATE_HEADER, TOKEN_HEADER

# Callers of which is remembered what they may do; each takes a digest and a reference.
MAX_CALLERS = 4096


class PermitBook:
    """The permits of one policy: one for all callers with the same roles; safe to use from any thread.

    Of callers that are many those that come again are remembered, and each is worth the same.
    """

    def __init__(self, policy: AccessPolicy):
        self.policy = policy
        self._lock = threading.Lock()
        self._by_roles: OrderedDict[tuple[str, ...], Permit] = OrderedDict()
        self._by_caller: OrderedDict[bytes, Permit] = OrderedDict()

    def find(self, caller: bytes) -> Permit | None:
        """What is remembered of a caller, by a digest of what was proven of him."""
        with self._lock:
            return _touch(self._by_caller, caller)

    def remember(self, caller: bytes, permit: Permit) -> None:
        """Note what a caller may do."""
        with self._lock:
            _add(self._by_caller, caller, permit)

    def permit(self, identity: Identity) -> Permit:
        """The permit for an identity's roles."""
        roles = self.policy.roles_of(identity)
        with self._lock:
            found = _touch(self._by_roles, roles)
            if found is None:
                found = Permit(self._list_rules(roles))
                _add(self._by_roles, roles, found)
        return found

    def _list_rules(self, roles: tuple[str, ...]) -> list[tuple[str, int]]:
        """Patterns of models and the bits of what is allowed on them."""
        rules: dict[str, int] = {}
        for role in map(self.policy.roles.__getitem__, roles):
            actions = sum(bit for action, bit in ACTIONS.items() if action in role.actions)
            for pattern in role.models if actions else ():
                rules[pattern] = rules.get(pattern, 0) | actions
        return list(rules.items())


class Guard:
    """Decides by a policy that can be replaced; safe to use from any thread."""

    def __init__(self, policy: AccessPolicy, callers: Callers):
        self._callers = callers
        self._book = PermitBook(policy)
        self._listeners: list[Callable[[], None]] = []

    @property
    def policy(self) -> AccessPolicy:
        """The one in force."""
        return self._book.policy

    def replace(self, policy: AccessPolicy) -> None:
        """Decide by another policy from now on."""
        self._book = PermitBook(policy)
        for listener in self._listeners:
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the policy was replaced."""
        self._listeners.append(listener)

    def admit(self, auth: AuthContext, metadata: Metadata) -> tuple[Permit, bool]:
        """What the caller may ask the engine for, and whether a gateway speaks for him."""
        book = self._book
        is_forwarded = self._callers.speaks_for_others(auth)
        caller = digest_caller(auth, metadata if is_forwarded else ())
        permit = book.find(caller)
        if permit is None:
            try:
                permit = book.permit(self._callers.identify(auth, metadata))
            except CallerError as error:
                permit = Permit(refusal=str(error))
            book.remember(caller, permit)
        return permit, is_forwarded

    def decide(self, context: grpc.ServicerContext, action: str, model: str | None) -> Decision:
        """Whether a call's peer may do something with a model, or with None what concerns none in particular."""
        try:
            identity = self._identify(context)
        except CallerError as error:
            return Decision(False, str(error))
        return self._book.policy.decide(identity, action, model)

    def may_anywhere(self, context: grpc.ServicerContext, action: str) -> bool:
        """Whether a call's peer may do something with any model at all."""
        policy = self._book.policy
        try:
            roles = policy.roles_of(self._identify(context))
        except CallerError:
            return False
        return any(action in policy.roles[role].actions for role in roles)

    def _identify(self, context: grpc.ServicerContext) -> Identity:
        return self._callers.identify(context.auth_context(), context.invocation_metadata() or ())


def digest_caller(auth: AuthContext, metadata: Metadata) -> bytes:
    """What tells a caller from others: the certificate's names, and what a gateway says."""
    said = [(name, value) for name, value in metadata if name in (CERTIFICATE_HEADER, TOKEN_HEADER)]
    return hashlib.sha256(repr((list(auth.get(URI_NAMES, ())), said)).encode()).digest()


def _touch(table: OrderedDict, key: object) -> Permit | None:
    found = table.get(key)
    if found is not None:
        table.move_to_end(key)
    return found


def _add(table: OrderedDict, key: object, permit: Permit) -> None:
    table[key] = permit
    if len(table) > MAX_CALLERS:
        table.popitem(last=False)
