"""What the gateway checks of a policy: tokens, then what their bearers and the certificates' owners may do."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from service.access_calls import CALLS
from service.access_policy import (
    ALL_MODELS,
    SPACED_CLAIMS,
    AccessPolicy,
    ClaimPath,
    Grant,
    Identity,
    Issuer,
    RemoteKeys,
    Role,
)
from service.headers import PIN_HEADER, TOKEN_HEADER

Rule = dict[str, Any]
EXTRACTED = "envoy.filters.http.grpc_field_extraction"
TOKENS = "envoy.filters.http.jwt_authn"
# Where the claims of a verified token lie among the metadata of a call.
CLAIMS_KEY = "token"
CACHED_TOKENS = 1000
# Of a token.
MOST_CACHED_BYTES = 4096
FETCH_TIMEOUT_S = 5
# They name a model that need not be deployed; they go to a server that serves any.
SERVER_METHODS = ("RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting")
EXTENSIONS = "type.googleapis.com/envoy.extensions"
ANYBODY: Rule = {"any": True}


def describe_tokens(policy: AccessPolicy) -> Rule:
    """The filter that verifies every token there is, and lets pass who has none; {} where no issuer is believed."""
    if not policy.issuers:
        return {}
    return {
        "name": TOKENS,
        "typed_config": {
            "@type": f"{EXTENSIONS}.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {name: _describe_issuer(name, issuer) for name, issuer in policy.issuers.items()},
            "rules": [{"match": {"prefix": "/"}, "requires": {"allow_missing": {}}}],
        },
    }


def describe_rules(policy: AccessPolicy) -> list[Rule]:
    """The filters that a call must pass by its method and model, and by the version that it chooses, if any."""
    open_paths = [path for path, call in CALLS.items() if call.action is None]
    calls = {"open": {"permissions": [_any_of(map(_has_path, open_paths))], "principals": [ANYBODY]}}
    calls |= _list_policies(policy, {name: _permit_calls(role) for name, role in policy.roles.items()})
    pins = {"without a version": {"permissions": [_without_version()], "principals": [ANYBODY]}}
    pins |= _list_policies(
        policy, {name: _name_model(role, "model_name") for name, role in policy.roles.items() if "pin" in role.actions}
    )
    return [_make_filter("calls", calls), _make_filter("pins", pins)]


def list_key_servers(policy: AccessPolicy) -> list[dict[str, object]]:
    """Clusters from which issuers' keys are fetched."""
    return [
        _describe_key_server(name, issuer.keys)
        for name, issuer in policy.issuers.items()
        if isinstance(issuer.keys, RemoteKeys)
    ]


def list_operators(policy: AccessPolicy | None, action: str) -> list[str]:
    """URI names that may do something at the operator listener, which looks at certificates alone."""
    grants = policy.grants if policy else ()
    names = dict.fromkeys(name for grant in grants if grant.token is None for name in grant.certificates)
    return [name for name in names if policy.decide(Identity((name,)), action, None).allowed]


# ---- tokens


def _describe_issuer(name: str, issuer: Issuer) -> Rule:
    return {
        "issuer": issuer.issuer,
        "audiences": list(issuer.audiences),
        **_describe_keys(name, issuer.keys),
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "forward": False,
        "forward_payload_header": TOKEN_HEADER,
        "payload_in_metadata": CLAIMS_KEY,
        "normalize_payload_in_metadata": {"space_delimited_claims": list(SPACED_CLAIMS)},
        "clock_skew_seconds": issuer.clock_skew_s,
        "require_expiration": True,
        # The time is looked at for each call all the same.
        "jwt_cache_config": {"jwt_cache_size": CACHED_TOKENS, "jwt_max_token_size": MOST_CACHED_BYTES},
    }


def _describe_keys(name: str, keys: str | RemoteKeys | None) -> Rule:
    if not isinstance(keys, RemoteKeys):
        return {"local_jwks": {"inline_string": keys}}
    return {
        "remote_jwks": {
            "http_uri": {"uri": keys.uri, "cluster": _key_cluster(name), "timeout": f"{FETCH_TIMEOUT_S}s"},
            "cache_duration": f"{keys.cache_s}s",
            # Fetched before the first call needs them, and again before they are too old.
            "async_fetch": {"failed_refetch_duration": "1s"},
        }
    }


def _key_cluster(name: str) -> str:
    return f"jwks-{name}"


def _describe_key_server(name: str, keys: RemoteKeys) -> dict[str, object]:
    url = urlsplit(keys.uri)
    host = url.hostname or ""
    return {
        "name": _key_cluster(name),
        "host": host,
        "port": url.port or 443,
        "is_address": _is_address(host),
        "authority": str(keys.authority.resolve()),
    }


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


