"""Who may do what: roles that allow actions on models, and the certificates and tokens that grant them.

Nothing is allowed that no role allows. The gateway is rendered from the same policy, and the service asks it again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from service.deployment import DeploymentError

ACTIONS = (
    "infer",
    "pin",
    "metadata",
    "statistics",
    "load",
    "load_override",
    "shared_memory",
    "trace_settings",
    "log_settings",
    "traffic",
    "admin",
)
# What the operator listener lets pass: it does not tell models apart.
OPERATOR_ACTIONS = ("traffic", "admin")
ALL_MODELS = "*"
# Claims that hold several values in one text, with blanks between them (RFC 8693, section 4.2).
SPACED_CLAIMS = ("scope", "scp")
# A claim's name, behind those of the claims that it lies in.
ClaimPath = tuple[str, ...]


@dataclass(frozen=True)
class Identity:
    """Who calls, as it was proven.

    Attributes
    ----------
    uris
        URI names of the certificate, in its order.
    claims
        Those of a token whose signature, issuer, audience and time were checked; None without one.
    """

    uris: tuple[str, ...] = ()
    claims: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class RemoteKeys:
    """An issuer's keys where it publishes them.

    Attributes
    ----------
    uri
        An https URL of a JSON Web Key Set.
    authority
        PEM file of who vouches for that server.
    cache_s
        How long they are used before they are fetched again.
    """

    uri: str
    authority: Path
    cache_s: int = 300


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """Whose tokens are believed, and what their claims are called.

    Attributes
    ----------
    issuer
        The claim `iss`, exactly.
    audiences
        Of which the claim `aud` has one.
    keys
        A JSON Web Key Set as its text, or where it is; None where nobody checks signatures.
    clock_skew_s
        By how much its clock may differ from the gateway's; at least 1, since Envoy takes 0 for not given, which is 60.
    """

    issuer: str
    audiences: tuple[str, ...]
    keys: str | RemoteKeys | None = None
    subject: ClaimPath = ("sub",)
    tenant: ClaimPath = ("tenant",)
    roles: ClaimPath = ("roles",)
    clock_skew_s: int = 30


@dataclass(frozen=True)
class Role:
    """What its holders may do: each of the actions, on each of the models.

    Attributes
    ----------
    models
        Names, beginnings of names that end in a star, or a star for all. What concerns no model needs the star.
    """

    models: tuple[str, ...]
    actions: tuple[str, ...]

    def covers(self, model: str | None) -> bool:
        """Whether a model, or with None what concerns no model, is among the role's."""
        return any(matches_model(pattern, model) for pattern in self.models)


