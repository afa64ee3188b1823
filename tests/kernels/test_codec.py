"""kernels.codec: reads ModelInferRequest as protobuf does, from any bytes whatever, and bounds what a message costs."""

from functools import partial

import pytest
import wire_messages as wire
from hypothesis import given
from hypothesis import strategies as st
from wire_messages import (
    FIXED32,
    FIXED64,
    REQUEST,
    SEARCH,
    VARINT,
    contents,
    delimited,
    nested_groups,
    parameter,
    tag,
    varint,
)

from kernels import messages, reference
from kernels.messages import DecodeError, Parameter
from service.pb.open_inference_pb2 import ModelInferRequest

decode_with_protobuf = partial(reference.decode_request, request_type=ModelInferRequest)


@pytest.fixture(params=[decode_with_protobuf, messages.decode_request], ids=["reference", "compiled"])
def decode(request):
    """Both decoders."""
    return request.param


def outcome(decoder, message):
    """Return what a decoder makes of a message, None when it refuses; doubles as their bits."""
    try:
        return _comparable(decoder(message))
    except DecodeError:
        return None


def _comparable(value):
    if isinstance(value, float):
        return wire.float_bits(value)
    if isinstance(value, dict):
        return {key: _comparable(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(_comparable(entry) for entry in value)
    return value


def assert_decoders_agree(message):
    """Hold the compiled decoder against protobuf's."""
    assert outcome(messages.decode_request, message) == outcome(decode_with_protobuf, message)


def test_request_with_every_field_is_read(decode):
    """Names, version, id, parameters of all three owners, shapes, requested outputs and raw contents come back."""
    request = ModelInferRequest(
        model_name="digits", model_version="2", id="nonce-17", raw_input_contents=[b"\0" * 8, b""]
    )
    request.parameters["priority"].uint64_param = 2**64 - 1
    tensor = request.inputs.add(name="pixels", datatype="FP32", shape=[1, -1, 2**63 - 1, -(2**63)])
    tensor.parameters["scale"].double_param = 0.5
    request.inputs.add(name="other")
    request.outputs.add(name="label").parameters["classification"].int64_param = -3
    request.outputs.add(name="scores")
    decoded = decode(request.SerializeToString())
    assert (decoded.model_name, decoded.model_version, decoded.id) == ("digits", "2", "nonce-17")
    assert decoded.parameters == {"priority": Parameter("uint64_param", 2**64 - 1)}
    assert decoded.inputs[0].shape == (1, -1, 2**63 - 1, -(2**63))
    assert decoded.inputs[0].parameters == {"scale": Parameter("double_param", 0.5)}
    assert (decoded.inputs[1].name, decoded.inputs[1].shape, decoded.inputs[1].counts) == ("other", (), None)
    assert decoded.outputs[0] == ("label", {"classification": Parameter("int64_param", -3)})
    assert decoded.outputs[1] == ("scores", {})
    assert decoded.raw_input_contents == (b"\0" * 8, b"")


def test_empty_message_is_an_empty_request(decode):
    """No bytes are a request in which everything is missing."""
    assert decode(b"") == ("", "", "", {}, (), (), ())


@pytest.mark.parametrize(
    "message",
    [
        delimited(1, b"a") + varint(1 << 3 | VARINT, padding=5) + b"\x01",  # a tag of six bytes
        varint(2**32 + (11 << 3)) + b"\x01",  # a tag over 32 bits
        b"\x00\x01",
        b"\x02\x01a",
        b"\x03\x04",
        b"\x0e\x01",
        b"\x0f\x01",
        tag(11, wire.END_GROUP),
        tag(11, wire.START_GROUP),
        tag(11, wire.START_GROUP) + tag(12, wire.END_GROUP),
        tag(11, wire.START_GROUP) + b"\x03\x04" + tag(11, wire.END_GROUP),
        tag(11, VARINT) + varint(1, padding=10),  # a varint of eleven bytes
        tag(11, VARINT) + b"\x80",
        tag(11, FIXED32) + b"abc",
        tag(11, FIXED64) + b"abcdefg",
        delimited(11, b"abc")[:-1],
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a",  # a length of 2**64 - 1
        b"\x0a\xff\xff\xff\xff\x07a",  # a length of 2**31 - 1
        delimited(5, b"\x0a\x05ab") + b"cdefgh",  # an inner field that would end outside of its message
        delimited(5, tag(11, wire.START_GROUP)) + tag(11, wire.END_GROUP),
        delimited(5, delimited(3, b"\x01\x80")) + b"\x01",
        contents(delimited(1, b"\xff" * 10)),
        contents(delimited(6, b"abcde")),
        contents(delimited(7, b"abcdefghijkl")),
        delimited(1, b"\xc3") + tag(17, VARINT) + b"\x01",  # the tag would end the character
    ],
    ids=bytes.hex,
)
def test_malformed_message_is_refused(decode, message):
    """Broken tags, varints, lengths, groups and packed fields are refused."""
    with pytest.raises(DecodeError):
        decode(message)


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"\xc3",
        b"\xc1\xbf",  # U+007F in two bytes
        b"\xe0\x9f\xbf",  # U+07FF in three
        b"\xf0\x8f\xbf\xbf",  # U+FFFF in four
        b"\xed\xa0\x80",  # a surrogate
        b"\xf4\x90\x80\x80",  # U+110000
        b"12345678\x80",
    ],
    ids=bytes.hex,
)
@pytest.mark.parametrize(
    "place",
    [
        lambda text: delimited(1, text) + delimited(1, b"overwritten"),
        lambda text: delimited(2, text),
        lambda text: delimited(3, text),
        lambda text: parameter(delimited(1, text)),
        lambda text: parameter(delimited(1, text), tag(3, VARINT) + b"\x01"),
        lambda text: parameter(delimited(2, delimited(3, text))),
        lambda text: delimited(5, delimited(1, text)),
        lambda text: delimited(5, delimited(2, text)),
        lambda text: delimited(6, delimited(1, text)),
    ],
    ids=["model_name", "model_version", "id", "key", "key set aside", "string_param", "input", "datatype", "output"],
)
def test_text_that_is_no_utf8_is_refused(decode, text, place):
    """Every string field is checked, also one whose value will not stand."""
    with pytest.raises(DecodeError):
        decode(place(text))