# ---- who


def _list_policies(policy: AccessPolicy, permissions: Mapping[str, Sequence[Rule]]) -> dict[str, Rule]:
    """By role what it permits and who has it; without those that permit nothing or that nobody has."""
    holders = {
        name: [_describe_holder(policy, grant) for grant in policy.grants if grant.role == name] for name in permissions
    }
    return {
        f"role {name}": {"permissions": list(permitted), "principals": holders[name]}
        for name, permitted in permissions.items()
        if permitted and holders[name]
    }


def _describe_holder(policy: AccessPolicy, grant: Grant) -> Rule:
    needed = [{"or_ids": {"ids": list(map(has_certificate, grant.certificates))}}] if grant.certificates else []
    if grant.token is not None:
        needed.append(_has_claim(("iss",), (policy.issuers[grant.token.issuer].issuer,)))
        needed += [_has_claim(path, values) for path, values in grant.token.claims.items()]
    return {"and_ids": {"ids": needed}}


def has_certificate(uri: str) -> Rule:
    """Who has a certificate with a URI name."""
    return {
        "custom": {
            "name": "envoy.rbac.principals.mtls_authenticated",
            "typed_config": {
                "@type": f"{EXTENSIONS}.rbac.principals.mtls_authenticated.v3.Config",
                "san_matcher": {"san_type": "URI", "matcher": {"exact": uri}},
            },
        }
    }


def _has_claim(path: ClaimPath, values: Iterable[str]) -> Rule:
    """Whose token says one of some values under a path, alone or in a list."""
    texts = [{"string_match": {"exact": value}} for value in values]
    matches = [*texts, *({"list_match": {"one_of": text}} for text in texts)]
    return _match_metadata(TOKENS, (CLAIMS_KEY, *path), {"or_match": {"value_matchers": matches}})


# ---- what


def _permit_calls(role: Role) -> list[Rule]:
    """The calls that a role allows; those of one field for the model are taken together."""
    fields = {call.model_field for call in CALLS.values()}
    return [rule for field in sorted(fields, key=str) for rule in _permit_field(role, field)]


def _permit_field(role: Role, field: str | None) -> list[Rule]:
    paths = [path for path, call in CALLS.items() if call.action in role.actions and call.model_field == field]
    if not paths:
        return []
    if ALL_MODELS in role.models:
        return [_any_of(map(_has_path, paths))]
    named = _name_model(role, field) if field else []
    return [{"and_rules": {"rules": [_any_of(map(_has_path, paths)), _any_of(named)]}}] if named else []


def _name_model(role: Role, field: str) -> list[Rule]:
    """A rule for each of a role's models, of which one must hold."""
    if ALL_MODELS in role.models:
        return [ANYBODY]
    matchers = [{"prefix": name[:-1]} if name.endswith("*") else {"exact": name} for name in role.models]
    return [
        _match_metadata(EXTRACTED, (field,), {"list_match": {"one_of": {"string_match": matcher}}})
        for matcher in matchers
    ]


def _without_version() -> Rule:
    """What infers nothing, or chooses no version, neither in its message nor by a header."""
    infers = [path for path, call in CALLS.items() if call.action == "infer"]
    any_text = {"list_match": {"one_of": {"string_match": {"safe_regex": {"regex": ".+"}}}}}
    named = _match_metadata(EXTRACTED, ("model_version",), any_text)
    header = {"header": {"name": PIN_HEADER, "present_match": True}}
    return {"not_rule": {"and_rules": {"rules": [_any_of(map(_has_path, infers)), _any_of([named, header])]}}}


def _has_path(path: str) -> Rule:
    """The whole path: with a query behind it, it is no method's."""
    return {"header": {"name": ":path", "string_match": {"exact": path}}}


def _match_metadata(filter_name: str, path: Iterable[str], value: Rule) -> Rule:
    matcher = {"filter": filter_name, "path": [{"key": key} for key in path], "value": value}
    return {"sourced_metadata": {"metadata_matcher": matcher}}


def _any_of(permissions: Iterable[Rule]) -> Rule:
    return {"or_rules": {"rules": list(permissions)}}


def _make_filter(name: str, policies: Mapping[str, Rule]) -> Rule:
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": f"{EXTENSIONS}.filters.http.rbac.v3.RBAC",
            "rules_stat_prefix": f"{name}_",
            "rules": {"action": "ALLOW", "policies": dict(policies)},
        },
    }