@dataclass(frozen=True)
class TokenCondition:
    """Which tokens a grant is for: an issuer's by its name in the policy, with one of some values in each claim."""

    issuer: str
    claims: Mapping[ClaimPath, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Grant:
    """Gives a role to who shows one of some certificates, such a token, or, where both are named, both.

    Attributes
    ----------
    certificates
        URI names of which the certificate carries one; empty asks for none.
    """

    role: str
    certificates: tuple[str, ...] = ()
    token: TokenCondition | None = None


@dataclass(frozen=True)
class Decision:
    """Whether something is allowed, and why.

    Attributes
    ----------
    role
        The one that allows it.
    grant
        The place, from 0, of the grant by which that role is held.
    """

    allowed: bool
    reason: str
    role: str | None = None
    grant: int | None = None


@dataclass(frozen=True, kw_only=True)
class AccessPolicy:
    """The issuers, roles and grants of a deployment.

    Raises
    ------
    DeploymentError
        Two names for one issuer, an operator's action on some models only, or a grant of a role or of an issuer that is
        not there, or to everybody.
    """

    issuers: Mapping[str, Issuer] = field(default_factory=dict)
    roles: Mapping[str, Role]
    grants: tuple[Grant, ...]

    def __post_init__(self) -> None:
        _check_issuers(self.issuers)
        for name, role in self.roles.items():
            _check_role(name, role)
        for place, grant in enumerate(self.grants):
            self._check_grant(grant, ("access", "grants", place))
        object.__setattr__(self, "issuers", MappingProxyType(dict(self.issuers)))
        object.__setattr__(self, "roles", MappingProxyType(dict(self.roles)))

    def roles_of(self, identity: Identity) -> tuple[str, ...]:
        """The roles that an identity has, in the order of the policy."""
        held = {grant.role for _, grant in self.grants_of(identity)}
        return tuple(role for role in self.roles if role in held)

    def decide(self, identity: Identity, action: str, model: str | None) -> Decision:
        """Whether an identity may do something with a model, or with None what concerns no model or all of them."""
        for place, grant in self.grants_of(identity):
            role = self.roles[grant.role]
            if action in role.actions and role.covers(model):
                reason = f"role {grant.role!r} allows {describe_action(action, model)}"
                return Decision(True, reason, grant.role, place)
        roles = ", ".join(self.roles_of(identity)) or "none"
        return Decision(False, f"{describe_action(action, model)}: allowed by no role of the caller, who has {roles}")

    def grants_of(self, identity: Identity) -> Iterator[tuple[int, Grant]]:
        """The grants that an identity meets, each with its place."""
        issuer = self.find_issuer(identity)
        for place, grant in enumerate(self.grants):
            if grant.certificates and not set(grant.certificates) & set(identity.uris):
                continue
            if grant.token is None or (issuer == grant.token.issuer and _meets(identity.claims or {}, grant.token)):
                yield place, grant

    def find_issuer(self, identity: Identity) -> str | None:
        """The policy's name of who issued the token; None without one, or when it is not known."""
        wanted = None if identity.claims is None else identity.claims.get("iss")
        return next((name for name, issuer in self.issuers.items() if issuer.issuer == wanted), None)

    def subject_of(self, identity: Identity) -> str | None:
        """Who that is: the token's subject, else the first name of the certificate; None when there is neither."""
        subject = self._read_text(identity, "subject")
        return subject if subject is not None else next(iter(identity.uris), None)

    def tenant_of(self, identity: Identity) -> str | None:
        """On whose behalf, by the token; None when it does not say."""
        return self._read_text(identity, "tenant")

    def _read_text(self, identity: Identity, claim: str) -> str | None:
        name = self.find_issuer(identity)
        if name is None:
            return None
        value = find_claim(identity.claims or {}, getattr(self.issuers[name], claim))
        return value if isinstance(value, str) and value else None

    def _check_grant(self, grant: Grant, path: tuple[str | int, ...]) -> None:
        if grant.role not in self.roles:
            known = ", ".join(self.roles) or "none"
            raise DeploymentError(f"grant: expected one of the roles {known}, given {grant.role!r}", (*path, "role"))
        if grant.token is None and not grant.certificates:
            raise DeploymentError("grant: expected certificates, a token or both, given neither", path)
        if grant.token is not None and grant.token.issuer not in self.issuers:
            known = ", ".join(self.issuers) or "none"
            raise DeploymentError(
                f"grant: expected one of the issuers {known}, given {grant.token.issuer!r}", (*path, "token", "issuer")
            )


def matches_model(pattern: str, model: str | None) -> bool:
    """Whether a role's pattern stands for a model, or with None for what concerns no model."""
    if pattern == ALL_MODELS or model is None:
        return pattern == ALL_MODELS
    return model.startswith(pattern[:-1]) if pattern.endswith("*") else model == pattern


def find_claim(claims: Mapping[str, Any], path: ClaimPath) -> object:
    """What a token says under a path; None when it says nothing."""
    value: object = claims
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def list_values(claims: Mapping[str, Any], path: ClaimPath) -> list[str]:
    """The texts that a claim holds: itself, its elements, or, of a scope, its words."""
    value = find_claim(claims, path)
    if isinstance(value, str):
        return [word for word in value.split(" ") if word] if _is_spaced(path) else [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def describe_action(action: str, model: str | None) -> str:
    """An action and what it is done to, in words."""
    return f"{action} on model {model!r}" if model is not None else f"{action} on no model in particular"


def _is_spaced(path: ClaimPath) -> bool:
    return len(path) == 1 and path[0] in SPACED_CLAIMS


def _meets(claims: Mapping[str, Any], condition: TokenCondition) -> bool:
    return all(set(values) & set(list_values(claims, path)) for path, values in condition.claims.items())


def _check_issuers(issuers: Mapping[str, Issuer]) -> None:
    seen: dict[str, str] = {}
    for name, issuer in issuers.items():
        if issuer.issuer in seen:
            raise DeploymentError(
                f"issuer {issuer.issuer!r}: expected one entry, given {seen[issuer.issuer]!r} and {name!r}",
                ("access", "tokens", name, "issuer"),
            )
        seen[issuer.issuer] = name


def _check_role(name: str, role: Role) -> None:
    for action in OPERATOR_ACTIONS:
        if action in role.actions and ALL_MODELS not in role.models:
            raise DeploymentError(
                f"role {name!r}: expected {ALL_MODELS!r} among its models, for {action!r} is for all or none",
                ("access", "roles", name, "models"),
            )
