"""kernels.response: encodes what protobuf reads back, byte for byte as protobuf would have written it."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_messages import SEARCH

from kernels import messages, reference
from service.pb.open_inference_pb2 import ModelInferResponse

encode_with_protobuf = partial(reference.encode_response, ModelInferResponse)
datatypes = st.sampled_from(sorted(reference.DTYPES))
sizes = st.one_of(st.integers(0, 5), st.sampled_from([127, 128, 16383, 16384]))
outputs = st.tuples(
    st.text(max_size=5),
    datatypes,
    st.lists(st.one_of(st.integers(0, 300), st.integers(-(2**63), 2**63 - 1)), max_size=4),
    sizes.map(bytes),
)
places = st.tuples(st.text(max_size=200), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
moved = st.tuples(outputs, places).map(lambda pair: (*pair[0][:3], b"", pair[1]))


@pytest.fixture(params=[encode_with_protobuf, messages.encode_response], ids=["reference", "compiled"])
def encode(request):
    """Both encoders."""
    return request.param


@pytest.mark.parametrize("rows", [0, 1, 3, 40, 100_000])
def test_response_is_read_back_by_protobuf(encode, rows):
    """Names, version, id, shape and raw content arrive."""
    scores = bytes(range(256)) * (rows * 4 // 256 + 1)
    given_outputs = [("scores", "FP32", (rows, 1), scores[: rows * 4]), ("label", "BYTES", (), b"\0\0\0\0")]
    encoded = encode(model_name="digits", model_version="2", id="nonce-3", outputs=given_outputs)
    response = ModelInferResponse.FromString(encoded)
    assert (response.model_name, response.model_version, response.id) == ("digits", "2", "nonce-3")
    assert [(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in response.outputs] == [
        ("scores", "FP32", (rows, 1)),
        ("label", "BYTES", ()),
    ]
    assert list(response.raw_output_contents) == [scores[: rows * 4], b"\0\0\0\0"]
    assert not any(tensor.HasField("contents") for tensor in response.outputs)


@pytest.mark.parametrize("offset", [0, 1, 127, 128, 2**63 - 1])
@pytest.mark.parametrize("size", [0, 1, 300, 2**40])
def test_output_in_shared_memory_says_where_it_is(encode, offset, size):
    """By parameters, and without content; an offset of 0 goes without saying."""
    outputs = [("scores", "FP32", (2,), b"", ("region-ü", offset, size)), ("label", "INT8", (1,), b"\7")]
    encoded = encode(model_name="digits", model_version="2", id="", outputs=outputs)
    response = ModelInferResponse.FromString(encoded)
    given = {
        key: getattr(value, value.WhichOneof("parameter_choice"))
        for key, value in response.outputs[0].parameters.items()
    }
    expected = {"shared_memory_region": "region-ü", "shared_memory_byte_size": size, "shared_memory_offset": offset}
    assert given == {key: value for key, value in expected.items() if value or key != "shared_memory_offset"}
    assert not response.outputs[1].parameters
    assert list(response.raw_output_contents) == [b"", b"\7"]


def test_response_of_nothing_is_empty(encode):
    """Empty strings take no bytes."""
    assert encode(model_name="", model_version="", id="", outputs=[]) == b""


def test_response_with_unknown_datatype_is_refused(encode):
    """A name outside the table has no encoding."""
    with pytest.raises(ValueError, match="'FP31' is no datatype"):
        encode(model_name="m", model_version="1", id="", outputs=[("x", "FP31", (1,), b"")])


@SEARCH
@given(st.text(max_size=200), st.text(max_size=3), st.text(max_size=3), st.lists(outputs | moved, max_size=4))
def test_any_response_is_encoded_as_by_protobuf(model_name, model_version, id, outputs):
    """Both encoders write the same bytes."""
    fields = {"model_name": model_name, "model_version": model_version, "id": id, "outputs": outputs}
    assert messages.encode_response(**fields) == encode_with_protobuf(**fields)
