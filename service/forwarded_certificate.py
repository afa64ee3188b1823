"""Reads Envoy's x-forwarded-client-cert: whose certificate the gateway's own client has shown."""

import re

# A key, then a value, which is in quotation marks where it holds what divides fields.
FIELD = re.compile(r'([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;]*))')
HEXADECIMAL = re.compile(r"[0-9a-f]{64}")


class ForwardedCertificateError(ValueError):
    """The header says what no gateway of ours would; the text says what was expected."""


def read_uris(text: str) -> tuple[str, ...]:
    """The URI name of the certificate that the header tells of; none of one without.

    The gateway replaces what its client sent, so that there is one certificate. It writes a name as it is, without
    quotation marks: nobody can tell two names from one that holds ";URI=", nor the fields behind a name from its own
    end. So there is one name, and it comes last.

    Raises
    ------
    ForwardedCertificateError
        It has another form, tells of several certificates, or of one with several names.
    """
    fields: list[tuple[str, str]] = []
    position = 0
    while position <= len(text):
        found = FIELD.match(text, position)
        if found is None or (found.end() < len(text) and text[found.end()] != ";"):
            raise ForwardedCertificateError(f"expected fields key=value of one certificate, given {text[:200]!r}")
        key, quoted, plain = found.groups()
        fields.append((key.lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)))
        position = found.end() + 1
    _check_fields(fields)
    return tuple(value for key, value in fields if key == "uri" and value)


def _check_fields(fields: list[tuple[str, str]]) -> None:
    keys = [key for key, _ in fields]
    for key in ("hash", "uri"):
        if keys.count(key) > 1:
            raise ForwardedCertificateError(f"expected {key} once, given it {keys.count(key)} times")
    if "uri" in keys[:-1]:
        raise ForwardedCertificateError(f"expected uri as the last field, given {keys[-1]} behind it")
    hashes = [value for key, value in fields if key == "hash"]
    if hashes and not HEXADECIMAL.fullmatch(hashes[0]):
        raise ForwardedCertificateError(f"hash: expected 64 hexadecimal digits, given {hashes[0][:200]!r}")
