"""Reads from a call, at the gateway, what limits count it by: expressions in CEL, as Envoy evaluates them."""

import json
from collections.abc import Callable, Iterable, Mapping

from service.access_calls import CALLS
from service.access_policy import AccessPolicy, ClaimPath, Issuer
from service.limits import RateLimit

# Where the verified token's claims are, and the model of the route: never the name that a client gives, of which there
# may be any number.
TOKEN_SPACE, TOKEN_KEY = "envoy.filters.http.jwt_authn", "token"
ROUTE_SPACE, MODEL_KEY = "sluice", "model"
# In place of a tenant or a name that a caller does not have: who has none shares a bucket with others who have none.
NOBODY = "-"

_METADATA = "metadata.filter_metadata"
_CERTIFICATE = "connection.uri_san_peer_certificate"
_MODEL = f"xds.route_metadata.filter_metadata[{json.dumps(ROUTE_SPACE)}][{json.dumps(MODEL_KEY)}]"


def write_value(key: str, access: AccessPolicy | None) -> str:
    """What a call has under one of the words of RateLimit.by, as a text; an error where a route has no model."""
    writers: Mapping[str, Callable[[], str]] = {
        "subject": lambda: _write_claim(access, lambda issuer: issuer.subject, _write_certificate()),
        "tenant": lambda: _write_claim(access, lambda issuer: issuer.tenant, quote(NOBODY)),
        "certificate": _write_certificate,
        "action": _write_action,
        "model": lambda: _MODEL,
    }
    return writers[key]()


def write_name_if_counted(rate: RateLimit, access: AccessPolicy | None) -> str:
    """The rate's name where a call has all that it must have to count; an error, by which Envoy drops it, elsewhere."""
    terms = [
        f"({write_value(key, access)}) in [{', '.join(map(quote, values))}]" for key, values in rate.matches.items()
    ]
    return f"{{true: {quote(rate.name)}}}[{' && '.join(terms)}]"


def quote(text: str) -> str:
    """A text as CEL writes it."""
    return json.dumps(text, ensure_ascii=False)


def _write_certificate() -> str:
    return f"has({_CERTIFICATE}) ? {_CERTIFICATE} : {quote(NOBODY)}"


def _write_claim(access: AccessPolicy | None, path_of: Callable[[Issuer], ClaimPath], without: str) -> str:
    """A claim of the token, by its issuer; `without` where there is no token, or it has no text there."""
    if access is None or not access.issuers:
        return without
    space = f"{_METADATA}[{quote(TOKEN_SPACE)}]"
    token = f"{space}[{quote(TOKEN_KEY)}]"
    found = without
    for issuer in reversed(access.issuers.values()):
        claim = _write_text(token, path_of(issuer), without)
        found = f'{token}["iss"] == {quote(issuer.issuer)} ? ({claim}) : ({found})'
    return f"{quote(TOKEN_SPACE)} in {_METADATA} && {quote(TOKEN_KEY)} in {space} ? ({found}) : ({without})"


def _write_text(token: str, path: ClaimPath, without: str) -> str:
    conditions, place = [], token
    for name in path:
        # Without the first, a claim of another kind would be an error, and the call count for nobody.
        conditions += [f"type({place}) == map", f"{quote(name)} in {place}"]
        place = f"{place}[{quote(name)}]"
    conditions += [f"type({place}) == string", f'{place} != ""']
    return f"{' && '.join(conditions)} ? {place} : ({without})"


def _write_action() -> str:
    """The action of a method, which its path says; nothing else of a call tells more of it here."""
    paths: dict[str, list[str]] = {}
    for path, call in CALLS.items():
        if call.action is not None:
            paths.setdefault(call.action, []).append(path)
    return _write_choice(paths.items())


def _write_choice(choices: Iterable[tuple[str, list[str]]]) -> str:
    whole = quote(NOBODY)
    for action, paths in reversed(list(choices)):
        whole = f"request.url_path in [{', '.join(map(quote, paths))}] ? {quote(action)} : ({whole})"
    return whole
