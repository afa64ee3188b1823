"""Says in words why a policy allows something or does not, as the gateway would decide it."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.access_policy import OPERATOR_ACTIONS, AccessPolicy, Grant, Identity, describe_action, list_values
from service.access_section import SECTION
from service.deployment import Deployment

# What is asked beside an action, which alone is of no use.
ASKED_FIRST = {"pin": "infer", "load_override": "load"}
FindLine = Callable[[tuple[str | int, ...]], int]


@dataclass(frozen=True)
class Explanation:
    """Whether something is allowed, and the lines that say why."""

    allowed: bool
    lines: tuple[str, ...]


def explain(
    deployment: Deployment, identity: Identity, action: str, model: str | None, find_line: FindLine
) -> Explanation:
    """Why an identity may do something with a model, or with None what concerns no model, or why not.

    Parameters
    ----------
    find_line
        The line of a value in the deployment's file, by the keys that lead to it.
    """
    if action in OPERATOR_ACTIONS:
        return _explain_operator(deployment, identity, action, find_line)
    policy = deployment.access
    if policy is None:
        words = "allowed: without a section `access` every client with a certificate may do all"
        return Explanation(True, (*_describe_identity(identity), words))
    head = (*_describe_identity(identity), *_describe_roles(policy, identity, find_line))
    if refusal := find_refusal(policy, identity.claims):
        return Explanation(False, (*head, f"denied: {refusal}; whoever shows a token must show a valid one"))
    asked = [ASKED_FIRST[action]] if action in ASKED_FIRST else []
    return _decide(policy, identity, [*asked, action], model, head, find_line)


def find_refusal(policy: AccessPolicy, claims: Mapping[str, Any] | None) -> str | None:
    """Why a token is not accepted, as far as its claims tell; None without one, or when they are as they should be.

    A claim `aud` or `exp` that is not there is passed over: a gateway refuses such a token.
    """
    if claims is None:
        return None
    name = policy.find_issuer(Identity((), claims))
    if name is None:
        known = ", ".join(issuer.issuer for issuer in policy.issuers.values()) or "none"
        return f"the token's issuer is {claims.get('iss')!r}, expected one of {known}"
    issuer = policy.issuers[name]
    if "aud" in claims and not set(issuer.audiences) & set(list_values(claims, ("aud",))):
        return f"the token's audience is {claims['aud']!r}, expected one of {', '.join(issuer.audiences)}"
    now = time.time()
    ends, begins = (claims.get(name, now) for name in ("exp", "nbf"))
    if not all(isinstance(moment, int | float) for moment in (ends, begins)):
        return "the token's times are not numbers"
    if now > ends + issuer.clock_skew_s:
        return "the token has expired"
    return "the token is not valid yet" if now < begins - issuer.clock_skew_s else None


def _decide(
    policy: AccessPolicy,
    identity: Identity,
    actions: list[str],
    model: str | None,
    head: tuple[str, ...],
    find_line: FindLine,
) -> Explanation:
    lines = list(head)
    for action in actions:
        decision = policy.decide(identity, action, model)
        if not decision.allowed:
            return Explanation(False, (*lines, f"denied: {decision.reason}"))
        where = find_line((SECTION, "roles", str(decision.role)))
        lines.append(f"allowed: {decision.reason} (line {where})")
    return Explanation(True, tuple(lines))


def _explain_operator(deployment: Deployment, identity: Identity, action: str, find_line: FindLine) -> Explanation:
    """The operator listener looks at the certificate alone."""
    shown = Identity(identity.uris)
    head = list(_describe_identity(shown))
    if identity.claims is not None:
        head.append("the operator listener looks at no token")
    if listed := set(identity.uris) & set(deployment.operators):
        where = find_line(("gateway", "operators"))
        return Explanation(True, (*head, f"allowed: {min(listed)} is among gateway.operators (line {where})"))
    if deployment.access is None:
        words = f"denied: {describe_action(action, None)}: expected one of gateway.operators"
        return Explanation(False, (*head, words))
    head += _describe_roles(deployment.access, shown, find_line)
    return _decide(deployment.access, shown, [action], None, tuple(head), find_line)


def _describe_identity(identity: Identity) -> Iterator[str]:
    yield f"certificate: {', '.join(identity.uris) or 'any'}"
    if identity.claims is not None:
        yield f"token: {', '.join(f'{claim} {value!r}' for claim, value in identity.claims.items())}"


def _describe_roles(policy: AccessPolicy, identity: Identity, find_line: FindLine) -> Iterator[str]:
    yield f"subject: {policy.subject_of(identity) or 'none'}, tenant: {policy.tenant_of(identity) or 'none'}"
    held = [
        f"role: {grant.role}, by {_describe_grant(grant)} (line {find_line((SECTION, 'grants', place))})"
        for place, grant in policy.grants_of(identity)
    ]
    yield from held or ["role: none"]


def _describe_grant(grant: Grant) -> str:
    parts = [f"certificate {' or '.join(grant.certificates)}"] if grant.certificates else []
    if grant.token is not None:
        claims = [f"{'.'.join(path)} {' or '.join(values)}" for path, values in grant.token.claims.items()]
        parts.append(" with ".join([f"a token of {grant.token.issuer}", *claims]))
    return " and ".join(parts)