@pytest.mark.parametrize(
    "text", ["", "\0", "a\0b", "12345678", "123456789", "äöü", "12345678ä", "\u0800\ud7ff\ue000\uffff", "😀\U0010ffff"]
)
def test_text_of_any_utf8_is_read(decode, text):
    """One to four bytes a character, at the edges of each length."""
    assert decode(delimited(1, text.encode())).model_name == text


@pytest.mark.parametrize("depth", [1, 97, 98, 99, 100, 101])
@pytest.mark.parametrize("levels", [(), (5,), (4,), (4, 2), (5, 5), (5, 4), (5, 4, 2), (6, 2, 2)], ids=str)
def test_groups_are_skipped_down_to_protobufs_depth(depth, levels):
    """A hundred levels may open, those of the messages around included."""
    message = nested_groups(20, depth)
    for number in reversed(levels):
        message = delimited(number, message)
    assert_decoders_agree(message)
    assert (outcome(messages.decode_request, message) is None) == (depth + len(levels) > 100)


def test_unknown_fields_are_skipped_in_every_message(decode):
    """Each wire type may appear under a number, or with a wire type, that the message does not know."""
    stray = delimited(30, b"x") + tag(31, VARINT) + b"\x01" + tag(32, FIXED64) + b"\0" * 8 + tag(1, FIXED32) + b"\0" * 4
    stray += nested_groups(5, 3)
    tensor = delimited(5, stray, delimited(1, b"x"), delimited(5, stray, delimited(8, b"element")))
    decoded = decode(stray + tensor + delimited(6, stray, delimited(1, b"y")))
    assert (decoded.model_name, decoded.inputs[0].name, decoded.outputs[0].name) == ("", "x", "y")
    assert decoded.inputs[0].counts == (0, 0, 0, 0, 0, 0, 0, 1)


def test_last_scalar_wins_and_repeated_fields_gather(decode):
    """A message given in pieces reads as one message."""
    first = ModelInferRequest(model_name="one", id="first", raw_input_contents=[b"1"])
    second = ModelInferRequest(model_name="two", raw_input_contents=[b"2"])
    first.inputs.add(name="a", shape=[1])
    second.inputs.add(name="b", shape=[2])
    decoded = decode(first.SerializeToString() + second.SerializeToString())
    assert (decoded.model_name, decoded.id) == ("two", "first")
    assert [(tensor.name, tensor.shape) for tensor in decoded.inputs] == [("a", (1,)), ("b", (2,))]
    assert decoded.raw_input_contents == (b"1", b"2")


def test_shape_is_read_packed_and_unpacked(decode):
    """Both forms mix, in their order; bits over 64 fall away."""
    over = b"\x81" + b"\x80" * 8 + b"\x7f"
    tensor = delimited(5, tag(3, VARINT) + b"\x07", delimited(3, b"\x08", over), tag(3, VARINT) + varint(2**64 - 1))
    assert decode(tensor).inputs[0].shape == (7, 8, -(2**63) + 1, -1)


