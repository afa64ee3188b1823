"""Metadata that a servicer gives, checked before it can spoil a connection."""

import re
from collections import namedtuple
from collections.abc import Iterable

Metadatum = namedtuple("Metadatum", "key value")

KEY = re.compile(r"[0-9a-z_.-]+")
# Printable ASCII, as the gRPC specification has it.
TEXT = re.compile(r"[ -~]*")
BINARY_SUFFIX = "-bin"
# What the transport itself writes, and what HTTP/2 forbids.
RESERVED = frozenset(
    {
        "grpc-status",
        "grpc-message",
        "grpc-encoding",
        "grpc-accept-encoding",
        "grpc-timeout",
        "content-type",
        "te",
        "host",
    }
    | {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "content-length"}
)


class MetadataError(ValueError):
    """Metadata that cannot be sent; the call of a handler that lets it pass ends as INTERNAL."""


def check_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> tuple[Metadatum, ...]:
    """The same metadata in the form that the transport takes: values are text, or bytes where the key ends in "-bin".

    Raises
    ------
    MetadataError
        A key or a value that cannot be sent.
    """
    return tuple(_check_metadatum(*pair) for pair in metadata or ())


def _check_metadatum(key: str | bytes, value: str | bytes) -> Metadatum:
    name = key.decode("latin-1") if isinstance(key, bytes) else key
    if not KEY.fullmatch(name) or name in RESERVED:
        raise MetadataError(f"metadata was invalid: key {key!r}")
    if name.endswith(BINARY_SUFFIX):
        if not isinstance(value, bytes):
            raise MetadataError(f"metadata was invalid: the value of {name!r} must be bytes")
        return Metadatum(name, value)
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not TEXT.fullmatch(text):
        raise MetadataError(f"metadata was invalid: value {value!r} of {name!r}")
    return Metadatum(name, text)
