"""Metadata between Python's pairs and the flat form in which the transport keeps it.

A field is its name's and its value's size (four bytes each, of the machine's order), then the name and the value. On
the wire values of names that end in -bin are base64, and several of them may be joined by commas.
"""

import base64
import binascii
import struct

SIZES = struct.Struct("=II")
BINARY = "-bin"
MAX_FIELDS = 48


def encode_metadata(metadata):
    """The flat form of (name, value) pairs; None for none.

    Names and values have been checked (kernels.grpc_metadata). Raises ValueError for more fields than can be sent.
    """
    pairs = tuple(metadata or ())
    if len(pairs) > MAX_FIELDS:
        raise ValueError(f"metadata has {len(pairs)} fields; at most {MAX_FIELDS} can be sent")
    return b"".join(_encode_field(name, value) for name, value in pairs) or None


def _encode_field(name, value):
    raw = value.encode("utf-8") if isinstance(value, str) else bytes(value)
    if name.endswith(BINARY):
        raw = base64.b64encode(raw).rstrip(b"=")
    encoded = name.encode("ascii")
    return SIZES.pack(len(encoded), len(raw)) + encoded + raw


def decode_metadata(flat):
    """The (name, value) pairs of the flat form: values are str, those of -bin names bytes."""
    fields, position = [], 0
    while position < len(flat):
        name_size, value_size = SIZES.unpack_from(flat, position)
        position += SIZES.size
        name = flat[position : position + name_size].decode("ascii", "replace")
        position += name_size
        value = flat[position : position + value_size]
        position += value_size
        if name.endswith(BINARY):
            fields.extend((name, _decode_base64(part)) for part in value.split(b","))
        else:
            fields.append((name, _decode_text(value)))
    return fields


def _decode_text(value):
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _decode_base64(text):
    """Padded or not; what is no base64 stays as it came."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return text
