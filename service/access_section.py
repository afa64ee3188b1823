"""The section `access` of a deployment file: what it means as a policy, and a policy as such a section."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.access_policy import AccessPolicy, ClaimPath, Grant, Issuer, RemoteKeys, Role, TokenCondition
from service.deployment import DeploymentError
from service.key_set import KeySetError, parse_key_set

FilePath = tuple[str | int, ...]
SECTION = "access"
KEY_FIELDS = ("jwks_file", "jwks", "jwks_uri")


def build_access(section: Mapping[str, Any], folder: Path | None) -> AccessPolicy:
    """The policy of a section that the schema allows.

    Parameters
    ----------
    folder
        What paths are relative to. None leaves keys out, for who verifies no signature and need not have the files.

    Raises
    ------
    DeploymentError
        With the path of what cannot be.
    """
    issuers = {
        name: _build_issuer(declared, folder, (SECTION, "tokens", name))
        for name, declared in section.get("tokens", {}).items()
    }
    grants = [
        _build_grant(declared, issuers, (SECTION, "grants", place)) for place, declared in enumerate(section["grants"])
    ]
    roles = {name: Role(tuple(role["models"]), tuple(role["actions"])) for name, role in section["roles"].items()}
    return AccessPolicy(issuers=issuers, roles=roles, grants=tuple(grants))


def describe_access(policy: AccessPolicy) -> dict[str, Any]:
    """The section for a policy: every field, and keys that lay in a file as they are."""
    return {
        "tokens": {name: _describe_issuer(issuer) for name, issuer in policy.issuers.items()},
        "roles": {
            name: {"models": list(role.models), "actions": list(role.actions)} for name, role in policy.roles.items()
        },
        "grants": [_describe_grant(grant, policy.issuers) for grant in policy.grants],
    }


def _build_issuer(declared: Mapping[str, Any], folder: Path | None, path: FilePath) -> Issuer:
    given = [field for field in KEY_FIELDS if field in declared]
    if len(given) != 1:
        raise DeploymentError(
            f"keys: expected one of {', '.join(KEY_FIELDS)}, given {', '.join(given) or 'none'}", path
        )
    if "jwks_ca" not in declared and "jwks_uri" in declared:
        raise DeploymentError("jwks_uri: expected 'jwks_ca' beside it, who vouches for that server", path)
    names = {claim: _read_path(name) for claim, name in declared.get("claims", {}).items()}
    return Issuer(
        issuer=declared["issuer"],
        audiences=tuple(declared["audiences"]),
        keys=None if folder is None else _build_keys(declared, folder, (*path, given[0])),
        **names,
        **{"clock_skew_s": declared["clock_skew_s"]} if "clock_skew_s" in declared else {},
    )


def _build_keys(declared: Mapping[str, Any], folder: Path, path: FilePath) -> str | RemoteKeys:
    if "jwks_uri" in declared:
        cache = {"cache_s": declared["jwks_cache_s"]} if "jwks_cache_s" in declared else {}
        return RemoteKeys(declared["jwks_uri"], folder / declared["jwks_ca"], **cache)
    try:
        if "jwks" in declared:
            return parse_key_set(json.dumps(declared["jwks"]))
        return parse_key_set((folder / declared["jwks_file"]).read_text(encoding="utf-8"))
    except (KeySetError, OSError, UnicodeDecodeError) as error:
        raise DeploymentError(f"{'.'.join(map(str, path))}: {error}", path) from None


def _build_grant(declared: Mapping[str, Any], issuers: Mapping[str, Issuer], path: FilePath) -> Grant:
    token = declared.get("token")
    return Grant(
        declared["role"],
        tuple(declared.get("certificates", ())),
        None if token is None else _build_condition(token, issuers, (*path, "token")),
    )


def _build_condition(token: Mapping[str, Any], issuers: Mapping[str, Issuer], path: FilePath) -> TokenCondition:
    claims: dict[ClaimPath, tuple[str, ...]] = {
        (name,): (values,) if isinstance(values, str) else tuple(values)
        for name, values in token.get("claims", {}).items()
    }
    # An issuer that is not there has its own error, of the policy.
    if "roles" in token and token["issuer"] in issuers:
        roles = issuers[token["issuer"]].roles
        if roles in claims:
            raise DeploymentError(f"claim {roles[0]!r}: expected once, given as 'roles' and in 'claims'", path)
        claims[roles] = tuple(token["roles"])
    return TokenCondition(token["issuer"], claims)


def _describe_issuer(issuer: Issuer) -> dict[str, Any]:
    return {
        "issuer": issuer.issuer,
        "audiences": list(issuer.audiences),
        **_describe_keys(issuer.keys),
        "claims": {claim: _write_path(getattr(issuer, claim)) for claim in ("subject", "tenant", "roles")},
        "clock_skew_s": issuer.clock_skew_s,
    }


def _describe_keys(keys: str | RemoteKeys | None) -> dict[str, Any]:
    if isinstance(keys, RemoteKeys):
        return {"jwks_uri": keys.uri, "jwks_ca": str(keys.authority.resolve()), "jwks_cache_s": keys.cache_s}
    return {"jwks": json.loads(keys)} if keys is not None else {}


def _describe_grant(grant: Grant, issuers: Mapping[str, Issuer]) -> dict[str, Any]:
    certificates = {"certificates": list(grant.certificates)} if grant.certificates else {}
    token = {"token": _describe_condition(grant.token, issuers)} if grant.token else {}
    return {"role": grant.role, **certificates, **token}


def _describe_condition(token: TokenCondition, issuers: Mapping[str, Issuer]) -> dict[str, Any]:
    roles = issuers[token.issuer].roles
    claims = {path[0]: list(values) for path, values in token.claims.items() if path != roles}
    return {
        "issuer": token.issuer,
        **({"roles": list(token.claims[roles])} if roles in token.claims else {}),
        **({"claims": claims} if claims else {}),
    }


def _read_path(name: str | list[str]) -> ClaimPath:
    return (name,) if isinstance(name, str) else tuple(name)


def _write_path(path: ClaimPath) -> str | list[str]:
    return path[0] if len(path) == 1 else list(path)
