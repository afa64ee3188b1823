"""kernels.contents: typed elements become the raw layout, for every datatype and both ways of encoding them."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_messages import CONTENTS, FIXED32, FIXED64, SEARCH, VARINT, contents, delimited, tag, varint, wire_messages

from kernels import messages, reference
from service.pb.open_inference_pb2 import ModelInferRequest

decode_with_protobuf = partial(reference.decode_request, request_type=ModelInferRequest)
NUMBERS = {
    "BOOL": [True, False, True],
    "INT8": [-128, 127, 0],
    "INT16": [-32768, 32767, -1],
    "INT32": [-(2**31), 2**31 - 1, 5],
    "INT64": [-(2**63), 2**63 - 1, -7],
    "UINT8": [0, 255, 127],
    "UINT16": [0, 65535, 128],
    "UINT32": [0, 2**32 - 1, 300],
    "UINT64": [0, 2**64 - 1, 2**63],
    "FP32": [0.5, -np.inf, 2.0**-149],
    "FP64": [0.1, np.inf, -(2.0**-1074)],
}
BEYOND = {"INT8": [-129, 128], "INT16": [-32769, 32768], "UINT8": [256, 2**32 - 1], "UINT16": [65536, 2**32 - 1]}


@pytest.fixture(params=[decode_with_protobuf, messages.decode_request], ids=["reference", "compiled"])
def decode(request):
    """Both decoders."""
    return request.param


def encode_input(datatype, values):
    """Encode a request of one input with typed contents."""
    request = ModelInferRequest()
    tensor = request.inputs.add(datatype=datatype)
    getattr(tensor.contents, reference.CARRIERS[datatype]).extend(values)
    return request.SerializeToString()


@pytest.mark.parametrize("count", [0, 1, 3, 7, 8, 9, 33, 5000])
@pytest.mark.parametrize("datatype", NUMBERS)
def test_typed_numbers_take_the_raw_layout(decode, datatype, count):
    """The raw layout is NumPy's, at the edges of each datatype and around the steps of eight."""
    values = (NUMBERS[datatype] * count)[:count]
    tensor = decode(encode_input(datatype, values)).inputs[0]
    assert tensor.content == np.array(values, dtype=reference.DTYPES[datatype]).tobytes()
    assert sum(tensor.counts) == count


@pytest.mark.parametrize("elements", [[b""], [b"", b"a", b"\0\xff"], [b"x" * 300] * 3], ids=len)
def test_typed_bytes_take_the_raw_layout(decode, elements):
    """Each element has its length in front; any byte may stand in it."""
    content = decode(encode_input("BYTES", elements)).inputs[0].content
    assert reference.split_strings(content) == elements
    assert content[:4] == len(elements[0]).to_bytes(4, "little")


@pytest.mark.parametrize(("datatype", "value"), [(name, value) for name, values in BEYOND.items() for value in values])
def test_value_beyond_its_datatype_leaves_no_content(decode, datatype, value):
    """A value that does not fit is not cut to size."""
    tensor = decode(encode_input(datatype, [0, value, 1])).inputs[0]
    assert tensor.content is None
    assert sum(tensor.counts) == 3


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "", "fp32", "FP32\0"])
def test_datatype_without_a_typed_form_leaves_no_content(decode, datatype):
    """Half precisions travel raw; other names are no datatypes."""
    message = delimited(5, delimited(2, datatype.encode()), delimited(5, delimited(6, b"\0" * 8)))
    tensor = decode(message).inputs[0]
    assert (tensor.content, tensor.counts) == (None, (0, 0, 0, 0, 0, 2, 0, 0))


@pytest.mark.parametrize("split", [0, 1, 5, 12])
@pytest.mark.parametrize("datatype", NUMBERS)
def test_packed_single_and_split_elements_mix(decode, datatype, split):
    """Elements one by one, packed in two runs, and spread over two occurrences of `contents` are one sequence."""
    values = (NUMBERS[datatype] * 5)[:13]
    number = 1 + reference.CONTENTS_FIELDS.index(reference.CARRIERS[datatype])
    width = 4 if datatype == "FP32" else 8
    wire_type = {6: FIXED32, 7: FIXED64}.get(number, VARINT)
    if wire_type == VARINT:
        encoded = [varint(int(value) % 2**64) for value in values]
    else:
        encoded = [np.array(value, dtype=f"<f{width}").tobytes() for value in values]
    single = b"".join(tag(number, wire_type) + value for value in encoded[:split])
    packed = delimited(number, *encoded[split:12]) + delimited(number, *encoded[12:])
    parts = delimited(5, single), delimited(5, packed), delimited(2, datatype.encode())
    assert decode(delimited(5, *parts)).inputs[0].content == np.array(values, reference.DTYPES[datatype]).tobytes()


def test_contents_of_each_input_stay_apart(decode):
    """Every input is laid out from its own occurrences of `contents`."""
    message = b"".join(encode_input("BYTES", [b"nonce-%d" % place] * place) for place in (1, 3, 0, 2))
    elements = [reference.split_strings(tensor.content) for tensor in decode(message).inputs]
    assert elements == [[b"nonce-%d" % place] * place for place in (1, 3, 0, 2)]


def test_element_bits_over_its_width_fall_away(decode):
    """A 32-bit field keeps the lower half of its varint, a bool asks whether any of the 64 bits is set."""
    wide = varint(2**40 + 7)
    lost = b"\x80" * 9 + b"\x02"  # bit 64
    for datatype, number, element, expected in (
        ("INT32", 2, wide, b"\x07\0\0\0"),
        ("UINT8", 4, wide, b"\x07"),
        ("BOOL", 1, varint(2**40), b"\x01"),
        ("BOOL", 1, lost, b"\0"),
    ):
        message = delimited(5, delimited(2, datatype.encode()), delimited(5, delimited(number, element)))
        assert decode(message).inputs[0].content == expected


def test_signalling_nan_keeps_its_bits():
    """Floats are copied, not converted."""
    bits = b"\x01\0\xa0\x7f"
    message = delimited(5, delimited(2, b"FP32"), delimited(5, delimited(6, bits), tag(6, FIXED32) + bits))
    assert messages.decode_request(message).inputs[0].content == bits * 2


def test_empty_contents_are_told_from_none(decode):
    """`contents` without an element occurred; its counts are zeros."""
    assert decode(contents()).inputs[0].counts == (0,) * 8
    assert decode(delimited(5)).inputs[0].counts is None


def test_large_contents_of_short_varints_are_counted_whole(decode):
    """A million elements of one, two and ten bytes, in one packed run that starts anywhere."""
    run = (b"\x01" * 7 + b"\x80\x01" + b"\xff" * 9 + b"\x01") * 1000
    for shift in range(9):
        message = delimited(5, delimited(2, b"INT64"), delimited(5, delimited(3, b"\x02" * shift, run)))
        expected = [2] * shift + ([1] * 7 + [128, -1]) * 1000
        assert decode(message).inputs[0].content == np.array(expected, dtype=np.int64).tobytes()


@SEARCH
@given(st.sampled_from(sorted(reference.DTYPES)), st.lists(wire_messages(CONTENTS, max_fields=8), max_size=3))
def test_any_contents_read_as_in_protobuf(datatype, pieces):
    """Whatever the mixture of fields, the counts and the raw layout are protobuf's; so are the refusals."""
    message = delimited(5, delimited(2, datatype.encode()), *[delimited(5, piece) for piece in pieces])
    outcomes = []
    for decoder in (decode_with_protobuf, messages.decode_request):
        try:
            outcomes.append(decoder(message))
        except messages.DecodeError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]
