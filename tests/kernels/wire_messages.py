"""ModelInferRequest on the wire: pieces to put together by hand, and hypothesis strategies of whole messages.

The strategies know the schema and break its rules on purpose: padded varints, fields in any order and any number, wrong
wire types, unknown fields and groups, text that is no UTF-8.
"""

import os
import struct

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from kernels.datatype import DATATYPES

# Fixed examples in a few seconds; CODEC_EXAMPLES=50000 searches on, with new ones each time.
EXAMPLES = os.environ.get("CODEC_EXAMPLES")
SEARCH = settings(
    max_examples=int(EXAMPLES or 300),
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)

VARINT, FIXED64, DELIMITED, START_GROUP, END_GROUP, FIXED32 = range(6)

PARAMETER = {1: "varint", 2: "varint", 3: "text", 4: "fixed64", 5: "varint"}
ENTRY = {1: "text", 2: PARAMETER}
CONTENTS = {
    1: "varints",
    2: "varints",
    3: "varints",
    4: "varints",
    5: "varints",
    6: "fixed32s",
    7: "fixed64s",
    8: "bytes",
}
INPUT = {1: "text", 2: "datatype", 3: "varints", 4: ENTRY, 5: CONTENTS}
OUTPUT = {1: "text", 2: ENTRY}
REQUEST = {1: "text", 2: "text", 3: "text", 4: ENTRY, 5: INPUT, 6: OUTPUT, 7: "bytes"}


def varint(value, padding=0):
    """Encode a number in as few bytes as it needs, plus `padding` more that say nothing."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    if padding:
        encoded[-1] |= 0x80
        encoded += b"\x80" * (padding - 1) + b"\x00"
    return bytes(encoded)


def tag(number, wire_type):
    """Encode a field's tag."""
    return varint(number << 3 | wire_type)


def delimited(number, *parts):
    """Encode a length-delimited field."""
    payload = b"".join(parts)
    return tag(number, DELIMITED) + varint(len(payload)) + payload


def nested_groups(number, depth):
    """Encode that many empty groups within each other."""
    return tag(number, START_GROUP) * depth + tag(number, END_GROUP) * depth


def parameter(*parts):
    """Encode an entry of the request's parameters."""
    return delimited(4, *parts)


def contents(*parts):
    """Encode an input that has contents and nothing else."""
    return delimited(5, delimited(5, *parts))


numbers = st.one_of(
    st.integers(0, 300), st.integers(0, 2**64 - 1), st.sampled_from([2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 128])
)
varints = st.builds(varint, numbers, st.sampled_from([0] * 12 + [1, 3, 9]))
texts = st.one_of(
    st.text(max_size=4).map(str.encode),
    st.sampled_from([b"k", b"x" * 20, "ä€😀".encode(), "abcdefghä".encode()]),
    st.sampled_from([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"abcdefgh\x80"]),
)
datatypes = st.sampled_from([*(row.name.encode() for row in DATATYPES), b"FP64x"])
PAYLOADS = {
    "text": texts.map(lambda text: (DELIMITED, text)),
    "datatype": datatypes.map(lambda text: (DELIMITED, text)),
    "bytes": st.binary(max_size=12).map(lambda content: (DELIMITED, content)),
    "varint": varints.map(lambda value: (VARINT, value)),
    "fixed64": st.binary(min_size=8, max_size=8).map(lambda bits: (FIXED64, bits)),
    "fixed32": st.binary(min_size=4, max_size=4).map(lambda bits: (FIXED32, bits)),
}


def _packed(element):
    packed = st.lists(element, max_size=12).map(lambda elements: (DELIMITED, b"".join(elements)))
    return st.one_of(packed, packed, PAYLOADS["bytes"])


PAYLOADS["varints"] = st.one_of(PAYLOADS["varint"], _packed(varints))
PAYLOADS["fixed32s"] = st.one_of(PAYLOADS["fixed32"], _packed(st.binary(min_size=4, max_size=4)))
PAYLOADS["fixed64s"] = st.one_of(PAYLOADS["fixed64"], _packed(st.binary(min_size=8, max_size=8)))


@st.composite
def groups(draw):
    """Draw a group of an unknown field, mostly closed as it should be."""
    number = draw(st.sampled_from([1, 5, 20, 2**29 - 1]))
    inner = draw(st.lists(stray_fields, max_size=2))
    closed = draw(st.sampled_from([number] * 9 + [number ^ 1]))
    return tag(number, START_GROUP) + b"".join(inner) + tag(closed, END_GROUP)


@st.composite
def strays(draw):
    """Draw a field of any number and wire type: unknown, or known and of the wrong type."""
    number = draw(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 1000, 2**29 - 1]))
    return encode_field(number, draw(st.one_of([PAYLOADS[kind] for kind in ("varint", "fixed32", "fixed64", "bytes")])))


stray_fields = st.deferred(lambda: st.one_of(strays(), groups()))


def encode_field(number, payload):
    """Encode a field from its (wire type, value bytes)."""
    wire_type, value = payload
    size = varint(len(value)) if wire_type == DELIMITED else b""
    return tag(number, wire_type) + size + value


def known_fields(schema):
    """Return a strategy of fields that a message of this schema knows."""
    return st.one_of(
        [payloads(kind).map(lambda value, n=number: encode_field(n, value)) for number, kind in schema.items()]
    )


def payloads(kind):
    """Return a strategy of (wire type, value bytes) for a kind of field: a name in PAYLOADS, or a schema."""
    if isinstance(kind, str):
        return PAYLOADS[kind]
    return wire_messages(kind).map(lambda message: (DELIMITED, message))


def wire_messages(schema, max_fields=5):
    """Return a strategy of encoded messages of a schema; about one field in six is a stray."""
    known = known_fields(schema)
    return st.lists(st.one_of(known, known, known, known, known, stray_fields), max_size=max_fields).map(b"".join)


@st.composite
def mutated(draw, messages):
    """Draw a message with some of its bytes flipped, cut, inserted or repeated."""
    message = draw(messages)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(message)))
        end = min(place + draw(st.integers(0, 12)), len(message))
        new = draw(st.one_of(st.binary(max_size=3), st.just(message[place:end] * 2)))
        message = message[:place] + new + message[draw(st.sampled_from([place, end, len(message)])) :]
    return message


def float_bits(value):
    """Return a double's bits: NaNs, unlike the numbers, equal themselves."""
    return struct.pack("<d", value)