KEY = delimited(1, b"k")
FIVE = delimited(2, b"\x10\x05")
SIX = delimited(2, b"\x10\x06")
TRUE = delimited(2, b"\x08\x02")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (parameter(KEY, FIVE), {"k": Parameter("int64_param", 5)}),
        (parameter(FIVE, KEY), {"k": Parameter("int64_param", 5)}),
        (parameter(), {"": Parameter("", None)}),
        (parameter(KEY), {"k": Parameter("", None)}),
        (parameter(TRUE), {"": Parameter("bool_param", True)}),
        (parameter(KEY, delimited(1, b"b")), {"b": Parameter("", None)}),
        (parameter(TRUE, delimited(2, b"\x1a\x01s")), {"": Parameter("string_param", "s")}),
        (parameter(TRUE, delimited(2)), {"": Parameter("bool_param", True)}),
        (parameter(KEY, delimited(2, b"\x10\x05\x78\x01")), {"k": Parameter("int64_param", 5)}),
        (parameter(KEY) * 2 + parameter(TRUE), {"k": Parameter("", None), "": Parameter("bool_param", True)}),
        (parameter(FIVE) + parameter(SIX), {"": Parameter("int64_param", 6)}),
        (parameter(KEY, tag(3, VARINT) + b"\x01"), {}),
        (parameter(KEY, tag(1, VARINT) + b"\x01"), {}),
        (parameter(FIVE) + parameter(SIX, nested_groups(9, 1)), {"": Parameter("int64_param", 5)}),
    ],
)
def test_parameters_are_read_as_a_protobuf_map(decode, entries, expected):
    """Missing halves, repeats and merges count as in protobuf; an entry with an unknown field is set aside whole."""
    assert decode(entries).parameters == expected


def test_parameters_of_each_owner_stay_apart(decode):
    """The same key means another parameter on the request, on each input and on each output."""
    request = ModelInferRequest()
    request.parameters["k"].int64_param = 1
    for number in (2, 3):
        request.inputs.add().parameters["k"].int64_param = number
        request.outputs.add().parameters["k"].int64_param = number * 10
    decoded = decode(request.SerializeToString())
    owners = [decoded, *decoded.inputs, *decoded.outputs]
    assert [owner.parameters["k"].value for owner in owners] == [1, 2, 3, 20, 30]


@pytest.mark.parametrize(
    ("piece", "around"),
    [
        (delimited(5), None),
        (delimited(6), None),
        (delimited(7), None),
        (delimited(4), None),
        (tag(3, VARINT) + b"\x01", 5),
        (b"\x01", (5, 3)),
        (delimited(5), 5),
        (delimited(2), 6),
    ],
    ids=["inputs", "outputs", "raw", "parameters", "dims", "packed dims", "contents", "output parameters"],
)
def test_entries_over_the_limit_are_refused(piece, around):
    """Of each kind a message may have ENTRIES_LIMIT, which is where the codec is stricter than protobuf."""

    def build(count):
        message = piece * count
        for number in reversed(around if isinstance(around, tuple) else (around,) if around else ()):
            message = delimited(number, message)
        return message

    messages.decode_request(build(messages.ENTRIES_LIMIT))
    with pytest.raises(DecodeError, match="more than"):
        messages.decode_request(build(messages.ENTRIES_LIMIT + 1))


def test_view_that_grew_serves_again():
    """A pooled view decodes a large message over and over, and gives its memory back in between."""
    large = (delimited(5, delimited(3, b"\x01" * 9), delimited(5)) + delimited(6) + delimited(7) + parameter()) * 500
    assert messages.measure_codec(large, 20) > 0
    with pytest.raises(DecodeError):
        messages.measure_codec(large + b"\x00", 20)


def test_decode_without_bytes_is_a_type_error():
    """None is no message."""
    with pytest.raises(TypeError):
        messages.decode_request(None)


@SEARCH
@given(wire.wire_messages(REQUEST, max_fields=8))
def test_any_wire_message_reads_as_in_protobuf(message):
    """Messages that follow the schema, or nearly, are read or refused alike."""
    assert_decoders_agree(message)


@SEARCH
@given(wire.mutated(wire.wire_messages(REQUEST, max_fields=8)))
def test_mutated_message_reads_as_in_protobuf(message):
    """Flipped, cut, inserted and repeated bytes change both outcomes alike."""
    assert_decoders_agree(message)


@SEARCH
@given(st.binary(max_size=60))
def test_random_bytes_read_as_in_protobuf(message):
    """Bytes of no meaning are mostly refused, by both."""
    assert_decoders_agree(message)
