"""Keys by which tokens are verified: a JSON Web Key Set (RFC 7517), public keys only."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

# Symmetric keys are none of these: who may verify with one can sign with it as well.
KEY_TYPES = ("RSA", "EC", "OKP")
# RFC 7518, section 6: what only the owner of a key has.
PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class KeySetError(ValueError):
    """A set of keys that cannot be used; the text says why."""


def parse_key_set(text: str) -> str:
    """The same set in one line of JSON.

    Raises
    ------
    KeySetError
        It is none, holds no key, one that is not for this, or one that must not be given away.
    """
    try:
        keys = json.loads(text)
    except ValueError as error:
        raise KeySetError(f"expected a JSON Web Key Set: {error}") from None
    if problem := next(find_key_problems(keys), None):
        raise KeySetError(problem)
    return json.dumps(keys, sort_keys=True)


def find_key_problems(keys: object) -> Iterator[str]:
    """What is wrong with a set of keys as data."""
    listed = keys.get("keys") if isinstance(keys, Mapping) else None
    if not isinstance(listed, list) or not listed:
        yield "expected a JSON Web Key Set, which is an object with a list of one or more `keys`"
        return
    for place, key in enumerate(listed):
        if not isinstance(key, Mapping):
            yield f"key {place}: expected an object, given {key!r}"
        else:
            yield from (f"key {place}: {problem}" for problem in _find_problems(key))
    names = [key["kid"] for key in listed if isinstance(key, Mapping) and "kid" in key]
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        yield f"expected each `kid` once, given {', '.join(twice)} twice"


def _find_problems(key: Mapping[str, Any]) -> Iterator[str]:
    if key.get("kty") not in KEY_TYPES:
        yield f"expected as `kty` one of {', '.join(KEY_TYPES)}, given {key.get('kty')!r}"
    if private := sorted(PRIVATE_MEMBERS & key.keys()):
        yield f"expected a public key, given a private one (it has {', '.join(private)}); give only the public half"
